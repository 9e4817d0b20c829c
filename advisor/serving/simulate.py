"""A load on a plan: three runs, with steps as expected, slower and faster, and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from advisor.roofline.memory import rank_memory
from advisor.roofline.step import StepModel
from advisor.serving.capacity import Capacity
from advisor.serving.familiarity import spread_for
from advisor.serving.fleet import Fleet
from advisor.serving.predict import Z90, Predictor, settings_of
from advisor.serving.record import Record
from advisor.serving.run import simulator
from advisor.serving.scaled import Scaled
from advisor.serving.summary import FIGURES, Summary, summarise
from advisor.specs.limit import Limit
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate
from advisor.specs.simulation import Percentiles, Simulation, Verdict
from advisor.specs.trace import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A load: `requests` starts it from its beginning, `last_s` is about when the last one comes, `words` describe it.

    `follow_up` gives what a user sends after an answer, and when; a new one for each run.
    """

    words: str
    requests: Callable[[], Iterable[Request]]
    last_s: float
    follow_up: Callable[[], Callable[[float], Request | None] | None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a run that is to be reproduced was started with; None: as the plan's settings say."""

    max_sequences: int | None = None
    token_budget: int | None = None
    kv_tokens: float | None = None


def simulate(
    predictor: Predictor, plan: Plan, offered: Offered, limits: Sequence[Limit] = (), *, bounds: Bounds | None = None
) -> tuple[Simulation, list[Record]]:
    """What the load gets from the plan, and every request of the expected run. Raises PlanError as `Predictor.predict` does."""
    plan, capacity = _settled(predictor, plan, bounds or Bounds())
    model = predictor.step_model(plan)
    width = slower(predictor, Z90)
    fleets = [_run(model, plan, capacity, offered, factor) for factor in (1.0, width, 1 / width)]
    expected, slow, fast = (summarise(fleet, limits) for fleet in fleets)
    records = sorted((r for replica in fleets[0].replicas for r in replica.records), key=lambda r: r.arrival_s)
    return _simulation(predictor, plan, offered, limits, fleets[0], (expected, slow, fast)), records


def keeps(predictor: Predictor, plan: Plan, offered: Offered, limits: Sequence[Limit]) -> bool:
    """Whether the expected run keeps every limit, with a queue that does not grow: one run instead of three."""
    plan, capacity = _settled(predictor, plan, Bounds())
    fleet = _run(predictor.step_model(plan), plan, capacity, offered, 1.0)
    found = summarise(fleet, limits).limited
    calm = not (fleet.overloaded or fleet.unanswered)
    return calm and all(value <= limit.seconds for value, limit in zip(found, limits, strict=True))


def slower(predictor: Predictor, deviations: float) -> float:
    """The factor on every step that so many standard deviations of the step model's error mean."""
    spread = spread_for(predictor.problem.engine, predictor.calibration, "tpot", predictor.problem.model)
    return math.exp(deviations * math.hypot(spread.shared, spread.independent))


def _settled(predictor: Predictor, plan: Plan, bounds: Bounds) -> tuple[Plan, Capacity]:
    """The plan with its settings, and what bounds a replica of it."""
    plan = settings_of(predictor.problem, plan)
    settings = plan.settings
    assert settings is not None
    plan = replace(
        plan,
        settings=replace(
            settings,
            max_sequences=bounds.max_sequences or settings.max_sequences,
            token_budget=bounds.token_budget or settings.token_budget,
        ),
    )
    kv_tokens = bounds.kv_tokens or float(rank_memory(predictor.problem, plan).kv_tokens)
    chosen = plan.settings
    assert chosen is not None
    return plan, Capacity(max_sequences=chosen.max_sequences * plan.adp, kv_tokens=kv_tokens, token_budget=chosen.token_budget)


def _run(model: StepModel, plan: Plan, capacity: Capacity, offered: Offered, factor: float) -> Fleet:
    timed = model if factor == 1.0 else Scaled(model, factor)
    fleet = Fleet([simulator(timed, capacity, jitter=True) for _ in range(plan.dp)])
    fleet.run(offered.requests(), last_s=offered.last_s, follow_up=offered.follow_up())
    return fleet


def _simulation(
    predictor: Predictor, plan: Plan, offered: Offered, limits: Sequence[Limit], fleet: Fleet,
    runs: tuple[Summary, Summary, Summary],
) -> Simulation:  # fmt: skip
    expected = runs[0]

    def estimate(of: Callable[[Summary], float]) -> Estimate:
        found = [of(run) for run in runs]
        return Estimate(value=found[0], low=min(found), high=max(found))

    def per_s(of: Callable[[Summary], float]) -> Estimate:
        return estimate(lambda run: of(run) / run.seconds if run.seconds else 0.0)

    times = tuple(
        Percentiles(name=name, **{key: estimate(_at(name, at)) for at, key in enumerate(("mean", "p50", "p90", "p95", "p99"))})
        for name in FIGURES
    )
    verdicts = tuple(
        Verdict(
            limit=limit, found=estimate(_limited(at)), met=expected.limited[at] <= limit.seconds and not fleet.unanswered,
            sure=max(run.limited[at] for run in runs) <= limit.seconds,
        )
        for at, limit in enumerate(limits)
    )  # fmt: skip
    caches = [replica.prefix_cache for replica in fleet.replicas if replica.prefix_cache is not None]
    looked_up = sum(cache.looked_up_tokens for cache in caches)
    price = predictor.problem.cluster.device.price_usd_per_hour
    outputs_per_s = per_s(lambda run: run.output_tokens)
    usd = price * plan.world / 3600 / outputs_per_s.value * 1e6 if price is not None and outputs_per_s.value else None
    return Simulation(
        plan=plan, load=offered.words, requests=expected.requests, seconds=expected.seconds, times=times,
        requests_per_s=per_s(lambda run: run.requests), output_tokens_per_s=outputs_per_s,
        total_tokens_per_s=per_s(lambda run: run.total_tokens),
        goodput=estimate(lambda run: run.kept / run.requests if run.requests else 0.0), goodput_per_s=per_s(lambda run: run.kept),
        verdicts=verdicts, running=expected.running, moments=tuple(fleet.moments),
        preemptions=sum(replica.preemptions for replica in fleet.replicas),
        rejected=sum(replica.rejected for replica in fleet.replicas), unanswered=fleet.unanswered,
        hit_share=sum(cache.hit_tokens for cache in caches) / looked_up if looked_up else 0.0, overloaded=fleet.overloaded,
        usd_per_million_tokens=usd, calibration=predictor.calibration.name,
    )  # fmt: skip


def _at(name: str, place: int) -> Callable[[Summary], float]:
    return lambda run: run.times[name][place]


def _limited(place: int) -> Callable[[Summary], float]:
    return lambda run: run.limited[place]
