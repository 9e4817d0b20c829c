"""The sentence that says why the first plan is first."""

from __future__ import annotations

from collections.abc import Callable

from advisor.report.reason import reason, tie_words
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
    assert found == (
        "Two replicas of tp=4 make 6,000 output tokens/s, tp=8 3,750, though a user of tp=8 gets a token every 20 ms rather than "
        "26 ms; for each output token the GPUs of tp=8 spend 4.9 times as long on all-reduce (31% of their time)."
    )


def test_for_one_user_the_figures_are_those_of_one_token(prediction: Build) -> None:
    tp8 = prediction("tp=8", tpot_s=0.01, rate=100, parts=(("weights", 0.005), ("all-reduce", 0.003)))
    tp4 = prediction("tp=4", tpot_s=0.015, rate=66, parts=(("weights", 0.01), ("all-reduce", 0.002)))
    assert said(tp8, tp4, mode="single_stream", users=1) == (
        "An output token takes 10 ms with tp=8 and 15 ms with tp=4; reading weights takes 5 ms of each token rather than 10 ms."
    )


def test_a_tie_is_one_group_with_what_decided(prediction: Build) -> None:
    plans = [
        prediction(label, rate=rate, independent=0.1)
        for label, rate in (("tp=2,pp=2,dp=2", 1010), ("tp=4,dp=2", 1000), ("tp=8", 990))
    ]
    advice = rank(plans, Workload(input_tokens=1024, output_tokens=512), ())
    assert tie_words(advice) == (
        "3 plans are within the error of each other, this one and tp=2,pp=2,dp=2, tp=8: any is fine; "
        "this one is taken because it is the simplest."
    )
    assert tie_words(rank(plans[:1], Workload(input_tokens=8, output_tokens=8), ())) == ""


def test_nothing_fits() -> None:
    assert reason(None, Workload(input_tokens=8, output_tokens=8)) == "No plan fits."
