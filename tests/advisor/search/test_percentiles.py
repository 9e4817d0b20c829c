"""Limits on percentiles in `recommend`: judged by simulation, with the load up to which they hold."""

from __future__ import annotations

import pytest

import advisor
from advisor.errors import QuestionError


def test_the_first_plan_keeps_every_percentile_and_says_up_to_which_load() -> None:
    advice = advisor.recommend("8b", gpu="l40s", gpus=2, rate=3.0, ttft="p90=1s", tpot="p99=60ms", e2e="p95=60s")
    assert advice.limits_met
    assert [verdict.limit.name for verdict in advice.verdicts] == ["p90 TTFT", "p99 TPOT", "p95 end to end"]
    assert all(verdict.met and verdict.found.value <= verdict.limit.seconds for verdict in advice.verdicts)
    assert advice.holds is not None
    assert advice.holds >= 3.0
    assert any("hold up to" in sentence for sentence in advice.limits)


def test_where_none_keeps_them_the_load_that_holds_is_less_than_the_one_asked_for() -> None:
    advice = advisor.recommend("8b", gpu="l40s", gpus=1, rate=5.0, tpot="p99=45ms")
    assert not advice.limits_met
    assert not all(verdict.met for verdict in advice.verdicts)
    assert advice.holds is not None
    assert 0 < advice.holds < 5.0


def test_users_are_judged_too() -> None:
    few = advisor.recommend("8b", gpu="l40s", gpus=1, users=4, tpot="p99=45ms")
    assert few.limits_met
    assert few.holds is not None
    assert few.holds >= 4


def test_the_mean_alone_asks_no_simulation() -> None:
    assert not advisor.recommend("8b", gpu="l40s", gpus=1, rate=2.0, tpot="60ms").verdicts


def test_a_percentile_needs_a_load() -> None:
    with pytest.raises(QuestionError, match="needs a load that is stated"):
        advisor.recommend("8b", gpu="l40s", gpus=1, ttft="p90=1s")
