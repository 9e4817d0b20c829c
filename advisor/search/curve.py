"""The best few plans under lighter loads: what the front looks like between one user and as many as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from advisor.search.order import shape, simplicity
from advisor.serving.predict import Predictor
from advisor.specs.advice import Advice
from advisor.specs.prediction import Prediction
from advisor.units import show

PLANS = 2
SHARES = (1 / 8,)  # of the load that fits, beside one user a replica


def with_curve(predictor: Predictor, advice: Advice) -> Advice:
    """The advice with its best plans of different shapes at lighter loads, where the load was left open; else as it is.

    A replica serves one user, and an eighth of what it can carry. Where another plan than the first is the fastest
    for one user, a note says so.
    """
    workload = predictor.problem.workload
    if workload.mode != "capacity" or not advice.choices:
        return advice
    points = [
        predictor.under(replace(workload, mode="closed_loop", users=users)).screen(p.plan)
        for p in _best(advice.choices)
        for users in _loads(p)
    ]
    return replace(advice, curve=tuple(points), notes=(*advice.notes, *_fastest(predictor, advice.choices)))


def _best(choices: Sequence[Prediction]) -> list[Prediction]:
    found: list[Prediction] = []
    for p in choices:
        if len(found) < PLANS and p.within_limits and shape(p.plan) not in [shape(other.plan) for other in found]:
            found.append(p)
    return found


def _loads(p: Prediction) -> list[int]:
    """Users of the whole deployment: one a replica, then shares of what fits."""
    shares = {round(p.sequences * share) for share in SHARES}
    return sorted({p.plan.dp} | {users for users in shares if p.plan.dp < users < p.sequences})


def _fastest(predictor: Predictor, choices: Sequence[Prediction]) -> list[str]:
    """Which plan serves one user fastest, where it is not the first.

    Asked of the plans with the fewest stages and the fewest attention-DP groups: neither ever shortens the way of one token.
    """
    alone = predictor.under(replace(predictor.problem.workload, mode="single_stream", users=1))
    fewest = min((p.plan.pp, p.plan.adp) for p in choices)
    kinds = {shape(p.plan): p.plan for p in reversed(choices) if (p.plan.pp, p.plan.adp) == fewest}
    best = min((alone.screen(plan) for plan in kinds.values()), key=lambda p: (p.tpot_s.value, simplicity(p.plan)))
    mine = alone.screen(choices[0].plan)
    if shape(best.plan) == shape(mine.plan) or best.tpot_s.value > 0.95 * mine.tpot_s.value or not best.tpot_s.value:
        return []  # an answer of one token has no time between tokens
    gain = (mine.tpot_s.value / best.tpot_s.value - 1) * 100
    return [
        f"A single user is served fastest by {best.plan.replica().label}: {show(best.tpot_s.value, 's')} a token, "
        f"{gain:.0f}% faster than with the plan above (--users 1)."
    ]
