"""What a change would bring is what the changed question answers."""

from __future__ import annotations

import pytest

import advisor
from advisor.report.advice import page


def test_smaller_weights_bring_what_the_question_with_them_answers() -> None:
    advice = advisor.recommend("70b", gpu="h100", gpus=8)
    found = next(x for x in advice.what_ifs if x.change == "fp8 weights")
    asked = advisor.recommend("70b", gpu="h100", gpus=8, dtype="fp8").choices[0]
    assert found.times == pytest.approx(asked.output_tokens_per_s.value / advice.choices[0].output_tokens_per_s.value, rel=0.03)
    assert "What would bring more: fp8 weights" in page(advice)


def test_a_bridge_is_asked_about_where_the_gpu_takes_one() -> None:
    advice = advisor.recommend("qwen3-32b", gpu="rtx3090", gpus=4, dtype="int4-awq", users=8)
    bridge = next(x for x in advice.what_ifs if x.change == "NVLink bridges")
    bridged = advisor.recommend("qwen3-32b", gpu="rtx3090", gpus=4, node="bridged-pairs", dtype="int4-awq", users=8).choices[0]
    assert (
        1.03
        < bridge.times
        == pytest.approx(bridged.output_tokens_per_s.value / advice.choices[0].output_tokens_per_s.value, rel=0.05)
    )
    assert not any("NVLink" in x.change for x in advisor.recommend("8b", gpu="h100", gpus=2, users=8).what_ifs)


def test_one_more_gpu_that_a_plan_cannot_use_brings_nothing() -> None:
    advice = advisor.recommend("8b", gpu="h100", gpus=2, users=1)
    more = next(x for x in advice.what_ifs if x.change == "one more GPU")
    assert more.times == pytest.approx(1.0, abs=0.01)
    assert "no more with" in page(advice)
