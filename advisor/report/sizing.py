"""The page of `advisor size`: a row for each GPU type, why one replica fewer is too few, and GPUs against load."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.report.screen import PLAIN, Screen
from advisor.specs.sizing import Size, Sizing
from advisor.units import show, show_count

SCALES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


def page(found: Sizing, *, said: Sequence[str] = (), screen: Screen = PLAIN) -> str:
    """The sizes as text."""
    limits = ", ".join(f"{limit.name} {show(limit.seconds, 's')}" for limit in found.limits)
    lines = [screen.wrap(sentence, indent="  ", first="") for sentence in said]
    lines.append(f"Load: {found.load}, {show_count(found.requests_per_s)} requests/s. Limits: {limits}.")
    lines += [f"They are kept with a chance of {found.confidence:.0%}: times are those of steps as slow as that.", ""]
    if found.sizes:
        best = found.sizes[0]
        lines += [screen.bold(f"{best.gpus:,} x {best.gpu}: {_replicas(best.plan.dp)} of {best.plan.replica().label}"), ""]
        heading = ("GPUs", "type", "replica", "replicas", *(limit.name for limit in found.limits), "$/h", "$/Mtok", "carries")
        rows = [_row(size) for size in found.sizes]
        lines += ["  " + line for line in screen.table(heading, rows, right=(0, 3, *range(4, len(heading))))]
        lines += ["", *(_smaller(size) for size in found.sizes), "", "GPUs for so many times the load:"]
        scales = [("", *(f"x{scale:g}" for scale in SCALES))]
        scaled = [(size.gpu, *(f"{size.gpus_at(scale):,}" for scale in SCALES)) for size in found.sizes]
        lines += ["  " + line for line in screen.table(scales[0], scaled, right=tuple(range(1, len(SCALES) + 1)))]
        if best.by_hour:
            lines += ["", f"Replicas of {best.gpu} by hour: {', '.join(map(str, best.by_hour))}"]
    lines += [screen.wrap(f"{name}: {reason}.", indent="  ") for name, reason in found.none]
    return "\n".join(lines)


def _row(size: Size) -> tuple[str, ...]:
    usd, each = size.usd_per_hour, size.usd_per_million_tokens
    times = (show(verdict.found.value, "s") for verdict in size.found)
    carries = f"{size.share * size.plan.dp:.2f} x the load"
    money = ("" if usd is None else show_count(usd), "" if each is None else show_count(each))
    return (f"{size.gpus:,}", size.gpu, size.plan.replica().label, f"{size.plan.dp:,}", *times, *money, carries)


def _smaller(size: Size) -> str:
    if not size.smaller:
        return f"  {size.gpu}: one replica is enough, and the smallest that keeps the limits."
    missed = [v for v in size.smaller if not v.met]
    words = ", ".join(f"{v.limit.name} would be {show(v.found.value, 's')}" for v in missed)
    fewer = _replicas(size.plan.dp - 1)
    return f"  {size.gpu}: {fewer} {'is' if size.plan.dp == 2 else 'are'} too few: {words}."


def _replicas(count: int) -> str:
    return f"{count:,} replica{'s' if count > 1 else ''}"
