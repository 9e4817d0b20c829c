"""Order, front and certainty, from predictions put together by hand."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.search.certainty import better_chance
from advisor.search.front import front, per_gpu
from advisor.search.order import simplicity
from advisor.search.rank import rank
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction, Rejected
from advisor.specs.workload import Goal, Workload

Build = Callable[..., Prediction]


def load(goal: Goal = "throughput", **more: object) -> Workload:
    return Workload(input_tokens=1024, output_tokens=512, goal=goal, **more)  # type: ignore[arg-type]


def test_the_goal_decides(prediction: Build) -> None:
    tp8 = prediction("tp=8", tpot_s=0.012, rate=4000)
    tp4 = prediction("tp=4,dp=2", tpot_s=0.018, rate=6000)
    small = prediction("tp=2", tpot_s=0.035, rate=1800)
    order = {goal: rank([small, tp4, tp8], load(goal), ()).choices[0].plan.label for goal in ("latency", "throughput", "cost")}
    assert order == {"latency": "tp=8,pp=1,dp=1", "throughput": "tp=4,pp=1,dp=2", "cost": "tp=2,pp=1,dp=1"}


def test_a_plan_within_the_limits_comes_before_a_better_one_beyond(prediction: Build) -> None:
    fast = prediction("tp=8", rate=4000)
    slow = prediction("tp=4,dp=2", rate=9000, tpot_s=0.09, within=False)
    advice = rank([slow, fast], load(tpot_limit_s=0.05), ())
    assert advice.choices[0] is fast
    assert advice.limits_met
    assert advice.cause is not None
    assert advice.cause.kind == "limits"


def test_when_none_meets_the_limits_the_closest_is_first_and_it_is_said(prediction: Build) -> None:
    near = prediction("tp=8", tpot_s=0.012, rate=100, within=False)
    far = prediction("tp=4,dp=2", tpot_s=0.05, rate=9000, within=False)
    advice = rank([far, near], load(tpot_limit_s=0.01), ())
    assert advice.choices[0] is near
    assert not advice.limits_met
    assert advice.notes == ("No plan meets the TPOT limit of 10 ms: the closest has 12 ms.",)


def test_where_all_plans_carry_the_rate_the_shorter_answer_wins_and_the_certainty_is_about_it(prediction: Build) -> None:
    fast = prediction("tp=8", rate=2048, tpot_s=0.015)
    slow = prediction("tp=4,dp=2", rate=2048, tpot_s=0.021)
    given = load(mode="open_loop", rate_per_s=4.0)
    advice = rank([slow, fast], given, ())
    assert advice.choices[0] is fast
    assert advice.first_share is not None
    assert advice.first_share > 0.9
    assert not advice.close_call
    beyond = rank([prediction("tp=8", rate=2048, within=False), prediction("tp=4,dp=2", rate=3000, within=False)], given, ())
    assert beyond.choices[0].plan.label == "tp=4,pp=1,dp=2"  # none carries it: the one that carries most


def test_what_cannot_be_told_apart_is_said_and_the_simpler_plan_comes_first(prediction: Build) -> None:
    deep = prediction("tp=2,pp=2,dp=2", rate=1010, own=0.1)
    flat = prediction("tp=4,dp=2", rate=1000, own=0.1)
    advice = rank([deep, flat], load(), ())
    assert advice.close_call
    assert advice.choices[0] is flat
    assert advice.cause is not None
    assert advice.cause.simpler
    equal = rank([prediction("tp=8", rate=1000, own=0.1), prediction("tp=4,dp=2", rate=1010, own=0.1)], load(), ())
    assert equal.close_call
    assert equal.cause is not None
    assert not equal.cause.simpler
    assert advice.first_share is not None
    assert 0.4 < advice.first_share < 0.6


def test_simplicity_never_costs_a_tenth_however_wide_the_error(prediction: Build) -> None:
    spread = prediction("tp=2,adp=4,ep=8", rate=1100, own=0.5)
    plain = prediction("tp=8", rate=1000, own=0.5)
    advice = rank([plain, spread], load(), ())
    assert advice.close_call
    assert advice.choices[0] is spread


def test_a_clear_lead_is_not_given_away_to_simplicity(prediction: Build) -> None:
    advice = rank([prediction("tp=2,pp=2,dp=2", rate=1300), prediction("tp=4,dp=2", rate=1000)], load(), ())
    assert advice.choices[0].plan == Plan(tp=2, pp=2, dp=2)
    assert not advice.close_call
    assert advice.first_share == 1.0


def test_certainty_is_the_same_every_time(prediction: Build) -> None:
    plans = [prediction("tp=8", rate=1000, own=0.05), prediction("tp=4,dp=2", rate=1030, own=0.05)]
    shares = {rank(plans, load(), ()).first_share for _ in range(3)}
    assert len(shares) == 1


def test_a_limit_inside_the_error_bar_is_said(prediction: Build) -> None:
    advice = rank([prediction("tp=8", tpot_s=0.045)], load(mode="closed_loop", users=4, tpot_limit_s=0.05), ())
    assert any("its 90% interval reaches" in note for note in advice.notes)


def test_nothing_fits(prediction: Build) -> None:
    miss = Rejected(plan=Plan(), reason="needs 92 GiB of 80 GiB", short_bytes=12 * 2.0**30)
    advice = rank([], load(), [miss])
    assert advice.choices == ()
    assert advice.rejected == (miss,)


LABELS = st.sampled_from(["tp=1", "tp=2", "tp=4,dp=2", "tp=8", "pp=2", "tp=2,pp=2"])
FIGURES = st.lists(st.tuples(LABELS, st.floats(0.001, 1.0), st.floats(1.0, 1e5)), min_size=1, max_size=12)


@given(FIGURES, st.randoms(use_true_random=False))
def test_the_front_has_no_dominated_plan_in_any_order(
    prediction: Build, figures: list[tuple[str, float, float]], shuffle: random.Random
) -> None:
    plans = [prediction(label, tpot_s=tpot, rate=rate) for label, tpot, rate in figures]
    found = front(plans)
    for p in found:
        for other in plans:
            no_worse = other.latency_s.value <= p.latency_s.value and per_gpu(other) >= per_gpu(p)
            better = other.latency_s.value < p.latency_s.value or per_gpu(other) > per_gpu(p)
            assert not (no_worse and better)
    shuffle.shuffle(plans)
    assert [(p.latency_s, per_gpu(p)) for p in front(plans)] == [(p.latency_s, per_gpu(p)) for p in found]


@given(st.permutations(["tp=8", "tp=4,dp=2", "tp=2,dp=4", "tp=2,pp=2,dp=2", "pp=8"]))
def test_the_order_does_not_depend_on_the_order_of_input(prediction: Build, labels: list[str]) -> None:
    rates = {"tp=8": 1000, "tp=4,dp=2": 1100, "tp=2,dp=4": 1110, "tp=2,pp=2,dp=2": 1111, "pp=8": 300}
    advice = rank([prediction(label, rate=rates[label]) for label in labels], load(), ())
    again = rank([prediction(label, rate=rates[label]) for label in sorted(labels)], load(), ())
    assert advice == again


def test_the_chance_of_being_better_is_a_normal_tail(prediction: Build) -> None:
    # ln(1.1) / hypot(0.05, 0.05) = 1.348 standard deviations: 91.1%.
    a, b = prediction("tp=8", rate=1100, own=0.05), prediction("tp=4,dp=2", rate=1000, own=0.05)
    assert better_chance(a, b, load()) == pytest.approx(0.911, abs=0.001)


def test_fewer_coupled_axes_are_simpler() -> None:
    plans = [Plan(tp=2, pp=2), Plan(tp=4), Plan(), Plan(dp=4)]
    assert sorted(plans, key=simplicity)[:2] == [Plan(), Plan(dp=4)]
    assert max(plans, key=simplicity) == Plan(tp=2, pp=2)
