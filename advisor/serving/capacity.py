"""What bounds a replica, and how many sequences of a workload fit into it."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What bounds a replica: sequences at once, cache tokens, tokens a step."""

    max_sequences: int
    kv_tokens: float
    token_budget: float


# Relative variance of the lengths of a steady load: uniform from half to one and a half of the mean (`load.py`).
STEADY_VARIANCE = 1 / 12


def mean_context(workload: Workload) -> float:
    """Cached tokens of a decoding sequence, averaged over its output: n + (1 + c) d / 2, c the relative variance of d.

    A long answer decodes for longer, so that of the sequences seen at one moment more are long.
    """
    return workload.input_tokens + (1 + STEADY_VARIANCE) * workload.output_tokens / 2


def sequences_at_once(workload: Workload, capacity: Capacity, *, reserve: bool) -> float:
    """Sequences the cache holds at once: whole ones where the output is reserved, ones at mean length where it is not."""
    held = workload.input_tokens + (1 + STEADY_VARIANCE) * workload.output_tokens if reserve else mean_context(workload)
    return max(1.0, min(float(capacity.max_sequences), capacity.kv_tokens / held))
