"""llama.cpp's server: a fixed number of slots, each with room for a whole sequence; decodes first, then prompts by slot.

Source: llama.cpp tools/server/server-context.cpp (`update_slots`): sampled tokens of the running slots enter the batch first, then
prompts until it holds n_batch tokens. Engines without a scheduler of their own (gpt-fast, this project's runner) are a
single set of slots whose prompts run alone (`mixed_steps` False).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.specs.engine import Scheduler

if TYPE_CHECKING:
    from advisor.serving.simulator import Chunks, Simulator


class SlotRules:
    """Rules of one replica: `most` slots, `budget` tokens a batch."""

    grows = False

    def __init__(self, scheduler: Scheduler, *, budget: int, most: int, ranks: int) -> None:
        self._rules, self._budget, self._most = scheduler, budget, most

    def schedule(self, simulator: Simulator) -> tuple[bool, Chunks]:
        """A free slot takes the next request; prompts share the batch with the decodes, or run before them."""
        while simulator.waiting and simulator.running < self._most:
            final = simulator.waiting[0].final
            if simulator.blocks_of(final) > simulator.free_blocks:
                break
            simulator.admit(final)
        mixed = self._rules.mixed_steps
        budget = self._budget - (simulator.verified if mixed else 0)
        chunks: Chunks = []
        for sequence in simulator.prefilling:
            new = min(sequence.left, budget) if self._rules.chunked_prefill else sequence.left
            if new <= 0 or (new > budget and chunks):
                break
            chunks.append((sequence, new))
            budget -= new
        return mixed or not chunks, chunks

    def decoded(self, steps: int) -> None:
        """Nothing is counted."""

    def left(self) -> None:
        """Nothing is counted."""
