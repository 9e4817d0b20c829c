"""The scoreboard on the screen and as docs/accuracy.md: targets, choices, then every figure with the misses first."""

from __future__ import annotations

import json
from collections.abc import Sequence

from advisor.calibrate.accuracy import Line, Row
from advisor.calibrate.residuals import Choices, scatter
from advisor.report.screen import Screen


def accuracy_page(
    by_model: Sequence[Line], by_gpu: Sequence[Line], choices: Choices, rows: Sequence[Row], *, misses: int, screen: Screen
) -> str:
    """The scoreboard for a terminal."""
    lines = [screen.bold("Predicted against published figures, each row's own model left out of the fit"), ""]
    lines += _scores(by_model, screen)
    if by_gpu:
        lines += ["", screen.bold("The same, each row's own GPU left out (its kernels taken from its family)"), ""]
        lines += _scores(by_gpu, screen)
    lines += ["", _choice_sentence(choices), *_aside(rows)]
    if misses and rows:
        lines += ["", screen.bold(f"The {min(misses, len(rows))} largest misses"), ""]
        lines += screen.table(_HEAD, [_cells(row) for row in worst_first(rows)[:misses]], right=(4, 5, 6))
    return "\n".join(lines)


def accuracy_markdown(
    by_model: Sequence[Line], by_gpu: Sequence[Line], choices: Choices, rows: Sequence[Row], failed: Sequence[tuple[str, str]]
) -> str:
    """docs/accuracy.md: the same with every row and its address."""
    parts = [
        "# Accuracy",
        "",
        "Made by `advisor accuracy --markdown`; do not edit. Figures that others published, with their address, beside",
        "what the model says of them. Headlines count only rows predicted by coefficients fitted without their own model (or GPU).",
        "Error is predicted / measured - 1; the interval is the 90% one; *held* is how often it held the measured figure.",
        "",
        "## Each row's own model left out",
        "",
        *_markdown_scores(by_model),
        "",
        "## Each row's own GPU left out, its kernels taken from its family",
        "",
        *_markdown_scores(by_gpu),
        "",
        _choice_sentence(choices),
        *_aside(rows),
        "",
    ]
    if failed:
        parts += [f"{len(failed)} rows could not be computed:", ""]
        parts += [f"- `{name}`: {reason}" for name, reason in failed]
        parts.append("")
    parts += ["## Every figure, misses first", ""]
    parts += ["| " + " | ".join((*_HEAD, "interval", "fitted on", "published")) + " |", "|" + "---|" * (len(_HEAD) + 3)]
    for row in worst_first(rows):
        fitted = f"set aside: {row.anomaly}" if row.anomaly else "no" if row.without else "yes"
        cells = (*_cells(row), f"{_number(row.low)} to {_number(row.high)}", fitted, f"[{row.point.source}]({row.url})")
        parts.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(parts) + "\n"


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


_SCORE_HEAD = ("figure", "rows", "median", "aim", "p90", "aim", "bias", "held")


def _score_cells(line: Line) -> tuple[str, ...]:
    reached, target = line.reached, line.target
    held = "" if reached.covered is None else f"{reached.covered:.0%}"
    return (
        target.name, str(reached.points), f"{reached.median:.1%}", f"{target.median:.0%}", f"{reached.p90:.0%}",
        f"{target.p90:.0%}", f"{reached.bias:+.1%}", held,
    )  # fmt: skip


def _scores(lines: Sequence[Line], screen: Screen) -> list[str]:
    return screen.table(_SCORE_HEAD, [_score_cells(line) for line in lines], right=range(1, 8))


def _markdown_scores(lines: Sequence[Line]) -> list[str]:
    rows = ["| " + " | ".join(_SCORE_HEAD) + " |", "|---|" + "---:|" * 7]
    return rows + ["| " + " | ".join(_score_cells(line)) + " |" for line in lines]


def _choice_sentence(choices: Choices) -> str:
    if not choices.made:
        return "No two plans on equal GPUs and equal load are among the rows."
    return (
        f"Choosing between plans on equal GPUs at equal load: right in {choices.right} of {choices.made} "
        f"({choices.right / choices.made:.0%}), mean regret {choices.mean_regret:.2%}; "
        f"always the largest tp is right in {choices.largest_tp_right} ({choices.largest_tp_right / choices.made:.0%})."
    )


def _aside(rows: Sequence[Row]) -> list[str]:
    """What the rows marked * would have scored: they count in no line above."""
    found = scatter([row.log for row in rows if row.anomaly]) if any(row.anomaly for row in rows) else None
    if found is None:
        return []
    return [
        f"{found.points} figures marked * show that they ran under conditions they do not state (speculative decoding, a prefix",
        f"cache, kernels compiled inside the run) and count in no line: median {found.median:.0%}, p90 {found.p90:.0%}.",
    ]


def accuracy_json(by_model: Sequence[Line], by_gpu: Sequence[Line], choices: Choices, rows: Sequence[Row]) -> str:
    """The scoreboard and every row as JSON; errors and shares are fractions of one."""

    def scores(lines: Sequence[Line]) -> list[dict[str, object]]:
        return [
            {
                "figure": line.target.name, "rows": line.reached.points, "median_error": line.reached.median,
                "median_aim": line.target.median, "p90_error": line.reached.p90, "p90_aim": line.target.p90,
                "bias": line.reached.bias, "interval_held": line.reached.covered,
            }
            for line in lines
        ]  # fmt: skip

    data = {
        "model_left_out": scores(by_model),
        "gpu_left_out": scores(by_gpu),
        "choices": {
            "made": choices.made, "right": choices.right, "mean_regret": choices.mean_regret,
            "largest_tp_right": choices.largest_tp_right,
        },
        "rows": [
            {
                "id": row.point.id, "url": row.url, "figure": row.figure, "measured": row.measured, "predicted": row.predicted,
                "low": row.low, "high": row.high, "error": row.error, "fitted_on": not row.without, "without": row.without,
                "anomaly": row.anomaly,
            }
            for row in worst_first(rows)
        ],
    }  # fmt: skip
    return json.dumps(data, indent=2)
