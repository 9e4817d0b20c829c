"""Limits in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from advisor.report.limits import chance, implied_words, limit_words
from advisor.search.rank import rank
from advisor.specs.advice import Advice, Asked
from advisor.specs.prediction import Estimate, Prediction
from advisor.specs.workload import Workload

Build = Callable[..., Prediction]


def asked(predictions: list[Prediction], **load: object) -> Advice:
    workload = Workload(input_tokens=1024, output_tokens=512, **load)  # type: ignore[arg-type]
    question = Asked(
        model="m", params=1, weight_format="bf16", kv_format="bf16", machine="8 x h100", gpus=8, nodes=1, engine="vllm",
        engine_version="1", workload=workload,
    )  # fmt: skip
    return replace(rank(predictions, workload, ()), asked=question)


def test_what_is_carried_within_a_missed_limit_is_said(prediction: Build) -> None:
    p = replace(prediction("tp=4,dp=2", tpot_s=0.037, within=False), load_within_limits=134.4)
    advice = asked([p], mode="closed_loop", users=200, tpot_limit_s=0.03)
    assert limit_words(advice) == (
        "No plan keeps TPOT 30 ms and TTFT 2 s with 200 users; two replicas of tp=4 carry 134 users within the limits, the most of "
        "all.",
    )
    assert implied_words(advice) == ("No TTFT limit was given: plans are held to 2 s (--ttft).",)
    alone = replace(p, load_within_limits=0.0)
    assert "not even with one user" in limit_words(asked([alone], mode="closed_loop", users=200, tpot_limit_s=0.03))[0]


def test_a_limit_inside_the_error_bar_has_its_chance(prediction: Build) -> None:
    # ln(50 / 45) / (ln 1.2 / 1.645) = 0.95 standard deviations: 83%.
    advice = asked([prediction("tp=8", tpot_s=0.045)], mode="closed_loop", users=4, tpot_limit_s=0.05)
    assert limit_words(advice) == ("TPOT 45 ms stays within 50 ms with a chance of 83%.",)
    assert limit_words(asked([prediction("tp=8", tpot_s=0.02)], mode="closed_loop", users=4, tpot_limit_s=0.05)) == ()


def test_the_chance_of_a_figure_on_its_limit_is_even() -> None:
    assert chance(0.05, Estimate(value=0.05, low=0.04, high=0.0625)) == pytest.approx(0.5)
    assert chance(0.0625, Estimate(value=0.05, low=0.04, high=0.0625)) == pytest.approx(0.95)
