"""The scoreboard on the screen and as docs/accuracy.md: targets, what is weak, choices, then every figure with the misses first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from advisor.calibrate.accuracy import (
    ANOTHER_FAMILY,
    ANOTHER_GPU,
    Row,
    ScoreLine,
    Slice,
    of_vendor,
    plan_choices,
    scoreboard,
    slices,
)
from advisor.calibrate.residuals import Choices, scatter
from advisor.report.screen import Screen


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The scoreboard: each row's own model, its whole family, and its GPU (with its kernels) left out, and choices by vendor."""

    by_model: tuple[ScoreLine, ...]
    by_family: tuple[ScoreLine, ...]
    by_gpu: tuple[ScoreLine, ...]
    parts: tuple[Slice, ...]
    nvidia: Choices
    amd: Choices

    @classmethod
    def of(cls, scored: Sequence[Row], families: Sequence[Row], elsewhere: Sequence[Row]) -> Board:
        """From the rows scored three times."""
        return cls(
            by_model=tuple(scoreboard(scored)),
            by_family=tuple(scoreboard(families, ANOTHER_FAMILY)),
            by_gpu=tuple(scoreboard(elsewhere, ANOTHER_GPU)),
            parts=tuple(slices(scored)),
            nvidia=plan_choices(of_vendor(scored, amd=False)),
            amd=plan_choices(of_vendor(scored, amd=True)),
        )


_COUNTED = (
    "Counted are figures that others published, each predicted by coefficients fitted without its own model (family, GPU). "
    "Not counted: rows whose recipe speculates or whose figures show a prefix cache, one repeated prompt or kernels compiled "
    "inside the run (marked *)."
)
_PEER = (
    "The strongest peer, aiconfigurator 0.12, on other figures of the same collections, which neither fit has seen: "
    "static batches 29% (p90 55%), TPOT 13.5%, TTFT 36%."
)


def accuracy_page(board: Board, rows: Sequence[Row], *, misses: int, screen: Screen) -> str:
    """The scoreboard for a terminal."""
    lines = [screen.bold("Predicted against published figures, each row's own model left out of the fit"), ""]
    lines += _scores(board.by_model, screen)
    if board.by_family:
        lines += ["", screen.bold("The same, all models of the row's family left out (dense, MoE, MLA, hybrid)"), ""]
        lines += _scores(board.by_family, screen)
    if board.by_gpu:
        lines += ["", screen.bold("The same, each row's own GPU left out (its kernels taken from its family)"), ""]
        lines += _scores(board.by_gpu, screen)
    lines += ["", *_choice_sentences(board), "", screen.wrap(_COUNTED), *_aside(rows)]
    if misses and rows:
        lines += ["", screen.bold(f"The {min(misses, len(rows))} largest misses"), ""]
        lines += screen.table(_HEAD, [_cells(row) for row in worst_first(rows)[:misses]], right=(4, 5, 6))
    return "\n".join(lines)


