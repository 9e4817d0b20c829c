"""One model of serving: the formula of a steady load against its simulation, and what a burst adds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.catalog.calibrations import load_calibration
from advisor.catalog.engines import load_engine
from advisor.catalog.machines import load_cluster
from advisor.catalog.models import load_model
from advisor.serving.predict import Predictor
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

# (model, plan, GPUs, engine, tokens in, tokens out, users or share of the largest rate)
CLOSED = (
    ("llama-3.1-8b", Plan(), "vllm", 1024, 256, 1),
    ("llama-3.1-8b", Plan(), "vllm", 128, 128, 64),
    ("llama-3.1-8b", Plan(), "sglang", 1024, 1024, 64),
    ("llama-3.1-8b", Plan(), "trtllm", 512, 2048, 128),
    ("llama-3.1-8b", Plan(dp=4), "vllm", 1024, 512, 256),
    ("llama-3.1-70b", Plan(tp=8), "vllm", 1024, 1024, 256),
    ("llama-3.1-70b", Plan(tp=8), "sglang", 4096, 512, 16),
    ("llama-3.1-70b", Plan(tp=4), "trtllm", 1024, 1024, 64),
    ("llama-3.1-70b", Plan(tp=2, pp=4), "vllm", 1024, 1024, 64),
    ("llama-3.1-70b", Plan(tp=2, pp=4), "sglang", 128, 128, 16),
    ("qwen3-30b-a3b", Plan(), "sglang", 1024, 256, 16),
    ("qwen3-30b-a3b", Plan(tp=2, ep=2), "vllm", 1024, 1024, 512),
    ("qwen3-30b-a3b", Plan(tp=2, ep=2), "trtllm", 8192, 1024, 16),
    # More users than the cache holds: the rest wait.
    ("llama-3.1-8b", Plan(), "vllm", 4096, 512, 512),
    ("llama-3.1-70b", Plan(tp=4), "sglang", 4096, 512, 512),
    ("qwen3-30b-a3b", Plan(tp=2, ep=2), "trtllm", 4096, 512, 512),
)
OPEN = (
    ("llama-3.1-8b", Plan(), "vllm", 1024, 256, 8.0),
    ("llama-3.1-8b", Plan(dp=2), "sglang", 1024, 256, 10.0),
    ("llama-3.1-70b", Plan(tp=8), "vllm", 1024, 1024, 2.0),
    ("llama-3.1-70b", Plan(tp=4), "trtllm", 1024, 1024, 1.5),
    ("llama-3.1-70b", Plan(tp=2, pp=4), "vllm", 4096, 512, 0.4),
    ("qwen3-30b-a3b", Plan(), "vllm", 128, 128, 20.0),
)


def both(model: str, plan: Plan, engine: str, load: Workload) -> tuple[Prediction, Prediction]:
    """The formula's answer and the simulation's."""
    cluster = load_cluster(gpu="h100-80g-sxm", gpus=8)
    asked = Problem(model=load_model(model, online=False).spec, cluster=cluster, workload=load, engine=load_engine(engine))
    calibration = load_calibration(cluster.device, local=False)
    predictor = Predictor(asked, calibration)
    return predictor.screen(plan), predictor.predict(plan)


@pytest.mark.parametrize("case", CLOSED, ids=str)
def test_the_formula_of_a_closed_loop_is_within_five_percent_of_its_simulation(
    case: tuple[str, Plan, str, int, int, int],
) -> None:
    model, plan, engine, inputs, outputs, users = case
    load = Workload(input_tokens=inputs, output_tokens=outputs, mode="closed_loop", users=users)
    formula, simulated = both(model, plan, engine, load)
    assert formula.tpot_s.value == pytest.approx(simulated.tpot_s.value, rel=0.06)
    assert formula.output_tokens_per_s.value == pytest.approx(simulated.output_tokens_per_s.value, rel=0.05)
    assert formula.latency_s.value == pytest.approx(simulated.latency_s.value, rel=0.05)
    assert formula.ttft_s.value == pytest.approx(simulated.ttft_s.value, rel=0.10)


@pytest.mark.parametrize("case", OPEN, ids=str)
def test_the_formula_of_open_arrivals_is_within_five_percent_of_their_simulation(
    case: tuple[str, Plan, str, int, int, float],
) -> None:
    model, plan, engine, inputs, outputs, rate_per_s = case
    load = Workload(input_tokens=inputs, output_tokens=outputs, mode="open_loop", rate_per_s=rate_per_s)
    formula, simulated = both(model, plan, engine, load)
    assert not formula.notes
    assert formula.tpot_s.value == pytest.approx(simulated.tpot_s.value, rel=0.05)
    assert formula.latency_s.value == pytest.approx(simulated.latency_s.value, rel=0.05)
    assert formula.ttft_s.value == pytest.approx(simulated.ttft_s.value, rel=0.10)


def test_with_equal_answers_sglang_s_users_stay_in_step_and_with_different_ones_they_do_not() -> None:
    # All prompts of a round are prefilled before any of them decodes, so that equal answers end together: TTFT is that of a
    # round of prompts, again and again. The means of answers with different lengths are those of drifting users.
    burst = Workload(input_tokens=1024, output_tokens=512, mode="closed_loop", users=64, start="burst", requests=640)
    _, equal = both("llama-3.1-8b", Plan(), "sglang", burst)
    _, spread = both("llama-3.1-8b", Plan(), "sglang", replace(burst, length_spread=0.6))
    assert equal.ttft_s.value > 1.8 * spread.ttft_s.value
    assert equal.tpot_s.value < spread.tpot_s.value


def test_a_burst_has_its_first_round_in_the_mean_and_a_steady_load_has_not() -> None:
    steady = Workload(input_tokens=4096, output_tokens=512, mode="closed_loop", users=32)
    burst = replace(steady, start="burst", requests=320, length_spread=0.8)
    _, apart = both("llama-3.1-8b", Plan(), "vllm", steady)
    _, together = both("llama-3.1-8b", Plan(), "vllm", burst)
    assert together.ttft_s.value > 1.3 * apart.ttft_s.value


def test_the_same_question_has_the_same_answer() -> None:
    load = Workload(input_tokens=1024, output_tokens=256, mode="open_loop", rate_per_s=5.0)
    assert both("llama-3.1-8b", Plan(), "vllm", load) == both("llama-3.1-8b", Plan(), "vllm", load)


def test_users_that_do_not_divide_by_the_replicas_are_shared_as_evenly_as_they_can() -> None:
    load = Workload(input_tokens=1024, output_tokens=256, mode="closed_loop", users=10)
    _, found = both("llama-3.1-8b", Plan(dp=4), "vllm", load)
    _, two = both("llama-3.1-8b", Plan(), "vllm", replace(load, users=2))
    _, three = both("llama-3.1-8b", Plan(), "vllm", replace(load, users=3))
    assert found.output_tokens_per_s.value == pytest.approx(2 * (two.output_tokens_per_s.value + three.output_tokens_per_s.value))
    assert two.tpot_s.value < found.tpot_s.value < three.tpot_s.value
