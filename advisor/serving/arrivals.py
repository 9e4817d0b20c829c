"""Requests that nobody recorded: arrivals and lengths drawn with a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from advisor.specs.arrivals import Arrivals
from advisor.specs.lengths import Lengths
from advisor.specs.trace import Request


def drawn_requests(arrivals: Arrivals, inputs: Lengths, outputs: Lengths, *, cached_tokens: int = 0) -> Iterator[Request]:
    """Requests one after the other.

    Gaps: exponential (poisson); gamma of shape k = `burstiness`, so that their coefficient of variation is 1 / sqrt(k); equal
    (constant); none (burst). As `vllm bench serve --request-rate --burstiness` draws them.
    """
    gaps, lengths, at_s = random.Random(arrivals.seed), random.Random(arrivals.seed + 1), 0.0
    gap = _gap(arrivals, gaps)
    for _ in range(arrivals.requests):
        own = inputs.draw(lengths)
        yield Request(
            arrival_s=at_s, input_tokens=max(own, cached_tokens + 1), output_tokens=outputs.draw(lengths),
            cached_tokens=cached_tokens,
        )  # fmt: skip
        at_s += gap()


def _gap(arrivals: Arrivals, draw: random.Random) -> Callable[[], float]:
    rate_per_s, shape = arrivals.rate_per_s, arrivals.burstiness
    if arrivals.kind == "burst":
        return lambda: 0.0
    if arrivals.kind == "constant":
        return lambda: 1 / rate_per_s
    if arrivals.kind == "gamma":
        return lambda: draw.gammavariate(shape, 1 / (rate_per_s * shape))
    return lambda: draw.expovariate(rate_per_s)
