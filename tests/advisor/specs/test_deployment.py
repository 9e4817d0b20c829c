"""Two pools in words, and back."""

from __future__ import annotations

import pytest

from advisor.specs.deployment import Deployment, names_pools
from advisor.specs.plan import Plan


def test_two_pools_are_read_and_written() -> None:
    found = Deployment.parse("prefill: tp=4,dp=4; decode: adp=8, ep=8")
    assert found.prefill == Plan(tp=4, dp=4)
    assert found.decode == Plan(adp=8, ep=8)
    assert found.world == 16 + 8
    assert Deployment.parse(found.label) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("prefill: tp=4", "two pools"),
        ("decode: tp=4; prefill: tp=4", "two pools"),
        ("prefill: tp=4; decode: tp=4; decode: tp=8", "two pools"),
        ("prefill: tp=4; decode: tq=4", "axes"),
        ("prefill: tp=4; decode:", "cannot read"),
    ],
)
def test_what_is_no_deployment_is_one_sentence(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Deployment.parse(text)


def test_a_plan_is_no_deployment() -> None:
    assert names_pools("prefill: tp=4; decode: tp=8")
    assert not names_pools("tp=4,pp=2")
