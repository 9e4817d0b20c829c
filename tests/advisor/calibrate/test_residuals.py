"""Error bars and choices from residuals."""

from __future__ import annotations

import math
import random

import pytest

from advisor.calibrate.residuals import choices, scatter, spread_of


def test_scatter_is_of_predicted_over_measured() -> None:
    found = scatter([math.log(1 / 1.1), math.log(1 / 0.8), 0.0], [True, False, True])
    assert found.median == pytest.approx(0.1)
    assert found.covered == pytest.approx(2 / 3)


def test_the_interval_holds_nine_in_ten_and_parts_add_up() -> None:
    draw = random.Random(1)
    rows = []
    for question in range(200):
        shared = draw.gauss(0, 0.2)
        rows += [(str(question), shared + draw.gauss(0, 0.05)) for _ in range(4)]
    spread = spread_of(rows)
    assert spread is not None
    total = math.hypot(spread.shared, spread.independent)
    held = sum(abs(value) <= 1.6449 * total for _, value in rows) / len(rows)
    assert 0.88 <= held <= 0.92
    assert spread.independent == pytest.approx(0.05, rel=0.3)
    assert spread.shared == pytest.approx(0.2, rel=0.2)


def test_too_few_rows_say_nothing() -> None:
    assert spread_of([("a", 0.1)] * 5) is None


def test_a_choice_is_right_when_the_plan_predicted_best_measured_best() -> None:
    found = choices(
        {
            "right": {"tp1": (2.0, 2.1), "tp2": (1.0, 1.2)},
            "wrong": {"tp1": (1.0, 1.5), "tp2": (1.1, 1.4)},
            "alone": {"tp1": (1.0, 1.0)},
        }
    )
    assert (found.made, found.right, found.largest_tp_right) == (2, 1, 1)
    assert found.mean_regret == pytest.approx(0.05)
