"""Prefill and decode apart: a pool of workers for each, joined by the transfer of the KV cache."""

from __future__ import annotations

import re
from dataclasses import dataclass

from advisor.specs.plan import Plan

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
