"""A request inside the engine: tokens still to compute, cache blocks it owns, tokens generated so far."""

from __future__ import annotations

import math

from advisor.serving.request import Record, Request


class Sequence:
    """A request inside the engine.

    While it prefills, `done` of its `known` tokens are in the cache. While it decodes it gets one token a step, and only the step
    at which it began (`began_step`, with `generated` tokens then) is kept: the simulator takes many equal steps at once.
    """

    __slots__ = ("admitted_s", "began_step", "blocks", "done", "first_s", "generated", "last_step", "preemptions", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.done = request.cached_tokens  # of the known tokens, those in the cache
        self.generated = 0
        self.blocks = 0  # owned while it prefills, or for good where the output is reserved
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

    def record(self, end_s: float) -> Record:
        """What is kept of it when its last token is sent."""
        return Record(
            arrival_s=self.request.arrival_s, input_tokens=self.request.input_tokens, output_tokens=self.request.output_tokens,
            admitted_s=self.admitted_s, first_s=self.first_s, end_s=end_s, preemptions=self.preemptions,
        )  # fmt: skip
