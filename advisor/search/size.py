"""The fewest GPUs for a load within its limits: by formula which replicas are worth a simulation, by simulation how many.

A replica gets an even share of the requests. The largest share that it carries within the limits is looked for on the busiest
`WINDOW` requests; then the busiest `DECIDING` of them decide, one replica more or fewer at a time. What keeps a limit in the
busiest part of the load keeps it over all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from advisor.errors import PlanError
from advisor.search.space import legal_plans
from advisor.serving.capacity import Capacity
from advisor.serving.fleet import Fleet
from advisor.serving.predict import Predictor, fitted
from advisor.serving.run import simulator
from advisor.serving.scaled import Scaled
from advisor.serving.simulate import slower
from advisor.serving.summary import Summary, summarise
from advisor.specs.limit import Limit
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, Prediction
from advisor.specs.simulation import Verdict
from advisor.specs.sizing import Size
from advisor.specs.trace import Request

SHAPES = 2  # replicas of each GPU type that are simulated, the best by the formula
WINDOW, DECIDING = 1200, 6000  # requests of the busiest parts: the 99th percentile rests on twelve, and on sixty
HALVINGS = 4  # of the share, to 6%
HOUR_S = 3600.0
LEAST = 300  # requests of a run; where a share has fewer, as many at its rate
IDLE = 0.1  # of what a replica carries by the formula: one that misses the limits with so little to do is not an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A load and what has to be kept: every limit with the chance `confidence`."""

    requests: Sequence[Request]
    limits: tuple[Limit, ...]
    confidence: float


def size(predictors: Sequence[Predictor], wanted: Wanted) -> Size | None:
    """The fewest GPUs of one type; `predictors` ask the same question of ever more GPUs of it. None where none keeps the limits."""
    best: Size | None = None
    for predictor, choice in _worth_simulating(predictors):
        if best is not None and predictor.problem.cluster.gpus >= best.gpus:
            continue
        found = _sized(predictor, choice, wanted, most_gpus=best.gpus if best else math.inf)
        if found is not None and (best is None or found.gpus < best.gpus):
            best = found
    return best


def _worth_simulating(predictors: Sequence[Predictor]) -> list[tuple[Predictor, Prediction]]:
    """The replicas that carry most requests a GPU by the formula, where each figure's mean keeps its limit."""
    found: list[tuple[float, Predictor, Prediction]] = []
    for predictor in predictors:
        gpus = predictor.problem.cluster.gpus
        for plan in legal_plans(predictor.problem).plans:
            if plan.dp > 1 or plan.world != gpus:
                continue
            try:
                answer = predictor.screen(plan)
            except PlanError:
                continue
            if answer.within_limits:
                found.append((answer.requests_per_s.value / gpus, predictor, answer))
    found.sort(key=lambda each: -each[0])
    return [(predictor, answer) for _, predictor, answer in found[:SHAPES]]


