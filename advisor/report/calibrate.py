"""What a calibration of this machine rests on, as a page."""

from __future__ import annotations

from advisor.calibrate.corrections import Correction
from advisor.calibrate.local import Fitted, LocalFit
from advisor.report.screen import Screen


def fit_page(local: LocalFit, *, screen: Screen) -> str:
    """The machine, then a row a coefficient set: how far the shipped ones were off, and how far its own are."""
    made = local.calibration
    lines = [
        screen.bold(f"Calibration: {made.name}, {made.date}"),
        *(screen.wrap(f"{note}.", indent="  ") for note in made.notes),
        "",
    ]
    rows = [_row(part) for part in local.fitted]
    lines += screen.table(["fitted", "samples", "median error as shipped", "fitted"], rows, right=(1, 2, 3))
    if local.left_as_shipped:
        lines += ["", screen.wrap(
            "Left as shipped, because the shipped ones are of engines' own kernels on this GPU and these samples are torch's: "
            + ", ".join(f"{part.key} ({_percent(part.after)} off)" for part in local.left_as_shipped) + "."
        )]  # fmt: skip
    return "\n".join(lines)


def _row(part: Fitted) -> list[str]:
    return [part.key, f"{part.points}", "-" if part.before is None else _percent(part.before), _percent(part.after)]


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def correction_page(found: Correction, *, screen: Screen) -> str:
    """What the user's rows moved, and which did not count."""
    scales = ", ".join(f"{name} x {factor:.3g}" for name, factor in found.calibration.scales if abs(factor - 1.0) >= 0.005)
    count = len(found.used)
    lines = [
        screen.bold(f"{count} {'row' if count == 1 else 'rows'} counted: {', '.join(found.used[:8])}{' ...' if count > 8 else ''}")
    ]
    lines.append(screen.wrap(f"Times are now: {scales or 'as before, the rows agree with the prediction'}."))
    lines += [screen.wrap(f"{name} {why}", indent="  ", first="left out: ") for name, why in found.left_out]
    return "\n".join(lines)
