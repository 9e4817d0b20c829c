"""A workload as requests: one run of a load generator, or a long run of users whose requests have drifted apart."""

from __future__ import annotations

import random
from collections.abc import Iterator

from advisor.specs.trace import Request
from advisor.specs.workload import Workload

SEED = 0
# A steady load is that of many users with lengths of their own. Lengths uniform from half to one and a half of the mean are wide
# enough that no group of requests stays in step, and keep the mean.
STEADY_LOW, STEADY_HIGH = 0.5, 1.5


def burst_requests(workload: Workload, count: int) -> Iterator[Request]:
    """The requests of one benchmark run: Poisson arrivals where it has a rate, else all ready at once."""
    at_s, gap = 0.0, random.Random(SEED)
    for inputs, outputs in _drawn(workload, count, workload.length_spread, 1.0):
        yield _request(workload, at_s, inputs, outputs)
        at_s += gap.expovariate(workload.rate_per_s) if workload.mode == "open_loop" else 0.0


def steady_requests(workload: Workload, count: int, rate_per_s: float) -> Iterator[Request]:
    """Poisson arrivals of requests of different lengths."""
    at_s, gap = 0.0, random.Random(SEED)
    for inputs, outputs in _drawn(workload, count, STEADY_LOW, STEADY_HIGH):
        at_s += gap.expovariate(rate_per_s)
        yield _request(workload, at_s, inputs, outputs)


def _request(workload: Workload, at_s: float, inputs: float, outputs: float) -> Request:
    """A request with its lengths as shares of the nominal ones; what is cached of the prompt stays as long as it is."""
    cached = round(workload.prefix_cached_tokens)
    own = max(1, round((workload.input_tokens - workload.prefix_cached_tokens) * inputs))
    return Request(
        arrival_s=at_s,
        input_tokens=cached + own,
        output_tokens=max(1, round(workload.output_tokens * outputs)),
        cached_tokens=cached,
    )


def _drawn(workload: Workload, count: int, low: float, high: float) -> Iterator[tuple[float, float]]:
    """Shares uniform from `low` to `high`, each part of the range drawn equally often, shuffled with a fixed seed."""
    if low == high:
        yield from ((low, low) for _ in range(count))
        return
    draw = random.Random(SEED)
    shares = [low + (high - low) * (i + 0.5) / count for i in range(count)]
    inputs, outputs = shares[:], shares[:]
    draw.shuffle(inputs)
    draw.shuffle(outputs)
    yield from zip(inputs, outputs, strict=True)
