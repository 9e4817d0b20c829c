"""From the client to the scheduler: HTTP and tokeniser."""

from __future__ import annotations

import math

from advisor.specs.engine import Engine

GOLDEN = (math.sqrt(5) - 1) / 2


STREAM_MEMORY_S = 1.0  # over which the rate of streamed tokens is averaged; a step lasts 5 ms to 1 s


class FrontEnd:
    """The time a request takes to reach the scheduler.

    It takes `request_s` and holds up the next one for `admit_s`; both stretch while the same process streams tokens out. With
    `jitter` the time is exponential around `request_s` instead of equal for all: tasks of one event loop wait for each other, and
    clients that send in the same moment do not enter in the same step. The draws are a fixed sequence of even cover
    (-ln of the multiples of the golden ratio), so that few requests already have the right mean.
    """

    def __init__(self, engine: Engine, *, jitter: bool) -> None:
        self._host, self._jitter = engine.host, jitter
        self._free_s = 0.0
        self._tokens_per_s = 0.0
        self._sent = 0

    def stream(self, tokens_per_s: float, seconds: float) -> None:
        """Tokens were sent to clients at this rate for so long."""
        self._tokens_per_s = tokens_per_s + (self._tokens_per_s - tokens_per_s) * math.exp(-seconds / STREAM_MEMORY_S)

    def entry_s(self, sent_s: float) -> float:
        """When a request that is sent now lies before the scheduler."""
        busy = frontend_stretch(self._host.token_s, self._tokens_per_s)
        self._free_s = max(self._free_s, sent_s) + self._host.admit_s * busy
        share = 1.0
        if self._jitter:
            self._sent += 1
            share = -math.log(1.0 - self._sent * GOLDEN % 1.0)
        return max(self._free_s, sent_s + self._host.request_s * busy * share)


def frontend_stretch(token_s: float, tokens_per_s: float) -> float:
    """How much longer a request's entry takes while the front end streams tokens: 1 / (1 - utilisation), at most tenfold."""
    return 1.0 / max(0.1, 1.0 - token_s * tokens_per_s)
