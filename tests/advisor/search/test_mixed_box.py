"""A box of different GPUs: a plan is judged by the GPUs that it uses."""

from __future__ import annotations

from advisor.api.answer import answer, estimate_plan
from advisor.api.question import question
from advisor.catalog.devices import load_device
from advisor.specs.cluster import Cluster, Link, Node

FOUR, THREE = load_device("rtx4090"), load_device("rtx3090")
BOX = Cluster(node=Node(name="box", devices=(FOUR, THREE, THREE), default_link=Link(kind="phb", bytes_per_s=31.5e9)))
TWO = Cluster(node=Node(name="box", devices=(THREE, THREE), default_link=Link(kind="phb", bytes_per_s=31.5e9)))


def test_two_3090_beside_an_unused_4090_are_two_3090() -> None:
    advice = answer(question(model="70b", cluster=BOX, dtype="int4-awq", users=1))
    first = advice.choices[0]
    assert (first.plan.tp, first.plan.gpus) == (2, (1, 2))
    alone = estimate_plan(question(model="70b", cluster=TWO, dtype="int4-awq", users=1), "tp=2")
    assert first.tpot_s == alone.tpot_s
    assert first.calibration.startswith("rtx3090")
    assert first.usd_per_million_tokens == alone.usd_per_million_tokens


def test_a_plan_over_both_kinds_pays_for_both_and_is_as_slow_as_the_slower() -> None:
    asked = question(model="70b", cluster=BOX, dtype="int4-awq", users=1)
    both = estimate_plan(asked, "pp=3")
    assert both.calibration.startswith("rtx3090")
    assert FOUR.price_usd_per_hour is not None
    assert THREE.price_usd_per_hour is not None
    hour = FOUR.price_usd_per_hour + 2 * THREE.price_usd_per_hour
    assert both.usd_per_million_tokens == hour / 3600 / both.output_tokens_per_s.value * 1e6
    assert estimate_plan(question(model="8b", cluster=BOX, dtype="int4-awq", users=1), "tp=1").calibration.startswith("rtx4090")
