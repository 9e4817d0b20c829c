"""Limits on percentiles: the plans that the formula puts first are simulated, and the first that keeps them all is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from advisor.search.cause import cause
from advisor.serving.load import steady_requests
from advisor.serving.predict import Predictor
from advisor.serving.simulate import Offered, keeps, simulate
from advisor.specs.advice import Advice
from advisor.specs.plan import Plan
from advisor.specs.trace import Request
from advisor.specs.workload import Workload

CONTENDERS = 4  # plans that are simulated
REQUESTS = 1500  # of a simulation: the 99th percentile rests on fifteen
STEPS = 6  # halvings of the load that holds, to 2%


def decided(predictor: Predictor, advice: Advice) -> Advice:
    """The advice with the first contender first that keeps every limit, and the load up to which the first plan keeps them."""
    workload = predictor.problem.workload
    if not workload.limits or not advice.choices:
        return advice
    contenders = [p for p in advice.choices if p.within_limits][:CONTENDERS]
    kept = [p for p in contenders if _keeps(predictor, p.plan, workload)]
    missed = [replace(p, within_limits=False) for p in contenders if p not in kept]
    others = [p for p in advice.choices if p not in contenders]
    choices = (*kept, *(p for p in others if p.within_limits), *missed, *(p for p in others if not p.within_limits))
    first = choices[0]
    runner = next((p for p in choices if p.plan == advice.runner_up and p.plan != first.plan), None)
    simulation, _ = simulate(predictor, first.plan, _offered(workload), workload.limits)
    return replace(
        advice, choices=choices, verdicts=simulation.verdicts, limits_met=bool(kept), runner_up=runner.plan if runner else None,
        cause=cause(first, runner, workload), holds=_holds(predictor, first.plan, workload, met=bool(kept)),
    )  # fmt: skip


def _keeps(predictor: Predictor, plan: Plan, workload: Workload) -> bool:
    return keeps(predictor, plan, _offered(workload), workload.limits)


def _offered(workload: Workload) -> Offered:
    """The steady load as requests: Poisson arrivals, or users who ask again at once."""
    if workload.mode == "open_loop":
        rate_per_s = workload.rate_per_s
        return Offered(
            words=f"{REQUESTS:,} requests at {rate_per_s:g}/s", last_s=REQUESTS / rate_per_s,
            requests=lambda: steady_requests(workload, REQUESTS, rate_per_s),
        )  # fmt: skip
    count = max(REQUESTS, 4 * workload.users)

    def further() -> Callable[[float], Request | None]:
        upcoming: Iterator[Request] = steady_requests(workload, count - workload.users, 1.0)

        def follow_up(now_s: float) -> Request | None:
            following = next(upcoming, None)
            return replace(following, arrival_s=now_s) if following else None

        return follow_up

    return Offered(
        words=f"{count:,} requests of {workload.users:,} users", last_s=float("inf"), follow_up=further,
        requests=lambda: steady_requests(workload, workload.users, float(workload.users)),
    )  # fmt: skip


def _holds(predictor: Predictor, plan: Plan, workload: Workload, *, met: bool) -> float:
    """The largest load at which the plan keeps every limit with the engine's own batch ceiling, to 2%; 0 where it does at none."""
    asked = workload.rate_per_s if workload.mode == "open_loop" else float(workload.users)
    low, high = (asked, 2 * asked) if met else (0.0, asked)
    plan = replace(plan, settings=None)
    for _ in range(STEPS):
        middle = (low + high) / 2 if low else high / 2
        if _keeps(predictor, plan, _at(workload, middle)):
            low = middle
        else:
            high = middle
        if low and high / low < 1.02:
            break
    return low


def _at(workload: Workload, load: float) -> Workload:
    if workload.mode == "open_loop":
        return replace(workload, rate_per_s=load)
    return replace(workload, users=max(1, round(load)))
