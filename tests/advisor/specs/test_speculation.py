"""Accepted lengths: (D1) by hand, its limits, and what a speculation cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.specs.speculation import Speculation, accepted_length


def test_the_length_by_hand() -> None:
    # docs/physics.md (D1): 1 + .79 + .79 x .61 + .79 x .61 x .46 = 2.4936
    assert accepted_length((0.79, 0.61, 0.46)) == pytest.approx(2.4936, abs=1e-4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_between_nothing_and_everything_accepted(rates: list[float]) -> None:
    length = accepted_length(tuple(rates))
    assert 1 <= length <= len(rates) + 1 + 1e-9
    assert accepted_length((*rates, 0.0)) == pytest.approx(length)


@given(st.floats(0.01, 0.99), st.integers(1, 8))
def test_one_rate_for_all_positions_is_the_geometric_sum(rate: float, drafts: int) -> None:
    assert accepted_length((rate,) * drafts) == pytest.approx((1 - rate ** (drafts + 1)) / (1 - rate))


@pytest.mark.parametrize(("drafts", "length"), [(0, 1.0), (3, 4.5), (3, 0.5)])
def test_an_impossible_length_is_refused(drafts: int, length: float) -> None:
    with pytest.raises(ValueError, match=r"token|length"):
        Speculation(method="mtp", drafts=drafts, length=length, length_low=length, length_high=length, source="x")
