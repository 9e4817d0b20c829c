"""Whether speculative decoding pays for a plan, and up to which load."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from advisor.search.ceiling import with_ceiling
from advisor.serving.predict import Predictor
from advisor.specs.advice import SpeculationAdvice
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction

NEAR = 1.05  # the load is found to within a twentieth


def drafting_advice(predictor: Predictor, first: Prediction) -> SpeculationAdvice | None:
    """TPOT of the first plan with drafts and without, and the load from which on drafts stop to shorten it; None without drafts."""
    problem = predictor.problem
    if problem.speculation is None:
        return None
    plain = Predictor(replace(problem, speculation=None), predictor.calibration)
    most = max(2.0, first.max_sequences)

    def gain(users: float) -> float:
        return _tpot_s(plain, first.plan, users) / _tpot_s(predictor, first.plan, users)

    asked = problem.workload.users or max(1.0, first.sequences)
    return SpeculationAdvice(
        tpot_s=_tpot_s(predictor, first.plan, asked), plain_tpot_s=_tpot_s(plain, first.plan, asked),
        pays_below_users=_crossing(gain, most, first.plan.dp),
    )  # fmt: skip


def _tpot_s(predictor: Predictor, plan: Plan, users: float) -> float:
    """TPOT of so many users in flight, by the formula."""
    count = max(plan.dp, round(users))
    under = predictor.under(replace(predictor.problem.workload, mode="closed_loop", users=count, start="steady", requests=0))
    return under.screen(with_ceiling(under.problem, replace(plan, settings=None))).tpot_s.value


def _crossing(gain: Callable[[float], float], most: float, fewest: int) -> float | None:
    """The load at which the gain falls to 1, by bisection on its logarithm."""
    low, high = float(fewest), most
    if gain(low) <= 1.0:
        return 0.0
    if gain(high) > 1.0:
        return None
    while high > low * NEAR:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if gain(middle) > 1.0 else (low, middle)
    return high
