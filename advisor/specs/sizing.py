"""What a service needs: how many GPUs of each type for a load within its limits."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.specs.limit import Limit
from advisor.specs.plan import Plan
from advisor.specs.simulation import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The fewest GPUs of a type: `plan.dp` replicas, each carries `share` of the load within the limits.

    `found` are the limits as this size keeps them, `smaller` as one replica fewer does, and which of them it misses; empty where
    there is no smaller. Times are those of steps as slow as the confidence asks for. `by_hour` are replicas of each hour of a long
    trace.
    """

    gpu: str
    plan: Plan
    share: float
    found: tuple[Verdict, ...]
    smaller: tuple[Verdict, ...]
    usd_per_hour: float | None
    usd_per_million_tokens: float | None
    by_hour: tuple[int, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.plan.world

    def gpus_at(self, scale: float) -> int:
        """GPUs for so many times the load."""
        replicas = max(1, -int(-scale / self.share // 1))
        return replicas * self.plan.replica_gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """The sizes of the GPU types that were asked about, the best first, and why a type has none."""

    load: str
    requests_per_s: float
    limits: tuple[Limit, ...]
    confidence: float
    sizes: tuple[Size, ...]
    none: tuple[tuple[str, str], ...] = ()
