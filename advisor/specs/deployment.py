"""Prefill and decode apart: a pool of workers for each, joined by the transfer of the KV cache."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, RankMemory

_POOLS = re.compile(r"\s*prefill\s*:(?P<prefill>[^;:]*);\s*decode\s*:(?P<decode>[^;:]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The plans of both pools; a plan's dp is the number of workers of its pool."""

    prefill: Plan
    decode: Plan

    @property
    def world(self) -> int:
        """GPUs of both pools."""
        return self.prefill.world + self.decode.world

    @property
    def label(self) -> str:
        """As people write it: `prefill: tp=4,pp=1,dp=2; decode: tp=8,pp=1,dp=1`."""
        return f"prefill: {self.prefill.label}; decode: {self.decode.label}"

    @classmethod
    def parse(cls, text: str) -> Deployment:
        """The deployment of `prefill: tp=4,dp=4; decode: adp=8,ep=8`. Raises ValueError with a sentence."""
        match = _POOLS.fullmatch(text)
        if not match:
            raise ValueError(f"cannot read {text[:80]!r} as two pools: write 'prefill: tp=4,dp=4; decode: adp=8,ep=8'")
        return cls(prefill=Plan.parse(match["prefill"]), decode=Plan.parse(match["decode"]))


def names_pools(text: str) -> bool:
    """Whether a plan in words speaks of pools rather than of one kind of replica."""
    return ":" in text or ";" in text


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPrediction:
    """A deployment of pools under the workload. Rates are of the whole deployment.

    `transfer_s` is how long the cache of a prompt travels. `prefill_carries_per_s` and `decode_carries_per_s` are the requests/s
    that each pool would carry alone, `prefill_busy` and `decode_busy` the shares of them that are used. `running` counts decoding
    sequences of one decode worker, `waiting` the requests that have no place yet; `kv_tokens` is the cache of the decode
    pool, which holds `max_sequences` of the workload's length.
    """

    deployment: Deployment
    ttft_s: Estimate
    tpot_s: Estimate
    latency_s: Estimate
    requests_per_s: Estimate
    output_tokens_per_s: Estimate
    total_tokens_per_s: Estimate
    transfer_s: float
    prefill_busy: float
    decode_busy: float
    running: float
    waiting: float
    prefill_carries_per_s: float
    decode_carries_per_s: float
    decode_tokens_per_s: Estimate
    kv_tokens: int
    max_sequences: int
    prefill_memory: RankMemory
    decode_memory: RankMemory
    within_limits: bool
    usd_per_million_tokens: float | None
    calibration: str
    notes: tuple[str, ...] = field(default=())
