"""Order, front and certainty, from predictions put together by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

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


def test_where_all_plans_carry_the_rate_the_shorter_answer_wins_and_the_certainty_is_about_it(prediction: Build) -> None:
    fast = prediction("tp=8", rate=2048, tpot_s=0.015)
    slow = prediction("tp=4,dp=2", rate=2048, tpot_s=0.021)
    given = load(mode="open_loop", rate_per_s=4.0)
    advice = rank([slow, fast], given, ())
    assert advice.choices[0] is fast
    assert advice.first_share is not None
    assert advice.first_share > 0.9
    assert not advice.ties
    beyond = rank([prediction("tp=8", rate=2048, within=False), prediction("tp=4,dp=2", rate=3000, within=False)], given, ())
    assert beyond.choices[0].plan.label == "tp=4,pp=1,dp=2"  # none carries it: the one that carries most


def test_a_plan_that_lets_requests_wait_never_beats_one_that_serves_them(prediction: Build) -> None:
    waits = prediction("tp=2,dp=4", ttft_s=15.0, rate=1100)
    serves = prediction("tp=4,dp=2", ttft_s=0.6, rate=1000)
    advice = rank([waits, serves], load(mode="closed_loop", users=64), ())
    assert advice.choices[0].plan == serves.plan
    assert advice.implied_ttft_s == 2.0
    assert [p.within_limits for p in advice.choices] == [True, False]
    assert rank([waits, serves], load(mode="closed_loop", users=64, ttft_limit_s=20.0), ()).choices[0] is waits  # it was allowed
    assert rank([waits, serves], load(mode="offline"), ()).choices[0] is waits  # nobody waits for a queue that was filled at once


def test_long_prompts_may_take_three_times_their_prefill(prediction: Build) -> None:
    long = prediction("tp=4,dp=2", ttft_s=8.0, parts=(("weights", 3.0),))  # the step of the small world is its prefill too
    assert rank([long], load(mode="closed_loop", users=4), ()).implied_ttft_s == 9.0
    assert rank([long], load(mode="closed_loop", users=4), ()).limits_met


def test_of_plans_that_miss_the_one_that_carries_most_within_the_limits_is_first(prediction: Build) -> None:
    near = replace(prediction("tp=8", tpot_s=0.031, rate=900, within=False), load_within_limits=90.0)
    most = replace(prediction("tp=4,dp=2", tpot_s=0.037, rate=900, within=False), load_within_limits=134.0)
    waits = replace(prediction("tp=2,dp=4", ttft_s=168.0, tpot_s=0.027, rate=100, within=False), load_within_limits=12.0)
    advice = rank([waits, near, most], load(mode="closed_loop", users=200, tpot_limit_s=0.03), ())
    assert [p.plan.tp for p in advice.choices] == [4, 8, 2]
    assert not advice.limits_met


def test_what_cannot_be_told_apart_is_said_and_the_simpler_plan_comes_first(prediction: Build) -> None:
    deep = prediction("tp=2,pp=2,dp=2", rate=1010, independent=0.1)
    flat = prediction("tp=4,dp=2", rate=1000, independent=0.1)
    advice = rank([deep, flat], load(), ())
    assert {plan.label for plan in advice.ties} == {deep.plan.label, flat.plan.label}
    assert advice.tie_reason == "simplest"
    assert advice.choices[0] is flat
    equal = rank([prediction("tp=8", rate=1000, independent=0.1), prediction("tp=4,dp=2", rate=1010, independent=0.1)], load(), ())
    assert equal.tie_reason == "best_figure"  # neither is simpler
    assert advice.first_share is not None
    assert 0.4 < advice.first_share < 0.6


def test_simplicity_never_costs_a_tenth_however_wide_the_error(prediction: Build) -> None:
    spread = prediction("tp=2,adp=4,ep=8", rate=1100, independent=0.5)
    plain = prediction("tp=8", rate=1000, independent=0.5)
    advice = rank([plain, spread], load(), ())
    assert not advice.ties
    assert advice.choices[0] is spread


def test_a_clear_lead_is_not_given_away_to_simplicity(prediction: Build) -> None:
    advice = rank([prediction("tp=2,pp=2,dp=2", rate=1300), prediction("tp=4,dp=2", rate=1000)], load(), ())
    assert advice.choices[0].plan == Plan(tp=2, pp=2, dp=2)
    assert not advice.ties
    assert advice.first_share == 1.0


def test_of_a_tie_the_fewest_gpus_are_taken(prediction: Build) -> None:
    four, two = prediction("tp=4", tpot_s=0.00743, independent=0.1), prediction("tp=2", tpot_s=0.00758, ttft_s=0.1, independent=0.1)
    advice = rank([four, two], load(goal="latency"), ())
    assert advice.choices[0] is two
    assert advice.tie_reason == "fewest_gpus"


def test_a_tied_plan_with_the_worse_figure_and_the_smaller_cache_is_not_taken(prediction: Build) -> None:
    plain = prediction("adp=8", rate=1000, independent=0.1, kv_tokens=400_000)
    spread = prediction("ep=8,adp=8", rate=1020, independent=0.1, kv_tokens=480_000)
    assert rank([plain, spread], load(), ()).choices[0] is spread


def test_replicas_that_cannot_fill_the_machine_stay_out_of_the_front(prediction: Build) -> None:
    plans = [prediction("tp=8", rate=1000), prediction("adp=7", rate=2000, tpot_s=0.04), prediction("tp=1", rate=300, tpot_s=0.06)]
    assert {plan.label for plan in rank(plans, load(goal="latency"), (), gpus=8).front} == {"tp=8,pp=1,dp=1", "tp=1,pp=1,dp=1"}
    assert any(plan.adp == 7 for plan in rank(plans, load(goal="latency"), (), gpus=14).front)


def test_certainty_is_the_same_every_time(prediction: Build) -> None:
    plans = [prediction("tp=8", rate=1000, independent=0.05), prediction("tp=4,dp=2", rate=1030, independent=0.05)]
    shares = {rank(plans, load(), ()).first_share for _ in range(3)}
    assert len(shares) == 1


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
    a, b = prediction("tp=8", rate=1100, independent=0.05), prediction("tp=4,dp=2", rate=1000, independent=0.05)
    assert better_chance(a, b, load()) == pytest.approx(0.911, abs=0.001)


def test_fewer_coupled_axes_are_simpler() -> None:
    plans = [Plan(tp=2, pp=2), Plan(tp=4), Plan(), Plan(dp=4)]
    assert sorted(plans, key=simplicity)[:2] == [Plan(), Plan(dp=4)]
    assert max(plans, key=simplicity) == Plan(tp=2, pp=2)
