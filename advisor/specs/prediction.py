"""What the roofline answers about one plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from advisor.specs.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 90% interval; `independent` is the part of its log standard deviation not shared with other plans."""

    value: float
    low: float
    high: float
    independent: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A named part of a time or of memory, in seconds or bytes (its owner says which)."""

    name: str
    amount: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """One forward step of the slowest stage, in seconds, and where it goes (parts add up to `total_s`)."""

    total_s: float
    parts: tuple[Share, ...]
    flop: float
    hbm_bytes: float
    wire_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Memory of the fullest rank, in bytes. `kv_tokens` is the capacity of one replica; `shortfall_bytes` > 0: it does not fit."""

    device_bytes: float
    weights_bytes: float
    activations_bytes: float
    other_bytes: float
    kv_bytes: float
    reserved_bytes: float
    kv_bytes_per_token: float
    kv_tokens: int
    shortfall_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One plan under the workload. Rates are of the whole deployment; `sequences` in flight likewise.

    `max_sequences` is how many sequences of the workload's length the cache of the deployment holds at once.
    `within_limits` says whether the workload's limits are met; `load_within_limits` how many users, or requests/s where a rate
    was asked for, the plan carries within them (None: not looked at). `overloaded`: requests arrive faster than they are answered.
    `calibration` names what the times rest on.
    """

    plan: Plan
    ttft_s: Estimate
    tpot_s: Estimate
    latency_s: Estimate
    decode_tokens_per_s: Estimate
    output_tokens_per_s: Estimate
    total_tokens_per_s: Estimate
    requests_per_s: Estimate
    sequences: float
    kv_tokens: int
    max_sequences: int
    memory: RankMemory
    decode: StepTime
    prefill: StepTime
    bottleneck: str
    within_limits: bool
    usd_per_million_tokens: float | None
    calibration: str
    load_within_limits: float | None = None
    overloaded: bool = False
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A plan that cannot run, and why in one phrase. `short_bytes` is by how much it misses memory (0: another reason)."""

    plan: Plan
    reason: str
    short_bytes: float = 0.0
