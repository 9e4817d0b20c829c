"""Points of a curve lie close enough for straight lines, also where a figure bends or jumps."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from explored import MIXTURE, dense_question
from hypothesis import given
from hypothesis import strategies as st

from advisor.api.load_curve import Curves, grid
from advisor.api.question import question
from advisor.search.ceiling import with_ceiling
from advisor.search.place import Placer
from advisor.serving.predict import Predictor
from advisor.specs.exploration import LoadCurve
from advisor.specs.plan import Plan


def read(users: list[int], values: list[float], at: float) -> float:
    """The value on the line between the neighbours of `at`."""
    after = next(i for i, u in enumerate(users) if u >= at)
    if users[after] == at:
        return values[after]
    low, high = users[after - 1], users[after]
    return values[after - 1] + (at - low) / (high - low) * (values[after] - values[after - 1])


@given(bend=st.integers(2, 3000), slope=st.floats(0.0, 1.0))
def test_lines_follow_a_bend(bend: int, slope: float) -> None:
    def figures(users: int) -> tuple[float, ...]:
        return (1.0 + 0.001 * users + slope * max(0, users - bend), 10.0 + users)

    users = grid(figures, 1, 4096)
    values = [figures(u)[0] for u in users]
    assert users == sorted(set(users))
    assert (users[0], users[-1]) == (1, 4096)
    for at in range(1, 4097, 37):
        assert read(users, values, at) == pytest.approx(figures(at)[0], rel=0.1)


def test_a_jump_is_kept_between_neighbours() -> None:
    users = grid(lambda u: (1.0 if u < 777 else 2.0,), 1, 4096)
    assert {776, 777} <= set(users)


def test_a_straight_figure_needs_few_points() -> None:
    assert len(grid(lambda u: (3.0 + 2.0 * u,), 1, 4096)) <= 8


def _check(curve: LoadCurve, predictor: Predictor, plan: Plan, loads: list[int]) -> None:
    for users in loads:
        load = replace(predictor.problem.workload, mode="closed_loop", users=users)
        loaded = predictor.under(load)
        meant = loaded.screen(with_ceiling(loaded.problem, plan))
        share = max(1.0, users / plan.dp) * curve.replicas
        busy = min(plan.dp, users) / curve.replicas
        at = list(curve.users)
        assert read(at, list(curve.ttft_s), share) == pytest.approx(meant.ttft_s.value, rel=0.02), users
        assert read(at, list(curve.tpot_s), share) == pytest.approx(meant.tpot_s.value, rel=0.02), users
        rate = read(at, list(curve.output_tokens_per_s), share) * busy
        assert rate == pytest.approx(meant.output_tokens_per_s.value, rel=0.02), users


@pytest.mark.parametrize("label", ["tp=8", "tp=4,dp=2", "tp=2,dp=3", "tp=2,pp=2,dp=2"])
def test_a_curve_is_what_the_formula_says(label: str) -> None:
    asked, plan = dense_question(), Plan.parse(label)
    predictor = Predictor(asked.problem, asked.calibration)
    draw = random.Random(label)
    curve = Curves(predictor, most_users=1024).of(plan)
    _check(curve, predictor, plan, [1, 2, 3, 1024, *(round(1024 ** draw.random()) for _ in range(12))])
    assert curve.tpot_band.low < 1 < curve.tpot_band.high


def test_plans_that_differ_in_replicas_share_a_curve() -> None:
    asked = dense_question()
    curves = Curves(Predictor(asked.problem, asked.calibration), most_users=64)
    assert curves.of(Plan(tp=4, dp=2)) is curves.of(Plan(tp=4))
    assert curves.of(Plan(tp=2)) is not curves.of(Plan(tp=4))


def test_replicas_on_different_links_have_curves_of_their_own() -> None:
    asked = question(model="8b", gpu="l40s", gpus=8, node="pcie-2-socket", online=False)
    predictor = Predictor(asked.problem, asked.calibration)
    curves = Curves(predictor, most_users=64)
    for plan in (Plan(tp=8), Plan(tp=2, dp=4), Plan(tp=2, dp=3)):
        placed = Placer(asked.problem).placed(plan)
        _check(curves.of(placed), predictor, placed, [1, 5, 64])


def test_experts_and_attention_groups_have_curves_too() -> None:
    asked = question(model="mixtral", online=False, **MIXTURE)
    predictor = Predictor(asked.problem, asked.calibration)
    plan = Plan(tp=2, adp=2, ep=4)
    _check(Curves(predictor, most_users=256).of(plan), predictor, plan, [1, 7, 90, 256])
