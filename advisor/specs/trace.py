"""What clients send: one request, and a trace of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: when it is sent, and its lengths in tokens.

    `cached_tokens` of the prompt need not be computed, whatever ran before. `prefix` is the part of the prompt that other requests
    may have too, as (identity, tokens) one after the other: a prefix cache finds as much of it as it still holds.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    prefix: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Requests in order of time, of the file `name`; `skipped` lines of it could not be read, the first for `reason`."""

    name: str
    requests: Sequence[Request]
    skipped: int = 0
    reason: str = ""

    @property
    def seconds(self) -> float:
        """From the first request to the last."""
        return self.requests[-1].arrival_s - self.requests[0].arrival_s if self.requests else 0.0
