"""A decode worker of a deployment of pools: prompts come with their cache, so that a step carries decodes alone.

Source: sglang 0.5.23, srt/disaggregation/decode.py (a request is taken when its tokens and `RESERVED_TOKENS` for every decoding
sequence are free); engines that reserve the whole output do so here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.specs.engine import Scheduler

if TYPE_CHECKING:
    from advisor.serving.simulator import Chunks, Simulator

RESERVED_TOKENS = 512  # SGLang's num_reserved_decode_tokens


class DecodePoolRules:
    """Rules of one worker: at most `most` sequences."""

    def __init__(self, scheduler: Scheduler, *, most: int) -> None:
        self.grows = not scheduler.reserves_output
        self._most = most

    def schedule(self, simulator: Simulator) -> tuple[bool, Chunks]:
        """First come first served, as long as there is room; the youngest makes room where the others need it."""
        while self.grows and simulator.blocks_next > simulator.free_blocks and len(simulator.alive) > 1:
            simulator.waiting.appendleft(simulator.preempt(next(reversed(simulator.alive))))
        reserved = simulator.blocks_of(RESERVED_TOKENS) if self.grows else 0
        while simulator.waiting and len(simulator.alive) < self._most:
            head = simulator.waiting[0]
            tokens = head.known if self.grows else head.final
            if simulator.alive and simulator.blocks_of(tokens) + reserved * len(simulator.alive) > simulator.free_blocks:
                break
            simulator.join(tokens)
        return True, []

    def decoded(self, steps: int) -> None:
        """Nothing is counted."""

    def left(self) -> None:
        """Nothing is counted."""
