"""The tandem by hand and its laws, and the run of all workers beside the formula."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.api.question import Question, question
from advisor.errors import PlanError
from advisor.serving.pools import carried, closed_loop, decode_s, prefill_s, tandem
from advisor.serving.pools_run import run_pools
from advisor.serving.predict import Predictor
from advisor.serving.predict_pools import PoolsPredictor
from advisor.specs.deployment import Deployment

TEXT = "prefill: tp=4,dp=2; decode: tp=8"


@pytest.fixture(scope="module")
def asked() -> Question:
    return question(
        model="llama-3.1-70b", gpu="h100-80g-sxm", gpus=8, nodes=2, users=64, input_tokens=2000, output_tokens=500, online=False
    )


def predictor(asked: Question, **load: object) -> PoolsPredictor:
    problem = replace(asked.problem, workload=replace(asked.problem.workload, **load))  # type: ignore[arg-type]
    return PoolsPredictor(Predictor(problem, asked.calibration))


def test_the_tandem_by_hand(asked: Question) -> None:
    """docs/physics.md (D7): at half of what prefill carries the wait is half a prompt; TPOT is (X + D) / (d - 1)."""
    pools, _ = predictor(asked).pools(Deployment.parse(TEXT))
    workload = asked.problem.workload
    rate = carried(pools, workload)[0] / 2
    found = tandem(pools, workload, rate)
    single = prefill_s(pools, workload, 1)
    assert found.prefill_busy == pytest.approx(0.5)
    assert found.ttft_s == pytest.approx(pools.prefill.engine.host.request_s + single + single / 2)
    whole = decode_s(pools, workload, found.running)
    assert found.tpot_s == pytest.approx((pools.transfer_s + whole) / 499)
    assert found.running == pytest.approx(rate * whole, rel=0.01)  # Little's law of the one decode worker


def test_users_in_a_closed_loop_are_all_somewhere(asked: Question) -> None:
    pools, _ = predictor(asked).pools(Deployment.parse(TEXT))
    for users in (1, 16, 256, 4096):
        found = closed_loop(pools, asked.problem.workload, users)
        assert found.requests_per_s * found.latency_s == pytest.approx(users, rel=0.01)
    crowd = closed_loop(pools, asked.problem.workload, 4096)
    assert crowd.waiting > 2000
    assert crowd.requests_per_s <= min(carried(pools, asked.problem.workload))


def test_the_run_of_all_workers_agrees_with_the_formula(asked: Question) -> None:
    """With equal requests and a long run the mean is the formula's, but for the burst at the start."""
    pools, _ = predictor(asked).pools(Deployment.parse(TEXT))
    workload = replace(asked.problem.workload, start="burst", requests=600)
    found = run_pools(pools, workload, users=32, requests=600)
    formula = closed_loop(pools, asked.problem.workload, 32)
    assert found.tpot_s == pytest.approx(formula.tpot_s, rel=0.06)
    assert found.requests_per_s == pytest.approx(formula.requests_per_s, rel=0.08)
    assert found.ttft_s > formula.ttft_s  # 32 prompts at once


def test_more_decode_workers_shorten_tpot_and_carry_more(asked: Question) -> None:
    few = predictor(asked).predict(Deployment.parse("prefill: tp=4; decode: tp=4"))
    many = predictor(asked).predict(Deployment.parse("prefill: tp=4; decode: tp=4,dp=3"))
    assert many.tpot_s.value < few.tpot_s.value
    assert many.decode_carries_per_s == pytest.approx(3 * few.decode_carries_per_s)
    assert many.prefill_carries_per_s == few.prefill_carries_per_s


def test_limits_bound_what_fits(asked: Question) -> None:
    loose = predictor(asked, mode="capacity", users=0, tpot_limit_s=0.05).predict(Deployment.parse(TEXT))
    tight = predictor(asked, mode="capacity", users=0, tpot_limit_s=0.02).predict(Deployment.parse(TEXT))
    assert tight.tpot_s.value <= 0.02
    assert tight.requests_per_s.value < loose.requests_per_s.value
    none = predictor(asked, mode="capacity", users=0, tpot_limit_s=0.001).predict(Deployment.parse(TEXT))
    assert not none.within_limits


def test_an_overload_says_so(asked: Question) -> None:
    found = predictor(asked, mode="open_loop", users=0, rate_per_s=1000.0).predict(Deployment.parse(TEXT))
    assert "overloaded" in found.notes[0]
    assert not found.within_limits


def test_the_network_counts(asked: Question) -> None:
    network = asked.problem.cluster.network
    assert network is not None
    slow = replace(asked.problem.cluster, network=replace(network, bytes_per_s=network.bytes_per_s / 100))
    near = predictor(asked).predict(Deployment.parse(TEXT))
    far = PoolsPredictor(Predictor(replace(asked.problem, cluster=slow), asked.calibration)).predict(Deployment.parse(TEXT))
    assert far.transfer_s > 20 * near.transfer_s
    assert far.tpot_s.value > near.tpot_s.value


def test_too_many_workers_are_refused(asked: Question) -> None:
    with pytest.raises(PlanError, match="24 GPUs and the machine has 16"):
        predictor(asked).predict(Deployment.parse("prefill: tp=8,dp=2; decode: tp=8"))
