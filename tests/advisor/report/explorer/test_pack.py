"""The data of the page: each curve once, few digits, thinned by dominance with the number left out said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

from explored import dense

from advisor.report.explorer.pack import DIGITS, MOST_OTHERS, pack
from advisor.report.explorer.page import page
from advisor.search.front import front
from advisor.search.rank import rank
from advisor.specs.exploration import Exploration
from advisor.specs.prediction import Prediction, Rejected
from advisor.specs.workload import Workload


def large(prediction: Callable[..., Prediction], plans: int) -> Exploration:
    """A question with so many plans and as many rejected ones."""
    draw = random.Random(7)
    found = [
        prediction(
            f"tp={1 + n % 8},pp={1 + n // 8 % 16},dp={1 + n // 128}", rate=draw.uniform(100, 9000), tpot_s=draw.uniform(0.01, 0.2)
        )
        for n in range(plans)
    ]
    load = Workload(input_tokens=1024, output_tokens=512, mode="closed_loop", users=32)
    rejected = tuple(Rejected(plan=p.plan, reason="needs 92 GiB of 80 GiB", short_bytes=1e9) for p in found)
    return replace(dense(), advice=rank(found, load, rejected))


def test_5000_plans_stay_small_and_the_front_stays(prediction: Callable[..., Prediction]) -> None:
    exploration = large(prediction, 5000)
    data = pack(exploration)
    shown = len(data["others"]) + data["others_hidden"]
    assert len(data["others"]) == MOST_OTHERS
    assert shown == 5000 - sum(e.prediction.plan in {c.plan for c in exploration.advice.choices} for e in exploration.explored)
    best = {(p.latency_s.value, p.output_tokens_per_s.value / p.plan.world) for p in front(exploration.advice.choices)}
    kept = {(other[5], other[6] / other[1]) for other in data["others"]}
    assert all(any(abs(a - c) < 1e-3 * a and abs(b - d) < 1e-3 * b for c, d in kept) for a, b in best)
    assert len(page(exploration).encode()) < 600_000


def test_a_curve_that_plans_share_is_there_once() -> None:
    data = pack(dense())
    assert len(data["curves"]) < sum(len(v["plans"]) for v in data["variants"])
    places = [p["curve"] for p in data["plans"]] + [p["curve"] for v in data["variants"] for p in v["plans"]]
    assert {place for place in places if place is not None} == set(range(len(data["curves"])))


def test_figures_have_the_digits_that_are_shown_and_two_more() -> None:
    data = pack(dense())
    for value in data["curves"][0]["ttft"]:
        assert len(f"{value:e}".split("e")[0].rstrip("0").replace(".", "")) <= DIGITS
    assert json.loads(json.dumps(data, allow_nan=False)) == data
