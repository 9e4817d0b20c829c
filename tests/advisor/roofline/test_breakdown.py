"""Where a step and a prefill go: the parts are those of the time that is predicted."""

from __future__ import annotations

import pytest

import advisor
from advisor.api.question import question
from advisor.serving.predict import Predictor
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction


def parts(p: Prediction, phase: str) -> dict[str, float]:
    step = p.prefill if phase == "prefill" else p.decode
    return {part.name: part.amount for part in step.parts}


@pytest.mark.parametrize("plan", ["tp=1", "tp=4", "pp=8", "tp=2,pp=4", "tp=4,pp=2"])
@pytest.mark.parametrize("users", [1, 64])
def test_the_parts_of_a_decode_step_are_the_step_that_is_predicted(plan: str, users: int) -> None:
    asked = question(model="8b", gpu="h100", gpus=8, users=users)
    predictor = Predictor(asked.problem, asked.calibration)
    step = predictor.explain(Plan.parse(plan), batch=users, context_tokens=1280)
    assert sum(part.amount for part in step.parts) == pytest.approx(step.total_s)
    assert step.total_s == pytest.approx(predictor.step_model(Plan.parse(plan)).decode_s(users, 1280), rel=0.03)


def test_the_parts_of_one_users_token_are_its_tpot() -> None:
    for plan in ("tp=1", "tp=8", "pp=8", "tp=4,pp=2"):
        found = advisor.estimate("8b", plan, gpu="h100", gpus=8, users=1)
        assert found.decode.total_s == pytest.approx(found.tpot_s.value, rel=0.02)


@pytest.mark.parametrize(("tokens", "attention"), [(8_000, 0.16), (64_000, 0.59), (120_000, 0.73)])
def test_the_prefill_is_that_of_the_whole_prompt(tokens: int, attention: float) -> None:
    found = advisor.estimate("8b", "tp=1", gpu="h100", users=1, input_tokens=tokens)
    assert found.prefill.total_s == pytest.approx(found.ttft_s.value, rel=0.2)  # the rest is the front end's
    assert parts(found, "prefill")["attention compute"] / found.prefill.total_s == pytest.approx(attention, abs=0.05)


def test_stages_cost_a_single_user_a_hand_over_each() -> None:
    four, eight = (advisor.estimate("70b", plan, gpu="h100", gpus=8, users=1) for plan in ("tp=4", "tp=4,pp=2"))
    hand_over = parts(eight, "decode")["stage hand-over"]
    assert hand_over == pytest.approx(65e-6)
    assert "stage hand-over" not in parts(four, "decode")
    assert eight.tpot_s.value > four.tpot_s.value + hand_over
