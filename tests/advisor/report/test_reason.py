"""The sentence that says why the first plan is first."""

from __future__ import annotations

from collections.abc import Callable

from advisor.report.reason import reason
from advisor.search.rank import rank
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload

Build = Callable[..., Prediction]


def said(*predictions: Prediction, **load: object) -> str:
    workload = Workload(input_tokens=1024, output_tokens=512, **load)  # type: ignore[arg-type]
    return reason(rank(predictions, workload, ()).cause, workload)


def test_a_limit_that_only_the_first_keeps(prediction: Build) -> None:
    fast, slow = prediction("tp=8", rate=4000), prediction("tp=4,dp=2", rate=9000, tpot_s=0.09, within=False)
    assert said(slow, fast, tpot_limit_s=0.05) == "tp=8 keeps the limits and two replicas of tp=4 do not (TPOT 90 ms)."


def test_the_reason_names_the_physics(prediction: Build) -> None:
    tp4 = prediction("tp=4,dp=2", rate=6000, tpot_s=0.026, parts=(("weights", 0.02), ("all-reduce", 0.003), ("host", 0.003)))
    tp8 = prediction("tp=8", rate=3750, tpot_s=0.02, parts=(("weights", 0.01), ("all-reduce", 0.007), ("host", 0.003)))
    found = said(tp8, tp4)
    assert found.startswith("Two replicas of tp=4 carry 1.6x the tokens that tp=8 does")
    assert "though tp=8 is 30% faster per token" in found
    # A step of tp=8 shares 8 GPUs among its 3750 * 0.02 = 75 sequences, one of tp=4 shares 4 among 78: 4.7 and 0.15 ms of a token.
    assert "costs" in found
    assert "of GPU time a token rather than" in found


def test_a_close_call_is_said_first(prediction: Build) -> None:
    deep, flat = prediction("tp=2,pp=2,dp=2", rate=1010, own=0.1), prediction("tp=4,dp=2", rate=1000, own=0.1)
    assert said(deep, flat).startswith("Too close to call; the simpler plan is preferred. Two replicas")
    assert said(prediction("tp=8", rate=1000, own=0.1), prediction("tp=4,dp=2", rate=1010, own=0.1)).startswith(
        "Too close to call. Two replicas"
    )


def test_nothing_fits() -> None:
    assert reason(None, Workload(input_tokens=8, output_tokens=8)) == "No plan fits."
