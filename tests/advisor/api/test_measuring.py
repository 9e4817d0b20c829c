"""Which figures of the bundled transformer may correct a calibration."""

from __future__ import annotations

from dataclasses import replace

from advisor.api.measuring import ratios
from advisor.measure.validation import CellResult, Pair, PlanResult
from advisor.specs.experiment import Cell
from advisor.specs.plan import Plan

COPY, PRODUCTS = 4e12, 700e12


def plan_result(decode_share: float, prefill_share: float) -> PlanResult:
    tpot, ttft = Pair(predicted=0.010, measured=0.012), Pair(predicted=0.20, measured=0.22)
    decode = CellResult(
        cell=Cell(phase="decode", batch=16, context_tokens=1024), seconds=tpot, low_s=0.0, high_s=0.0, achieved_flop_per_s=1e12,
        achieved_bytes_per_s=decode_share * COPY,
    )  # fmt: skip
    prefill = CellResult(
        cell=Cell(phase="prefill", batch=1, context_tokens=4096), seconds=ttft, low_s=0.0, high_s=0.0,
        achieved_flop_per_s=prefill_share * PRODUCTS, achieved_bytes_per_s=1e12,
    )  # fmt: skip
    return PlanResult(
        plan=Plan(tp=2), batch=16, ttft_s=ttft, tpot_s=tpot, tokens_per_s=Pair(predicted=1.0, measured=1.0), kv_tokens=None,
        cells=(decode, prefill),
    )  # fmt: skip


def test_a_step_near_its_bound_counts_and_a_slow_one_is_named() -> None:
    usable, left_out = ratios([plan_result(0.80, 0.60)], (COPY, PRODUCTS))
    assert [phase for phase, _ in usable] == ["decode"]
    assert left_out == ("prefill of tp=2,pp=1,dp=1 reached 60% of what bounds it",)


def test_one_rank_alone_and_a_plan_that_stopped_never_count() -> None:
    whole = plan_result(0.9, 0.9)
    assert len(ratios([whole], (COPY, PRODUCTS))[0]) == 2
    assert ratios([replace(whole, shard=True), replace(whole, failed="rank 1 died")], (COPY, PRODUCTS)) == ((), ())
