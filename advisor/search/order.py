"""Which plan comes before which: the goal's figure, the limits, and how simple a plan is."""

from __future__ import annotations

import math

from advisor.search.certainty import better_chance, objective
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload

CLOSE = 0.65  # below this chance of being better, two plans cannot be told apart
GIVEN_AWAY = 0.05  # of the goal's figure is the most that simplicity may cost: about what two runs of one benchmark differ by


def shape(plan: Plan) -> tuple[int, ...]:
    """What one replica is, whatever the number of replicas."""
    return (plan.tp, plan.pp, plan.ep, plan.adp)


def simplicity(plan: Plan) -> tuple[int, int, int, int]:
    """Simpler sorts first: fewer kinds of parallelism that couple GPUs, none that spreads experts or sequences, fewer stages."""
    coupled = sum(degree > 1 for degree in (plan.tp, plan.pp, plan.ep, plan.adp))
    return (coupled, (plan.ep > 1) + (plan.adp > 1), plan.pp, plan.replica_gpus)


def miss(prediction: Prediction, workload: Workload) -> float:
    """By what factor the worst limit is missed; 1.0 or less when all are met."""
    pairs = ((prediction.ttft_s, workload.ttft_limit_s), (prediction.tpot_s, workload.tpot_limit_s))
    return max((estimate.value / limit for estimate, limit in pairs if limit), default=1.0)


def sort_key(p: Prediction, workload: Workload) -> tuple[object, ...]:
    """Sort key: limits, then the goal, then what else one would like. Figures equal to 0.1% count as equal."""
    value = objective(p, workload).value
    level = round(math.log(value) * 1000) if 0 < value < math.inf else math.inf
    second = round(math.log(max(p.latency_s.value, 1e-12)) * 1000)
    missed = 0.0 if p.within_limits else round(math.log(max(miss(p, workload), 1.0)) * 20)
    return (not p.within_limits, missed, level, second, simplicity(p.plan), p.plan.world, p.plan.label)


def prefer_simple(order: list[Prediction], workload: Workload) -> tuple[list[Prediction], bool]:
    """The order with the simplest of the plans that cannot be told from the best in front; whether it was a close call."""
    best = order[0]
    if not best.within_limits:  # the nearest miss is nearest, however close the figures of the goal are
        return order, False
    rivals = [
        p
        for p in order[1:]
        if p.within_limits == best.within_limits and shape(p.plan) != shape(best.plan) and better_chance(best, p, workload) < CLOSE
    ]
    if not rivals:
        return order, False
    most = objective(best, workload).value * (1 + GIVEN_AWAY)
    near = [p for p in rivals if objective(p, workload).value <= most]
    chosen = min([best, *near], key=lambda p: (simplicity(p.plan)[:3], sort_key(p, workload)))
    if chosen is not best:
        order = [chosen, *(p for p in order if p is not chosen)]
    return order, True
