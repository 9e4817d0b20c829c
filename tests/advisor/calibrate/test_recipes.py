"""What a benchmark's recipe sets, and which runs are set aside, by rows as the points file has them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.calibrate.accuracy import score, scoreboard
from advisor.calibrate.cases import Case, Predictors, answer
from advisor.calibrate.lookup import Lookup
from advisor.calibrate.points import INFERENCEX, point_of_row
from advisor.calibrate.recipes import as_started, unstated

R1 = {
    "source": INFERENCEX, "hardware": "b200-180g", "gpus": "8", "engine": "trtllm", "engine_version": "1.2.0rc6.post2",
    "model": "deepseek-ai/DeepSeek-R1", "weight_dtype": "nvfp4", "tp": "8", "ep": "8", "input_tokens": "1024",
    "output_tokens": "1024", "mode": "closed_loop", "load": "128",
}  # fmt: skip
ADP = {**R1, "tp": "1", "dp": "8"}


@pytest.mark.parametrize(
    ("row", "budget", "polling"),
    [
        (R1, 2112, 1),  # 1.85 * 1024 + 128 + 127 = 2149.4, in 64s
        (ADP, 1984, 60),  # 16 a rank: 1.85 * 1024 + 16 + 127 = 2037.4
        ({**R1, "source": "elsewhere"}, 8192, 1),
        ({**R1, "model": "meta-llama/Llama-3.1-70B", "ep": "1"}, 8192, 1),
        ({**R1, "engine": "sglang", "engine_version": "0.5.9"}, 8192, 30),
        ({**R1, "engine": "sglang", "engine_version": "0.5.9", "load": "8"}, 8192, 10),
        ({**R1, "engine": "sglang", "engine_version": "0.5.9", "hardware": "h200-141g-sxm", "weight_dtype": "fp8"}, 8192, 1),
    ],
)
def test_recipes(row: dict[str, str], budget: int, polling: int) -> None:
    engine = Lookup(online=False, local=False).engine(point_of_row(row))
    assert (engine.token_budget, engine.polling_steps) == (budget, polling)


def test_a_profile_that_is_fitted_keeps_the_recipe() -> None:
    lookup = Lookup(online=False, local=False)
    problem = lookup.problem(point_of_row(ADP))
    case = Case(
        id="", problem=problem, plan=point_of_row(ADP).plan, calibration=lookup.coefficients(problem.cluster), measured=()
    )  # fmt: skip
    plain = replace(problem.engine, polling_steps=1, token_budget=8192)
    assert answer(case, plain, Predictors()) == answer(case, problem.engine, Predictors())
    unhurried = answer(replace(case, problem=replace(problem, engine=plain)), plain, Predictors())
    waiting = answer(case, problem.engine, Predictors())
    assert unhurried is not None
    assert waiting is not None
    assert waiting.ttft_s.value > unhurried.ttft_s.value + 20 * unhurried.tpot_s.value  # half of 60 steps


def test_runs_of_unstated_conditions_are_scored_but_not_counted() -> None:
    row = {**R1, "engine_version": "1.2.0rc6.post3", "id": "x", "tpot_s": "0.008", "ttft_s": "0.3"}
    assert "speculative" in unstated(point_of_row(row))
    assert not unstated(point_of_row(R1))
    rows, failed = score([row], {})
    assert not failed
    assert [r.figure for r in rows] == ["ttft_s", "tpot_s"]
    assert all("speculative" in r.anomaly for r in rows)
    assert scoreboard([replace(r, without="model x") for r in rows]) == []


def test_a_device_without_a_recipe_is_left_alone() -> None:
    lookup = Lookup(online=False, local=False)
    point = point_of_row({**R1, "input_tokens": "2000"})
    engine = lookup.engine(point)
    assert as_started(engine, point, lookup.cluster(point).device) is engine
    assert point.workload.requests == 0  # prompts of whole thousands: the steady state
    assert point_of_row(R1).workload.requests == 1280


@pytest.mark.parametrize(("speculation", "kept"), [("", True), ("none", True), ("mtp", False), ("mtp or none", False)])
def test_rows_with_speculation_are_set_aside(speculation: str, kept: bool) -> None:
    assert (unstated(point_of_row({**R1, "speculation": speculation})) == "") is kept


def test_gpt_oss_on_blackwell_runs_with_mxfp8_activations_in_that_recipe_of_vllm() -> None:
    row = {**R1, "engine": "vllm", "engine_version": "0.15.1", "model": "openai/gpt-oss-120b", "weight_dtype": "mxfp4", "ep": "1"}
    lookup = Lookup(online=False, local=False)
    assert lookup.engine(point_of_row(row)).experts_as == (("10", "mxfp4", "mxfp4-mxfp8"),)
    assert lookup.engine(point_of_row({**row, "source": "elsewhere"})).experts_as == ()
    assert lookup.engine(point_of_row({**row, "engine": "sglang", "engine_version": "0.5.9"})).experts_as != ()
