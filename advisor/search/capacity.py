"""How much of a stated load each plan carries within the limits, where none carries all of it."""

from __future__ import annotations

from dataclasses import replace

from advisor.search.ceiling import with_ceiling
from advisor.search.limits import implied_ttft_s
from advisor.search.order import shape
from advisor.search.rank import rank
from advisor.serving.predict import Predictor
from advisor.specs.advice import Advice
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload


def ranked_by_capacity(predictor: Predictor, advice: Advice) -> Advice:
    """The advice with its plans in the order of the load that they carry within the limits, where no plan carries all of it.

    Each plan is asked how much fits; of plans of one replica shape only the one with most replicas, for more carry more.
    """
    workload = predictor.problem.workload
    if advice.limits_met or not advice.choices or workload.mode not in ("closed_loop", "open_loop"):
        return advice
    ttft_s = workload.ttft_limit_s or implied_ttft_s(advice.choices, workload)
    alone = predictor.under(replace(workload, mode="capacity", users=0, rate_per_s=0.0, goal="throughput", ttft_limit_s=ttft_s))
    widest: dict[tuple[int, ...], Prediction] = {}
    for p in advice.choices:
        if shape(p.plan) not in widest or p.plan.dp > widest[shape(p.plan)].plan.dp:
            widest[shape(p.plan)] = p
    asked = [replace(p, load_within_limits=_carried(alone, p, workload)) if p in widest.values() else p for p in advice.choices]
    return rank(asked, workload, advice.rejected, gpus=predictor.problem.cluster.gpus)


def _carried(alone: Predictor, p: Prediction, workload: Workload) -> float:
    """Users, or requests/s, that a plan carries within the limits; 0 where even one user misses them."""
    found = alone.screen(with_ceiling(alone.problem, p.plan))
    if not found.within_limits:
        return 0.0
    return found.requests_per_s.value if workload.mode == "open_loop" else users(found)


def expected(predictor: Predictor, workload: Workload, advice: Advice) -> Prediction | None:
    """The first plan with as much as keeps the limits of `workload` on average; None where that is what was asked for."""
    if workload.mode != "capacity" or workload == predictor.problem.workload or not advice.choices:
        return None
    average = predictor.under(workload)
    return average.screen(with_ceiling(average.problem, advice.choices[0].plan))


def users(p: Prediction) -> float:
    """Users in flight by Little's law: requests/s times the time of a request."""
    return p.requests_per_s.value * p.latency_s.value
