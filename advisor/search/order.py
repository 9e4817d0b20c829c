"""Which plan comes before which: the limits, the goal's figure, and how simple a plan is."""

from __future__ import annotations

import math

from advisor.search.certainty import objective
from advisor.search.limits import miss
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload


def shape(plan: Plan) -> tuple[int, ...]:
    """What one replica is, whatever the number of replicas."""
    return (plan.tp, plan.pp, plan.ep, plan.adp)


def simplicity(plan: Plan) -> tuple[int, int, int, int]:
    """Simpler sorts first: fewer kinds of parallelism that couple GPUs, none that spreads experts or sequences, fewer stages.

    Experts spread over attention-DP ranks count once: the groups exist for that.
    """
    spread = (plan.adp > 1) + (plan.ep > 1 and plan.adp == 1)
    return ((plan.tp > 1) + (plan.pp > 1) + spread, spread, plan.pp, plan.replica_gpus)


def sort_key(p: Prediction, workload: Workload) -> tuple[object, ...]:
    """Sort key: limits, then the goal, then what else one would like. Figures equal to 0.1% count as equal.

    Of plans that miss a limit, the one that carries most of the load within it comes first; then one that does not let requests
    wait, and the one that misses least.
    """
    value = objective(p, workload).value
    level = round(math.log(value) * 1000) if 0 < value < math.inf else math.inf
    second = round(math.log(max(p.latency_s.value, 1e-12)) * 1000)
    missed: tuple[float, bool, float] = (0.0, False, 0.0)
    if not p.within_limits:
        waits = workload.ttft_limit_s is not None and p.ttft_s.value > workload.ttft_limit_s
        missed = (-round(p.load_within_limits or 0.0, 3), waits, round(math.log(max(miss(p, workload), 1.0)) * 20))
    return (not p.within_limits, *missed, level, second, simplicity(p.plan), p.plan.world, p.plan.label)
