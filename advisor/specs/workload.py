"""What the deployment has to serve, and what counts as best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from advisor.specs.limit import Limit

Mode = Literal["static_batch", "single_stream", "closed_loop", "open_loop", "offline", "capacity"]
Goal = Literal["latency", "throughput", "cost"]
Start = Literal["steady", "burst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests of `input_tokens` in and `output_tokens` out (means), and how they arrive.

    `mode`: `static_batch` offers `users` sequences at once and waits for the last token; `single_stream` is one of them;
    `closed_loop` keeps `users` requests in flight over the whole deployment; `open_loop` gets `rate_per_s` Poisson
    arrivals; `offline` has everything queued at once (`users` > 0: at most so many together); `capacity` asks how much fits
    within the limits. `max_context_tokens` is the longest request that has to be answered, prompt and answer together (0: not
    asked, the deployment takes what costs little). `prefix_cached_tokens` of the input are found in the prefix cache.
    `length_spread` is the lowest drawn length as a share of the nominal one (1.0: all equal; lengths are uniform between).

    `start` "steady" asks for the long run: users whose requests have drifted apart, arrivals without end. "burst" asks for one run
    of a load generator: `requests` in all, from the first, when all users start at once, to the last token. Limits are per
    request means, in seconds; with `capacity` they are to be kept with the chance `confidence`. `limits` are those on percentiles
    and on whole requests, which only a simulation can judge.
    """

    input_tokens: float
    output_tokens: float
    mode: Mode = "capacity"
    users: int = 0
    rate_per_s: float = 0.0
    prefix_cached_tokens: float = 0.0
    max_context_tokens: int = 0
    length_spread: float = 1.0
    start: Start = "steady"
    requests: int = 0
    ttft_limit_s: float | None = None
    tpot_limit_s: float | None = None
    confidence: float = 0.5
    limits: tuple[Limit, ...] = ()
    goal: Goal = "throughput"
    preset: str = ""

    def __post_init__(self) -> None:
        if not (self.input_tokens > 0 and self.output_tokens > 0):
            raise ValueError("input and output tokens are positive")
        if not 0 <= self.prefix_cached_tokens < self.input_tokens:
            raise ValueError("the cached prefix is shorter than the input")
        if self.mode in ("static_batch", "single_stream", "closed_loop") and self.users < 1:
            raise ValueError(f"{self.mode} needs users")
        if self.mode == "open_loop" and not self.rate_per_s > 0:
            raise ValueError("open_loop needs a rate")
        if (self.start == "burst") != (self.requests > 0):
            raise ValueError("a burst needs the number of requests, a steady load has none")
        if not 0.5 <= self.confidence < 1:
            raise ValueError("confidence is from 0.5 to below 1")
        if not 0 < self.length_spread <= 1:
            raise ValueError("length_spread is in (0, 1]")

    @property
    def context_tokens(self) -> float:
        """Tokens of a finished sequence."""
        return self.input_tokens + self.output_tokens