def accuracy_markdown(board: Board, rows: Sequence[Row], failed: Sequence[tuple[str, str]]) -> str:
    """docs/accuracy.md: what is weak first, then all lines, and every row with its address folded away at the end."""
    parts = [
        "# Accuracy",
        "",
        "Made by `advisor accuracy --markdown`; do not edit.",
        _COUNTED,
        "Error is |predicted / measured - 1|, bias the middle predicted / measured - 1; *inside* is how many measured figures lie",
        "in the 90% interval, *width* its upper over its lower end, in the median.",
        "",
        "## Each row's own model left out",
        "",
        *_markdown_scores(board.by_model),
        "",
        _PEER,
        "",
        "## What is weak first: by engine, models and GPUs",
        "",
        *_markdown_slices(board.parts),
        "",
        "## All models of the row's family left out",
        "",
        *_markdown_scores(board.by_family),
        "",
        "## Each row's own GPU left out, its kernels taken from its family",
        "",
        *_markdown_scores(board.by_gpu),
        "",
        "## Choices",
        "",
        *_choice_sentences(board),
        "",
        *_aside(rows),
        "",
    ]
    if failed:
        parts += [f"{len(failed)} rows could not be computed:", ""]
        parts += [f"- `{name}`: {reason}" for name, reason in failed]
        parts.append("")
    parts += ["## Every figure", "", f"<details><summary>{len(rows)} figures, misses first</summary>", ""]
    parts += ["| " + " | ".join((*_HEAD, "interval", "fitted on", "published")) + " |", "|" + "---|" * (len(_HEAD) + 3)]
    for row in worst_first(rows):
        fitted = f"set aside: {row.anomaly}" if row.anomaly else "no" if row.without else "yes"
        if row.point.assumed:
            fitted += f"; assumed {row.point.assumed}"
        cells = (*_cells(row), f"{_number(row.low)} to {_number(row.high)}", fitted, f"[{row.point.source}]({row.url})")
        parts.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join([*parts, "", "</details>"]) + "\n"


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Rows by the size of their miss, marked anomalies last."""
    return sorted(rows, key=lambda row: (bool(row.anomaly), -abs(row.log), row.point.id, row.figure))


_HEAD = ("engine, model", "GPU, plan", "load", "figure", "measured", "predicted", "error")


def _cells(row: Row) -> tuple[str, ...]:
    p, w = row.point, row.point.workload
    users = f"{w.users} " if w.users else (f"{w.rate_per_s:g}/s " if w.rate_per_s else "")
    return (
        f"{p.engine} {p.model.split('/')[-1]} {p.weight_dtype}".strip(),
        f"{p.hardware} {p.plan.label}",
        f"{users}{w.mode.replace('_', ' ')} {w.input_tokens:g}/{w.output_tokens:g}",
        row.figure,
        _number(row.measured),
        _number(row.predicted),
        f"{row.error:+.0%}" + (" *" if row.anomaly else ""),
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


_SCORE_HEAD = ("figure", "rows", "median", "aim", "p90", "aim", "bias", "inside", "width")


def _score_cells(line: ScoreLine | Slice) -> tuple[str, ...]:
    reached, target = line.reached, line.target
    inside = "" if reached.covered is None else f"{reached.covered:.0%}"
    width = "" if reached.width is None else f"{reached.width:.2f}x"
    return (
        target.name, str(reached.points), f"{reached.median:.1%}", f"{target.median:.0%}", f"{reached.p90:.0%}",
        f"{target.p90:.0%}", f"{reached.bias:+.1%}", inside, width,
    )  # fmt: skip


def _scores(lines: Sequence[ScoreLine], screen: Screen) -> list[str]:
    return screen.table(_SCORE_HEAD, [_score_cells(line) for line in lines], right=range(1, 9))


def _markdown_scores(lines: Sequence[ScoreLine]) -> list[str]:
    rows = ["| " + " | ".join(_SCORE_HEAD) + " |", "|---|" + "---:|" * 8]
    return rows + ["| " + " | ".join(_score_cells(line)) + " |" for line in lines]


def _markdown_slices(parts: Sequence[Slice]) -> list[str]:
    rows = ["| of | " + " | ".join(_SCORE_HEAD) + " |", "|---|---|" + "---:|" * 8]
    return rows + [f"| {part.axis}: {part.value} | " + " | ".join(_score_cells(part)) + " |" for part in parts]


def _choice_sentences(board: Board) -> list[str]:
    return [_choice_sentence("NVIDIA", board.nvidia), _choice_sentence("AMD", board.amd)]


def _choice_sentence(vendor: str, choices: Choices) -> str:
    if not choices.made:
        return f"{vendor}: no two plans on equal GPUs and equal load are among the rows."
    return (
        f"{vendor}, plans on equal GPUs at equal load: right in {choices.right} of {choices.made} "
        f"({choices.right / choices.made:.0%}), mean regret {choices.mean_regret:.2%}; "
        f"always the largest tp: {choices.largest_tp_right / choices.made:.0%}."
    )


def _aside(rows: Sequence[Row]) -> list[str]:
    """What the rows marked * would have scored: they count in no line above."""
    found = scatter([row.log for row in rows if row.anomaly]) if any(row.anomaly for row in rows) else None
    if found is None:
        return []
    return [f"{found.points} figures are marked *: median {found.median:.0%}, p90 {found.p90:.0%}."]


def accuracy_json(board: Board, rows: Sequence[Row]) -> str:
    """The scoreboard and every row as JSON; errors and shares are fractions of one."""

    def score(line: ScoreLine | Slice) -> dict[str, object]:
        return {
            "figure": line.target.name, "rows": line.reached.points, "median_error": line.reached.median,
            "median_aim": line.target.median, "p90_error": line.reached.p90, "p90_aim": line.target.p90,
            "bias": line.reached.bias, "inside_interval": line.reached.covered, "interval_width": line.reached.width,
        }  # fmt: skip

    def choice(choices: Choices) -> dict[str, object]:
        return {
            "made": choices.made, "right": choices.right, "mean_regret": choices.mean_regret,
            "largest_tp_right": choices.largest_tp_right,
        }  # fmt: skip

    data = {
        "model_left_out": [score(line) for line in board.by_model],
        "family_left_out": [score(line) for line in board.by_family],
        "gpu_left_out": [score(line) for line in board.by_gpu],
        "parts": [{"axis": part.axis, "value": part.value, **score(part)} for part in board.parts],
        "choices": {"nvidia": choice(board.nvidia), "amd": choice(board.amd)},
        "rows": [
            {
                "id": row.point.id, "url": row.url, "figure": row.figure, "measured": row.measured, "predicted": row.predicted,
                "low": row.low, "high": row.high, "error": row.error, "fitted_on": not row.without, "without": row.without,
                "anomaly": row.anomaly, "family": row.family, "assumed": row.point.assumed,
            }
            for row in worst_first(rows)
        ],
    }  # fmt: skip
    return json.dumps(data, indent=2)
