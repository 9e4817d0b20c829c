"""Steps, the steady state, the simulation and the door: laws, worked numbers and what the field knows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog.calibrations import load_calibration
from advisor.catalog.engines import load_engine
from advisor.catalog.machines import load_cluster
from advisor.catalog.models import load_model
from advisor.errors import PlanError
from advisor.roofline.step import StepModel
from advisor.serving.capacity import Capacity
from advisor.serving.predict import Predictor
from advisor.serving.steady import _group, _queue_s, _state, _where
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import Cluster
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

CHAT = Workload(input_tokens=1024, output_tokens=512, mode="closed_loop", users=16)


def problem(model: str = "llama-3.1-70b", *, gpu: str = "h100-80g-sxm", gpus: int = 8, workload: Workload = CHAT) -> Problem:
    return Problem(
        model=load_model(model, online=False).spec,
        cluster=load_cluster(gpu=gpu, gpus=gpus),
        workload=workload,
        engine=load_engine("vllm"),
    )


def coefficients(cluster: Cluster) -> Calibration:
    return load_calibration(cluster.device, local=False)


def ask(asked: Problem, plan: Plan) -> Prediction:
    """The formula; `test_run.py` holds it to the simulation."""
    return Predictor(asked, coefficients(asked.cluster)).screen(plan)


def single(asked: Problem) -> Problem:
    return replace(asked, workload=replace(asked.workload, users=1))


def test_tp_8_decodes_a_single_stream_fastest_on_nvlink() -> None:
    asked = single(problem())
    tpot = {plan.label: ask(asked, plan).tpot_s.value for plan in (Plan(tp=8), Plan(tp=4), Plan(tp=4, pp=2))}
    assert min(tpot, key=lambda label: tpot[label]) == "tp=8,pp=1,dp=1"


def test_pipelines_never_improve_a_single_stream() -> None:
    asked = single(problem())
    assert ask(asked, Plan(tp=4, pp=2)).tpot_s.value >= ask(asked, Plan(tp=4)).tpot_s.value


def test_offline_replicas_of_a_smaller_tp_win() -> None:
    asked = problem("llama-3.1-8b", workload=replace(CHAT, mode="offline", users=0))
    rate = [ask(asked, plan).output_tokens_per_s.value for plan in (Plan(tp=8), Plan(tp=2, dp=4), Plan(dp=8))]
    assert rate[2] > rate[1] > rate[0]


def test_the_all_reduce_share_grows_with_tp_and_can_exceed_half_on_pcie() -> None:
    def share(gpu: str, tp: int, gpus: int = 8) -> float:
        asked = problem("llama-3.1-8b", gpu=gpu, gpus=gpus)
        step = Predictor(asked, coefficients(asked.cluster)).explain(Plan(tp=tp), batch=16, context_tokens=1024)
        return {s.name: s.amount for s in step.parts}.get("all-reduce", 0.0) / step.total_s

    assert share("h100-80g-sxm", 2) < share("h100-80g-sxm", 8) < 0.5
    asked = problem("llama-3.1-8b", gpu="rtx-4090")
    step = ask(asked, Plan(tp=8)).prefill
    assert {s.name: s.amount for s in step.parts}["all-reduce"] > step.total_s / 2


def test_on_a_pcie_box_six_stages_are_the_slowest_for_one_user() -> None:
    asked = single(problem("llama-3.1-8b", gpu="rtx-3090", gpus=6))
    two, six = ask(asked, Plan(tp=2)), ask(asked, Plan(pp=6))
    assert six.tpot_s.value > two.tpot_s.value
    assert six.tpot_s.value >= ask(asked, Plan(pp=2)).tpot_s.value


def test_parts_of_a_step_add_up() -> None:
    asked = problem()
    found = ask(asked, Plan(tp=4))
    for step in (found.prefill, found.decode):
        assert sum(part.amount for part in step.parts) == pytest.approx(step.total_s)
        assert all(part.amount > 0 for part in step.parts)


@settings(max_examples=25, deadline=None)
@given(users=st.integers(1, 200), more=st.floats(1.05, 3.0))
def test_more_bandwidth_never_takes_longer(users: int, more: float) -> None:
    asked = problem("llama-3.1-8b", gpus=1, workload=replace(CHAT, users=users))
    device = asked.cluster.device
    better = replace(device, memory_bytes_per_s=device.memory_bytes_per_s * more)
    faster = replace(asked, cluster=replace(asked.cluster, node=replace(asked.cluster.node, devices=(better,))))
    plain, quick = ask(asked, Plan()), Predictor(faster, coefficients(asked.cluster)).screen(Plan())
    assert quick.tpot_s.value <= plain.tpot_s.value * 1.0001
    assert quick.output_tokens_per_s.value >= plain.output_tokens_per_s.value * 0.9999


@settings(max_examples=25, deadline=None)
@given(users=st.integers(1, 400))
def test_little_s_law_holds_in_the_closed_loop(users: int) -> None:
    asked = problem("llama-3.1-8b", gpus=1, workload=replace(CHAT, users=users))
    found = ask(asked, Plan())
    assert found.requests_per_s.value * found.latency_s.value == pytest.approx(users, rel=0.02)
    assert found.latency_s.value == pytest.approx(found.ttft_s.value + 511 * found.tpot_s.value, rel=1e-9)


def test_more_users_are_served_slower_each_and_faster_together() -> None:
    asked = problem("llama-3.1-8b", gpus=1)
    found = [ask(replace(asked, workload=replace(CHAT, users=users)), Plan()) for users in (1, 4, 16, 64, 256)]
    assert [f.tpot_s.value for f in found] == sorted(f.tpot_s.value for f in found)
    assert [f.output_tokens_per_s.value for f in found] == sorted(f.output_tokens_per_s.value for f in found)


def test_the_simulation_settles_where_the_formula_says() -> None:
    asked = problem("llama-3.1-8b", gpus=1, workload=replace(CHAT, users=32))
    formula = ask(asked, Plan())
    benchmark = ask(replace(asked, workload=replace(CHAT, users=32, start="burst", requests=320, length_spread=0.8)), Plan())
    assert benchmark.tpot_s.value == pytest.approx(formula.tpot_s.value, rel=0.1)


def test_a_batch_that_does_not_fit_runs_in_waves() -> None:
    # Llama-2-7B caches 0.5 MB a token: an A100 of 40 GB holds about 40k tokens, so 64 sequences of 2,048 take several waves.
    asked = problem("llama-2-7b", gpu="a100-40g-sxm", gpus=1)
    engine = replace(asked.engine, scheduler=replace(asked.engine.scheduler, family="trtllm"))
    asked = replace(asked, engine=engine)
    latency = [
        ask(replace(asked, workload=Workload(input_tokens=1024, output_tokens=1024, mode="static_batch", users=n)), Plan())
        for n in (16, 64)
    ]
    most = latency[0].max_sequences
    assert 8 <= most < 32
    # All 64 requests wait for their wave: the mean latency of four waves is about 2.5 times one's.
    assert latency[1].latency_s.value > 1.8 * latency[0].latency_s.value


def test_limits_bound_the_load_that_is_recommended() -> None:
    limits = Workload(input_tokens=1024, output_tokens=512, mode="capacity", ttft_limit_s=1.0, tpot_limit_s=0.03)
    found = ask(problem(workload=limits), Plan(tp=8))
    assert found.within_limits
    assert 0.025 < found.tpot_s.value <= 0.03
    assert found.plan.settings is not None
    assert found.plan.settings.max_sequences >= found.sequences
    hopeless = ask(problem(workload=replace(limits, tpot_limit_s=0.001)), Plan(tp=8))
    assert not hopeless.within_limits


def test_an_overload_is_said() -> None:
    rate = Workload(input_tokens=1024, output_tokens=512, mode="open_loop", rate_per_s=1000)
    found = ask(problem(workload=rate), Plan(tp=8))
    assert not found.within_limits
    assert found.overloaded
    calm = ask(problem(workload=replace(rate, rate_per_s=1)), Plan(tp=8))
    assert calm.requests_per_s.value == 1
    assert not calm.overloaded


def test_a_cached_prefix_shortens_the_wait() -> None:
    cold = ask(problem(workload=replace(CHAT, input_tokens=8192)), Plan(tp=8))
    warm = ask(problem(workload=replace(CHAT, input_tokens=8192, prefix_cached_tokens=7000)), Plan(tp=8))
    assert warm.ttft_s.value < 0.6 * cold.ttft_s.value


def test_what_does_not_fit_is_one_sentence() -> None:
    with pytest.raises(PlanError, match=r"does not fit: .* GiB short on h100-80g-sxm"):
        ask(problem(), Plan())
    with pytest.raises(PlanError, match="more stages than"):
        ask(problem(), Plan(pp=81))


def test_intervals_hold_the_value_and_come_from_the_engine() -> None:
    found = ask(problem(), Plan(tp=8))
    for name in ("ttft_s", "tpot_s", "latency_s", "output_tokens_per_s"):
        estimate = getattr(found, name)
        assert estimate.low < estimate.value < estimate.high
        assert estimate.independent > 0


def test_replicas_share_the_load_and_nothing_else() -> None:
    one = ask(problem("llama-3.1-8b", gpus=1, workload=replace(CHAT, users=8)), Plan())
    eight = ask(problem("llama-3.1-8b", workload=replace(CHAT, users=64)), Plan(dp=8))
    assert eight.tpot_s.value == pytest.approx(one.tpot_s.value, rel=1e-9)
    assert eight.output_tokens_per_s.value == pytest.approx(8 * one.output_tokens_per_s.value, rel=1e-9)


class _Fixed:
    """A replica whose steps take 10 ms, and 20 ms more for each prefill they carry; no host time."""

    tokens_per_step = 1.0

    def __init__(self) -> None:
        engine = load_engine("vllm")
        host = replace(engine.host, request_s=0.0, wait_steps=0.0, token_s=0.0)
        self.engine, self.plan = replace(engine, host=host), Plan()

    def decode_s(self, sequences: float, context: float) -> float:
        return 0.010

    def mixed_s(self, decodes: float, context: float, chunks: list[tuple[float, float]]) -> float:
        return 0.010 + 0.020 * len(chunks)


def test_the_worked_example_of_the_steady_state() -> None:
    # docs/physics.md (E4): d = 101, t = 10 ms, a = 20 ms, B = 8 of C = 10.
    asked = Workload(input_tokens=100, output_tokens=101, mode="closed_loop", users=10)
    state = _state(_Fixed(), asked, Capacity(max_sequences=64, kv_tokens=1e6, token_budget=8192), 8)  # type: ignore[arg-type]
    others, alone = 1 - 1 / state.users, 0.030 / (state.ttft_s + state.decode_s)  # its own prompt of 30 ms keeps others out
    assert state.decode_s == pytest.approx(100 * 0.010 + others * 8 * 0.020 / (1 - alone), rel=0.02)
    assert state.rate_per_s == pytest.approx(8 / state.decode_s)
    assert pytest.approx(1.148, abs=1e-3) == 100 * 0.010 + 0.9 * 8 * 0.020 / (1 - 0.03)


def test_the_worked_example_of_the_queue() -> None:
    # docs/physics.md (E7): u = 0.8, one prompt a step of 100 ms: 0.64 / 0.4 x 100 ms = 160 ms; with 10 users z = 0.447: a third.
    assert _queue_s(0.8, 1.0, 0.1, math.inf) == pytest.approx(0.160)
    assert _queue_s(0.8, 1.0, 0.1, 10) == pytest.approx(0.0817, abs=1e-4)
    assert _queue_s(0.8, 8.0, 0.1, math.inf) == pytest.approx(0.0121, abs=1e-4)  # eight prompts a step hardly wait
    assert _queue_s(0.4, 1.0, 0.1, math.inf) == pytest.approx(0.16 / 1.2 * 0.1)


def test_the_worked_example_of_prompts_that_begin_together() -> None:
    # docs/physics.md (E6): 0.5 prompts come during a step with prompts and next to none during one without.
    group = _group(0.5, 0.0)
    assert group.mean == pytest.approx(0.5 + math.exp(-0.5))
    assert group.met == pytest.approx((0.25 + 0.5 + math.exp(-0.5)) / (0.5 + math.exp(-0.5)))


class _TwoStages(StepModel):
    """Two stages of 10 ms, whatever they carry."""

    def __init__(self) -> None:
        self.plan = Plan(pp=2)
        self.stage_kinds = [(0, 1), (1, 1)]
        self.engine = load_engine("trtllm")
        self._light = (-1.0, -1.0, 0.0, 0.0)

    def _stage_mixed_s(self, stage: int, decodes: float, context: float, chunks: object, heavy: int) -> float:
        return 0.010

    def with_host_s(self, gpu_s: float, sequences: float, chunks: int, cached: float) -> float:
        return gpu_s


def test_the_worked_example_of_the_pipeline() -> None:
    # docs/physics.md (E2): one sequence visits both stages, sixteen run as two micro-batches; both take 20 ms and a hand-over.
    assert _TwoStages().decode_s(1, 1000) == pytest.approx(0.020065)  # with the hand-over between them
    assert _TwoStages().decode_s(16, 1000) == pytest.approx(0.020065)


@pytest.mark.parametrize("target", [0.001, 0.03, 0.9, 7.3, 100.0, 4000.0])
@pytest.mark.parametrize("shape", ["straight", "steep", "flat", "jump"])
def test_the_largest_batch_that_is_not_over(target: float, shape: str) -> None:
    over = {
        "straight": lambda b: math.log(b / target),
        "steep": lambda b: math.log(b / target) ** 3 if b > target else 20 * math.log(b / target),
        "flat": lambda b: -1e-9 if b <= target else 1e-3 * math.log(b / target),
        "jump": lambda b: 3.0 if b > target else -0.5 + 0.01 * math.log(b / target),
    }[shape]
    asked: list[float] = []

    def state(running: float) -> float:
        asked.append(running)
        return running

    found = _where(state, 1000.0, over)  # type: ignore[arg-type, type-var]
    if target < 0.02:
        assert found == 0.02  # even the smallest is over
    elif target > 1000:
        assert found == 1000.0
        assert len(asked) == 1
    else:
        assert target / 1.51 <= found <= target if shape == "flat" else target * 0.995 <= found <= target
    assert len(asked) < 40
