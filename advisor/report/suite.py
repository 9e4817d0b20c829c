"""The standard table of the runner: models down, steps across, with the rates of the same run that bound them. Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from advisor.calibrate.local import copy_bytes_per_s, matmul_flop_per_s
from advisor.measure.validation import CellResult, Validation, share_of_bound
from advisor.specs import wire
from advisor.specs.benchmark import Benchmarks
from advisor.units import show, show_count


def suite_page(found: Sequence[tuple[str, Validation]], rates: Benchmarks) -> str:
    """The table as Markdown, fit to be kept as published points."""
    copy, matmul = bounds(rates)
    lines = [
        f"Measured on {rates.device_name}, {rates.date}, driver {rates.driver or 'unknown'}, {rates.software}"
        + (f", clocks {rates.clocks}." if rates.clocks else "."),
        f"In the same run: copy {show(copy, 'B/s')} (read and write), matrix products up to {show(matmul, 'FLOP/s')}.",
        "Decode is judged by the bytes it must read at that copy rate, prefill by its FLOP at that matrix rate: `of bound` is the "
        "share reached.",
        "",
        "| model | plan | step | batch | tokens | predicted | measured | error | achieved | of bound |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, validation in found:
        for plan in validation.plans:
            lines += [f"| {name} | {plan.plan.label} | {_row(cell, copy, matmul)} |" for cell in plan.cells]
            if plan.failed:
                lines.append(f"| {name} | {plan.plan.label} | failed: {plan.failed[:120].replace('|', '/')} |||||||||")
    if any(plan.shard for _, v in found for plan in v.plans):
        lines += ["", "A plan of more ranks than GPUs here is one rank of it: its collectives are the model's."]
    return "\n".join(lines)


def _row(cell: CellResult, copy: float, matmul: float) -> str:
    seconds = cell.seconds
    assert seconds.measured is not None
    assert seconds.error is not None
    decode = cell.cell.phase == "decode"
    achieved = show(cell.achieved_bytes_per_s, "B/s") if decode else show(cell.achieved_flop_per_s, "FLOP/s")
    of_bound = share_of_bound(cell, copy, matmul)
    return (
        f"{cell.cell.kind} | {show_count(cell.cell.batch)} | {show_count(cell.cell.context_tokens)} | "
        f"{show(seconds.predicted, 's')} | {show(seconds.measured, 's')} | {seconds.error:+.0%} | {achieved} | {of_bound:.0%}"
    )


def suite_json(found: Sequence[tuple[str, Validation]], rates: Benchmarks) -> str:
    """The same with every figure, and the micro-benchmarks."""
    return json.dumps(
        {"benchmarks": wire.to_data(rates), "validations": {name: wire.to_data(validation) for name, validation in found}}, indent=2
    )


def bounds(rates: Benchmarks) -> tuple[float, float]:
    """Copy bytes/s and the best FLOP/s in 16 bits (32 on a CPU)."""
    return copy_bytes_per_s(rates), matmul_flop_per_s(rates, "bf16") or matmul_flop_per_s(rates, "fp32")
