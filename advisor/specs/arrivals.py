"""How requests arrive where no trace says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ArrivalKind = Literal["poisson", "gamma", "constant", "burst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """`requests` in all: at `rate_per_s`, or of `users` who think for `think_s` on average before each further request."""

    requests: int
    kind: ArrivalKind = "poisson"
    rate_per_s: float = 0.0
    burstiness: float = 1.0
    users: int = 0
    think_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise ValueError("a load has at least one request")
        if not self.users and self.kind != "burst" and not self.rate_per_s > 0:
            raise ValueError("arrivals need a rate")
        if not self.burstiness > 0 or self.think_s < 0:
            raise ValueError("burstiness is above 0 and thinking takes no negative time")
