"""Thinning keeps what nothing dominates, and how many is exact."""

from __future__ import annotations

import random
from collections.abc import Callable

from advisor.report.explorer.thin import thinned
from advisor.search.front import front
from advisor.specs.prediction import Prediction


def test_layers_go_from_the_front_inwards(prediction: Callable[..., Prediction]) -> None:
    draw = random.Random(3)
    plans = [
        prediction(f"tp={1 + n % 8},dp={1 + n // 8}", rate=draw.uniform(1, 9), tpot_s=draw.uniform(0.01, 0.1)) for n in range(200)
    ]
    kept = thinned(plans, 50)
    assert len(kept) == 50
    best = front(plans)
    assert all(any(p is k for k in kept) for p in best)
    assert [p for p in plans if any(p is k for k in kept)] == kept
    assert thinned(plans, 500) == plans
    assert thinned([], 5) == []
