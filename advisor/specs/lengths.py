"""Lengths of prompts or answers: one number, a lognormal distribution, or a histogram."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

Z_P90 = 1.2816  # of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens with the weight of each; `sigma` > 0: lognormal with the first of them as median."""

    tokens: tuple[float, ...]
    weights: tuple[float, ...] = (1.0,)
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not self.tokens or len(self.tokens) != len(self.weights):
            raise ValueError("each length has a weight")
        if not all(1 <= tokens < 1e8 for tokens in self.tokens) or not all(weight > 0 for weight in self.weights):
            raise ValueError("lengths are at least 1 token and weights above 0")

    @property
    def mean(self) -> float:
        """Tokens on average."""
        total = sum(self.weights)
        return sum(t * w for t, w in zip(self.tokens, self.weights, strict=True)) / total * math.exp(self.sigma**2 / 2)

    def draw(self, random_: random.Random) -> int:
        """One length."""
        if self.sigma:
            return max(1, round(random_.lognormvariate(math.log(self.tokens[0]), self.sigma)))
        if len(self.tokens) == 1:
            return round(self.tokens[0])
        edges = list(accumulate(self.weights))
        return round(self.tokens[bisect_left(edges, random_.random() * edges[-1])])


def fixed(tokens: float) -> Lengths:
    """All alike."""
    return Lengths(tokens=(tokens,))


def lognormal(mean: float, p90: float) -> Lengths:
    """The lognormal distribution with this mean and 90th percentile.

    ln(p90 / mean) = z s - s^2 / 2 with z = 1.2816; of the two solutions the narrower. Raises ValueError where there is none: p90
    is then above 2.27 times the mean, or not above it.
    """
    ratio = math.log(p90 / mean) if 0 < mean < p90 else 0.0
    under = Z_P90**2 - 2 * ratio
    if not ratio or under < 0:
        raise ValueError(f"no lognormal distribution has the mean {mean:g} and the 90th percentile {p90:g}")
    sigma = Z_P90 - math.sqrt(under)
    return Lengths(tokens=(mean * math.exp(-(sigma**2) / 2),), sigma=sigma)
