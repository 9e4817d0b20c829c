"""Plans: text and back, who is which rank, and the layers of a stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.specs.plan import Plan, SplitRule, layer_bounds

DEGREE = st.integers(1, 8)


@given(tp=DEGREE, pp=DEGREE, dp=DEGREE, adp=DEGREE, spread=st.booleans())
def test_a_label_reads_back(tp: int, pp: int, dp: int, adp: int, spread: bool) -> None:
    plan = Plan(tp=tp, pp=pp, dp=dp, adp=adp, ep=tp * adp if spread else 1)
    assert Plan.parse(plan.label) == plan


@given(tp=DEGREE, adp=DEGREE, data=st.data())
def test_tokens_are_sent_where_each_group_meets_every_part_alike(tp: int, adp: int, data: st.DataObject) -> None:
    """By counting ranks: those that an attention group has in the ep group of each part."""
    plan = Plan(tp=tp, adp=adp, ep=data.draw(st.sampled_from([ep for ep in range(1, tp * adp + 1) if tp * adp % ep == 0])))
    met = {
        sum(plan.coordinates(rank).adp_rank == group for rank in ranks) for ranks in plan.groups("ep") for group in range(plan.adp)
    }
    assert plan.sends_tokens == (adp > 1 and len(met) == 1 and 0 not in met)


def test_order_and_spaces_do_not_matter() -> None:
    assert Plan.parse(" pp = 2, tp=4 ") == Plan.parse("tp=4 pp=2") == Plan(tp=4, pp=2)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("tp=0", "a degree is 1 or more"),
        ("tp=2,tp=4", "tp stands twice"),
        ("tp=4,,pp=2", "cannot read ''"),
        ("", "cannot read ''"),
        ("cp=2", "cannot read 'cp=2'"),
        ("tp=1.5", "cannot read 'tp=1.5'"),
        ("tp=9999999", "cannot read"),
        ("ep=3,tp=8", "ep=3 does not divide"),
    ],
)
def test_what_is_no_plan_is_one_sentence(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        Plan.parse(text)


def test_three_axes_on_eight_gpus() -> None:
    # docs/physics.md, worked by hand: replica 0 is GPUs 0..3, its first stage GPUs 0 and 1.
    plan = Plan(tp=2, pp=2, dp=2)
    assert plan.groups("tp") == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert plan.groups("pp") == ((0, 2), (1, 3), (4, 6), (5, 7))
    where = [plan.coordinates(rank) for rank in range(8)]
    assert [(c.replica, c.stage, c.tp_rank) for c in where] == [(r, s, t) for r in (0, 1) for s in (0, 1) for t in (0, 1)]


@pytest.mark.parametrize(
    ("rule", "sizes"), [("last_spared", [11, 11, 10]), ("last_extra", [10, 11, 11]), ("first_extra", [11, 11, 10])]
)
def test_uneven_stages_follow_the_engine(rule: SplitRule, sizes: list[int]) -> None:
    assert [last - first for first, last in layer_bounds(32, Plan(pp=3), rule)] == sizes


def test_a_split_has_to_add_up() -> None:
    assert layer_bounds(32, Plan(pp=2, layer_split=(20, 12)), "last_spared") == ((0, 20), (20, 32))
    with pytest.raises(ValueError, match="do not make 32"):
        layer_bounds(32, Plan(pp=2, layer_split=(20, 13)), "last_spared")
    with pytest.raises(ValueError, match="more stages than"):
        layer_bounds(32, Plan(pp=33), "last_spared")
