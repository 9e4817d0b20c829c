"""What a client sends, and what is recorded about each answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: when it is sent, and its lengths in tokens, of which the first `cached_tokens` need not be computed."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One answered request. Times are seconds since the start of the run.

    `admitted_s` is when its first prompt token was scheduled, `first_s` when its first output token was sent, `end_s` the last.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    admitted_s: float
    first_s: float
    end_s: float
    preemptions: int

    @property
    def queue_s(self) -> float:
        """From sending until its prompt is first scheduled."""
        return self.admitted_s - self.arrival_s

    @property
    def ttft_s(self) -> float:
        """From sending to the first token."""
        return self.first_s - self.arrival_s

    @property
    def latency_s(self) -> float:
        """From sending to the last token."""
        return self.end_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """(latency - TTFT) / (output tokens - 1), as vLLM's and aiperf's clients count it; None for a single token."""
        return (self.end_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else None
