"""The page of `recommend`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from advisor.report.advice import page, show_large
from advisor.report.screen import WIDTH, Screen
from advisor.search.rank import rank
from advisor.specs.advice import Advice, Asked, Remedy
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction, Rejected
from advisor.specs.workload import Workload

GIB = 2.0**30


@pytest.fixture
def advice(prediction: Callable[..., Prediction]) -> Advice:
    workload = Workload(input_tokens=1024, output_tokens=512, tpot_limit_s=0.05, mode="capacity")
    plans = [
        prediction("tp=4,dp=2", rate=6000, tpot_s=0.04),
        prediction("tp=4", rate=3000, tpot_s=0.04),
        prediction("tp=8", rate=4000, tpot_s=0.02),
        prediction("tp=2,pp=2,dp=2", rate=5000, tpot_s=0.06, within=False),
    ]
    rejected = [Rejected(plan=Plan(), reason="needs 141 GiB of 80 GiB", short_bytes=61 * GIB)]
    asked = Asked(
        model="llama-3.1-70b", params=70_600_000_000, weight_format="bf16", kv_format="bf16", machine="8 x h100-80g-sxm", gpus=8,
        nodes=1, engine="vllm", engine_version="2026", workload=workload,
    )  # fmt: skip
    said = ("No GPU was found here and no --gpu was given: 8 x h100-80g-sxm are assumed.",)
    return replace(rank(plans, workload, rejected), asked=asked, said=said, launch="vllm serve m --tensor-parallel-size 4")


def test_first_what_was_assumed_then_the_answer_then_the_table_then_the_front(advice: Advice) -> None:
    text = page(advice)
    order = [
        text.index(part)
        for part in ("are assumed", "Asked:", "Recommended: tp=4", "vllm serve", "GPUs    TTFT", "tokens/s per GPU against")
    ]
    assert order == sorted(order)


def test_it_fits_a_hundred_columns_and_has_no_escapes_in_a_pipe(advice: Advice) -> None:
    for everything in (False, True):
        lines = page(advice, everything=everything).splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert "\x1b" not in "".join(lines)
    assert "\x1b[1m" in page(advice, screen=Screen(colour=True))


def test_without_block_characters_it_is_ascii(advice: Advice) -> None:
    page(advice, screen=Screen(blocks=False)).encode("ascii")


def test_the_table_has_one_row_a_replica_shape_unless_all_are_asked(advice: Advice) -> None:
    assert not any(line.strip(" *").startswith("tp=4  ") for line in page(advice).splitlines())
    assert any(line.strip(" *").startswith("tp=4  ") for line in page(advice, everything=True).splitlines())


def test_top_limits_the_rows_and_says_what_was_left_out(advice: Advice) -> None:
    assert "... and 2 more plans (--top 3, --all)" in page(advice, top=1)


def test_a_missed_limit_is_marked(advice: Advice) -> None:
    row = next(line for line in page(advice).splitlines() if "tp=2,pp=2,dp=2" in line)
    assert "60 ms!" in row


def test_rejected_plans_keep_their_reason(advice: Advice) -> None:
    assert "1 kind of replica cannot run, the nearest miss tp=1: needs 141 GiB of 80 GiB (--all lists them)." in page(advice)
    assert "  tp=1  needs 141 GiB of 80 GiB" in page(advice, everything=True)


def test_idle_gpus_are_said(advice: Advice, prediction: Callable[..., Prediction]) -> None:
    asked = replace(advice.asked, gpus=6)  # type: ignore[type-var]
    six = replace(advice, choices=(prediction("tp=4"),), asked=asked)
    assert "(4 of 6 GPUs, 2 idle)" in page(six)
    assert "2 GPUs stay idle: a further replica needs 4." in page(six)


def test_nothing_fits_gives_the_misses_and_what_helps(advice: Advice) -> None:
    none = replace(
        advice, choices=(), front=(), limits_met=False, remedies=(Remedy(change="--dtype fp8", plan=Plan(tp=8)),),
    )  # fmt: skip
    text = page(none)
    assert "No plan fits." in text
    assert "tp=1  needs 141 GiB of 80 GiB: 61 GiB short on a GPU" in text
    assert "--dtype fp8  then tp=8 fits" in text


@pytest.mark.parametrize(
    ("value", "text"), [(812, "812"), (4096, "4,100"), (123_456, "123k"), (1_234_567, "1.23M"), (2.5e9, "2.5G")]
)
def test_counts_fit_a_narrow_column(value: float, text: str) -> None:
    assert show_large(value) == text


def test_rates_keep_their_digits_up_to_a_million() -> None:
    assert [show_large(x, above=1e6) for x in (25_400.0, 999_000.0, 7_456_000.0)] == ["25,400", "999,000", "7.46M"]