def _sized(predictor: Predictor, choice: Prediction, wanted: Wanted, *, most_gpus: float) -> Size | None:
    plan, _, capacity = fitted(predictor.problem, replace(choice.plan, settings=None))
    trial = _Trial(predictor, plan, capacity, wanted)
    window, deciding = _busiest(wanted.requests, WINDOW), _busiest(wanted.requests, DECIDING)
    carried_per_s = choice.requests_per_s.value * max(1e-9, wanted.requests[-1].arrival_s) / len(wanted.requests)
    share = trial.largest_share(window, least=IDLE * carried_per_s)
    if share is None:
        return None
    replicas = max(1, math.ceil(1 / share))
    if replicas * plan.replica_gpus >= most_gpus * 1.5:
        return None
    here = trial.run(deciding, 1 / replicas)
    while not trial.keeps(here):
        replicas += max(1, replicas // 50)
        here = trial.run(deciding, 1 / replicas)
    below = None
    while replicas > 1:
        below = trial.run(deciding, 1 / (replicas - 1))
        if not trial.keeps(below):
            break
        replicas, here, below = replicas - 1, below, None
    share = max(share, 1 / replicas) if replicas > 1 or share < 1 else share
    return _size(predictor, plan, wanted, replicas=replicas, share=share, here=here, below=below)


class _Trial:
    """One replica of a plan under shares of the load, with steps as slow as the confidence asks for."""

    def __init__(self, predictor: Predictor, plan: Plan, capacity: Capacity, wanted: Wanted) -> None:
        self.wanted, self._capacity = wanted, capacity
        deviations = NormalDist().inv_cdf(wanted.confidence)
        self._model = Scaled(predictor.step_model(plan), slower(predictor, deviations))

    def run(self, requests: Sequence[Request], share: float) -> tuple[Summary, bool]:
        """What a replica with such a share of the requests answers, and whether its queue grows."""
        fleet = Fleet([simulator(self._model, self._capacity, jitter=True)])
        mine = _share(requests, share)
        fleet.run(mine, last_s=mine[-1].arrival_s)
        return summarise(fleet, self.wanted.limits), bool(fleet.overloaded or fleet.unanswered)

    def keeps(self, run: tuple[Summary, bool]) -> bool:
        """Whether every limit is kept and the queue does not grow."""
        summary, grows = run
        return not grows and all(found <= limit.seconds for found, limit in zip(summary.limited, self.wanted.limits, strict=True))

    def largest_share(self, requests: Sequence[Request], *, least: float) -> float | None:
        """The largest share of the requests that the replica carries; None where that is less than `least`."""
        low, high = 0.0, 1.0
        while self.keeps(self.run(requests, high)):
            low, high = high, 2 * high
            if high > 64:
                return low
        if not low:
            high, low = 1.0, 0.5
            while not self.keeps(self.run(requests, low)):
                if low < least:
                    return None
                high, low = low, low / 2
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self.keeps(self.run(requests, middle)):
                low = middle
            else:
                high = middle
        return low


def _share(requests: Sequence[Request], share: float) -> list[Request]:
    """Every so many-th request, more of them over a longer time where they are few; of a share above 1 all, as much faster."""
    if share >= 1:
        return [replace(r, arrival_s=r.arrival_s / share) for r in requests] if share > 1 else list(requests)
    kept = min(1.0, max(share, LEAST / len(requests)))
    mine = [r for at, r in enumerate(requests) if int((at + 1) * kept) > int(at * kept)]
    first_s = requests[0].arrival_s
    return [replace(r, arrival_s=(r.arrival_s - first_s) * kept / share) for r in mine or requests[:1]]


def _busiest(requests: Sequence[Request], count: int) -> Sequence[Request]:
    """The run of so many requests with the most tokens a second, from time 0 on."""
    if len(requests) <= count:
        return requests
    tokens = [0]
    for request in requests:
        tokens.append(tokens[-1] + request.input_tokens + request.output_tokens)

    def per_s(start: int) -> float:
        seconds = requests[start + count - 1].arrival_s - requests[start].arrival_s
        return (tokens[start + count] - tokens[start]) / max(1e-9, seconds)

    start = max(range(0, len(requests) - count + 1, max(1, count // 8)), key=per_s)
    first_s = requests[start].arrival_s
    return [replace(r, arrival_s=r.arrival_s - first_s) for r in requests[start : start + count]]


def _size(
    predictor: Predictor, plan: Plan, wanted: Wanted, *, replicas: int, share: float, here: tuple[Summary, bool],
    below: tuple[Summary, bool] | None,
) -> Size:  # fmt: skip
    device = predictor.problem.cluster.device
    gpus = replicas * plan.replica_gpus
    usd = None if device.price_usd_per_hour is None else device.price_usd_per_hour * gpus
    seconds = max(1e-9, wanted.requests[-1].arrival_s)
    tokens_per_s = sum(r.output_tokens for r in wanted.requests) / seconds
    return Size(
        gpu=device.name, plan=replace(plan, dp=replicas, gpus=()), share=share, found=_verdicts(here, wanted),
        smaller=_verdicts(below, wanted) if below else (), usd_per_hour=usd,
        usd_per_million_tokens=usd / 3600 / tokens_per_s * 1e6 if usd is not None and tokens_per_s else None,
        by_hour=_by_hour(wanted.requests, replicas, seconds),
    )  # fmt: skip


def _verdicts(run: tuple[Summary, bool], wanted: Wanted) -> tuple[Verdict, ...]:
    summary, grows = run
    found = []
    for limit, value in zip(wanted.limits, summary.limited, strict=True):
        met = value <= limit.seconds and not grows
        found.append(Verdict(limit=limit, found=Estimate(value=value, low=value, high=value), met=met, sure=met))
    return tuple(found)


def _by_hour(requests: Sequence[Request], replicas: int, seconds: float) -> tuple[int, ...]:
    """Replicas of each hour of a trace of three hours or more: in proportion to its tokens, the busiest hour has them all."""
    hours = math.ceil(seconds / HOUR_S)
    if hours < 3:
        return ()
    tokens = [0] * hours
    for request in requests:
        tokens[min(hours - 1, int(request.arrival_s / HOUR_S))] += request.input_tokens + request.output_tokens
    return tuple(max(1, math.ceil(replicas * each / max(tokens))) for each in tokens)
