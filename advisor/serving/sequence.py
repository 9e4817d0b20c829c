"""A request inside the engine: tokens still to compute, cache blocks it owns, tokens generated so far."""

from __future__ import annotations

import math

from advisor.specs.trace import Request


class Sequence:
    """A request inside the engine.

    While it prefills, `done` of its `known` tokens are in the cache. While it decodes it gets one token a step, and only the step
    at which it began (`began_step`, with `generated` tokens then) is kept: the simulator takes many equal steps at once.
    """

    __slots__ = (
        "admitted_s",
        "began_step",
        "blocks",
        "cached_tokens",
        "done",
        "first_s",
        "generated",
        "last_step",
        "preemptions",
        "prefix",
        "request",
        "shared_blocks",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.done = request.cached_tokens  # of the known tokens, those in the cache
        self.generated = 0
        self.blocks = 0  # owned while it prefills, or for good where the output is reserved
        self.shared_blocks = 0  # of its prefix, which the prefix cache owns while it runs
        self.prefix = request.prefix  # what the prefix cache may know of its tokens
        self.cached_tokens = request.cached_tokens  # of the prompt, found in the cache when it was first admitted
        self.began_step = 0
        self.last_step = -1  # of the decode that ends it; -1 while it does not decode
        self.preemptions = 0
        self.admitted_s = math.nan
        self.first_s = math.nan

    @property
    def known(self) -> int:
        """Prompt and generated tokens: what has to be in the cache before the next token; after a preemption all of it again."""
        return self.request.input_tokens + self.generated

    @property
    def left(self) -> int:
        """Tokens to compute before the next output token."""
        return self.known - self.done

    @property
    def final(self) -> int:
        """Tokens of the finished sequence."""
        return self.request.input_tokens + self.request.output_tokens
