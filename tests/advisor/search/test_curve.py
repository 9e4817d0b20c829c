"""Lighter loads of the best plans, where the load was left open."""

from __future__ import annotations

import advisor
from advisor.search.rank import shape


def test_the_best_plans_are_shown_from_one_user_to_what_fits() -> None:
    advice = advisor.recommend("70b", gpu="h100-80g-sxm", gpus=8)
    best = {shape(p.plan) for p in advice.curve}
    assert len(best) == 2
    assert shape(advice.choices[0].plan) in best
    for kind in best:
        points = [p for p in advice.curve if shape(p.plan) == kind]
        assert points == sorted(points, key=lambda p: p.sequences)
        assert points[0].latency_s.value < points[-1].latency_s.value
        assert points[0].output_tokens_per_s.value < points[-1].output_tokens_per_s.value


def test_the_fastest_for_one_user_is_named_where_it_is_another() -> None:
    advice = advisor.recommend("70b", gpu="h100-80g-sxm", gpus=8)
    assert any(note.startswith("A single user is served fastest by tp=8,pp=1,dp=1") for note in advice.notes)


def test_a_load_that_was_asked_for_has_no_curve() -> None:
    assert advisor.recommend("8b", gpu="h100-80g-sxm", gpus=2, users=4).curve == ()
