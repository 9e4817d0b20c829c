"""What a simulation of a load answers."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.specs.limit import Limit
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """A time over all requests, in seconds: mean and percentiles (linear between requests), each with its interval."""

    name: str
    mean: Estimate
    p50: Estimate
    p90: Estimate
    p95: Estimate
    p99: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How many requests run and wait at a time, over all replicas."""

    at_s: float
    running: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A limit and what was found: whether the expected run keeps it, and whether the slow run does too."""

    limit: Limit
    found: Estimate
    met: bool
    sure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A load served by a plan. Rates are of the whole deployment over the time from the first request to the last token.

    Intervals are those of a run whose steps are all slower, and one whose steps are all faster, by the error of the step model.
    `goodput` is the share of requests that keep every limit, `goodput_per_s` how many do each second.
    """

    plan: Plan
    load: str
    requests: int
    seconds: float
    times: tuple[Percentiles, ...]
    requests_per_s: Estimate
    output_tokens_per_s: Estimate
    total_tokens_per_s: Estimate
    goodput: Estimate
    goodput_per_s: Estimate
    verdicts: tuple[Verdict, ...]
    running: float
    moments: tuple[Moment, ...]
    preemptions: int
    rejected: int
    unanswered: int
    hit_share: float
    overloaded: bool
    usd_per_million_tokens: float | None
    calibration: str
    notes: tuple[str, ...] = ()
