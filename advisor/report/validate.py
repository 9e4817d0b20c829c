"""Predicted beside measured: the page and the JSON of a validation."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.measure.validation import CellResult, Pair, PlanResult, Validation
from advisor.report.screen import Screen
from advisor.report.words import short
from advisor.specs import wire
from advisor.units import show, show_count

_REASON = 400  # characters of a failure on the page; the results file has all of it


def page(found: Validation, *, screen: Screen, cells: bool) -> str:
    """What was measured on what, a row a plan, the order, the cells, and what has to be known."""
    lines = [screen.wrap(sentence) for sentence in found.said]
    on = f"{found.model} on {found.measured_on or 'nothing'} ({found.software or 'no software'})"
    lines += [screen.wrap(f"Measured: {on}; predicted for {found.machine} with calibration {found.calibration}."), ""]
    lines += _plans(found.plans, screen)
    lines += ["", screen.bold(screen.wrap(found.order.sentence))]
    shards = [p for p in found.plans if p.shard]
    if shards:
        lines.append(screen.wrap(
            f"{', '.join(p.plan.label for p in shards)}: one rank was measured alone, its collectives and the other stages are the "
            "model's; the error is that of the rank's own kernels."
        ))  # fmt: skip
    if cells:
        for plan in found.plans:
            if plan.cells:
                lines += ["", screen.bold(f"{plan.plan.label}, step by step"), *_cells(plan.cells, screen)]
    for plan in found.plans:
        if plan.failed:
            lines += ["", screen.wrap(f"{plan.plan.label} {'stopped' if plan.cells else 'failed'}: {_cut(plan.failed)}")]
    lines += _notes(found.plans, screen)
    return "\n".join(lines)


def validation_json(found: Validation) -> str:
    """All of it, fields by name."""
    return wire.to_json(found)


def _plans(plans: Sequence[PlanResult], screen: Screen) -> list[str]:
    head = ["plan", "batch", "figure", "predicted", "measured", "error"]
    rows: list[list[str]] = []
    for plan in plans:
        name = short(plan.plan) + (" *" if plan.shard else "")
        figures = (
            ("TTFT", plan.ttft_s, "s"), ("TPOT", plan.tpot_s, "s"), (f"{plan.rate} tokens/s", plan.tokens_per_s, ""),
            ("KV tokens", plan.kv_tokens, ""),
        )  # fmt: skip
        for at, (label, pair, unit) in enumerate(figures):
            if pair is None:
                continue
            batch = show_count(plan.batch) if at == 0 else ""
            rows.append([name if at == 0 else "", batch, label, *_pair(pair, unit)])
    lines = screen.table(head, rows, right=(1, 3, 4, 5))
    return [*lines, "* one rank measured, the rest from the model"] if any(p.shard for p in plans) else lines


def _pair(pair: Pair, unit: str) -> list[str]:
    if pair.measured is None:
        return [_value(pair.predicted, unit), "-", "-"]
    assert pair.error is not None
    return [_value(pair.predicted, unit), _value(pair.measured, unit), f"{pair.error:+.0%}"]


def _value(value: float, unit: str) -> str:
    return show(value, unit) if unit else show_count(value)


def _cells(cells: Sequence[CellResult], screen: Screen) -> list[str]:
    """One row a cell, with what one rank achieved; the bubble where there are stages."""
    stages = any(cell.bubble for cell in cells)
    head = ["step", "batch", "tokens", "predicted", "measured", "error", "spread", "read", "multiplied"]
    head += ["bubble", "naive"] if stages else []
    rows = []
    for cell in cells:
        seconds = cell.seconds
        assert seconds.measured is not None
        width = (cell.high_s - cell.low_s) / seconds.measured
        row = [
            cell.cell.kind, show_count(cell.cell.batch), show_count(cell.cell.context_tokens), *_pair(seconds, "s"),
            f"{width:.0%}",
            show(cell.achieved_bytes_per_s, "B/s") if cell.cell.phase == "decode" else "",
            show(cell.achieved_flop_per_s, "FLOP/s"),
        ]  # fmt: skip
        if stages:
            both = f"{cell.bubble.predicted:.0%} / {cell.bubble.measured:.0%}" if cell.bubble else ""
            row += [both, show(cell.naive_s, "s") if cell.naive_s else ""]
        rows.append(row)
    lines = screen.table(head, rows, right=(1, 2, 3, 4, 5, 6, 7, 8))
    if not stages:
        return lines
    return [
        *lines, "bubble: predicted / measured share of a step that a stage waits",
        "naive: the whole batch at once, one stage after the other",
    ]  # fmt: skip


def _notes(plans: Sequence[PlanResult], screen: Screen) -> list[str]:
    """What was noticed, each once, with the plans it concerns."""
    found: dict[str, list[str]] = {}
    for plan in plans:
        for note in dict.fromkeys((*plan.notes, *(_kind(n) for c in plan.cells for n in c.notes))):
            found.setdefault(note, []).append(plan.plan.label)
    lines = [screen.wrap(f"{note} ({'; '.join(names)}).", indent="  ", first="- ") for note, names in found.items()]
    return ["", *lines] if lines else []


def _kind(note: str) -> str:
    """Notes of many cells that differ in a figure only are one."""
    if note.startswith("times spread"):
        return "some times spread widely: something else was at work, or clocks moved"
    return note.partition(":")[0] if "layers scaled from" in note else note


def _cut(text: str) -> str:
    return text if len(text) <= _REASON else f"{text[:_REASON]} ..."
