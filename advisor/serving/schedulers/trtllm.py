"""TensorRT-LLM: first what the cache can hold, then what the step can carry; generation before context.

Source: TensorRT-LLM main of 2026-08, tensorrt_llm/_torch/pyexecutor/scheduler/scheduler.py and cpp/tensorrt_llm/batch_manager/
capacityScheduler.cpp. GUARANTEED_NO_EVICT reserves prompt and output of every running request; MAX_UTILIZATION admits by what is
needed now and pauses the request that started last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.specs.engine import Scheduler

if TYPE_CHECKING:
    from advisor.serving.sequence import Sequence
    from advisor.serving.simulator import Chunks, Simulator


class TrtllmRules:
    """Rules of one replica: `budget` tokens a step (`max_num_tokens`), at most `most` sequences (`max_batch_size`)."""

    def __init__(self, scheduler: Scheduler, *, budget: int, most: int, ranks: int) -> None:
        self._rules, self._budget, self._most = scheduler, budget, most
        self.grows = not scheduler.reserves_output

    def schedule(self, simulator: Simulator) -> tuple[bool, Chunks]:
        """Generation first, then contexts in order, as far as `max_num_tokens` reaches."""
        paused = self._pause(simulator)
        budget = self._budget - simulator.verified
        chunks: Chunks = []
        kept = simulator.blocks_next
        for sequence in simulator.prefilling:
            new = self._chunk(simulator, sequence, budget)
            if not new:
                break
            chunks.append((sequence, new))
            budget -= new
        if not paused:
            self._admit(simulator, chunks, budget, kept)
        return True, chunks

    def decoded(self, steps: int) -> None:
        """Nothing is counted."""

    def left(self) -> None:
        """Nothing is counted."""

    def _admit(self, simulator: Simulator, chunks: Chunks, budget: int, kept: int) -> None:
        """First come first served, nobody is passed over; without chunks a context that does not fit the step waits."""
        while simulator.waiting and budget > 0 and simulator.running < self._most:
            head = simulator.waiting[0]
            simulator.look_up(head)
            if not self._rules.chunked_prefill and head.left > budget and (chunks or simulator.alive):
                break
            tokens = head.final if self._rules.reserves_output else head.known
            if simulator.blocks_for(head, tokens) > simulator.free_blocks - kept:
                break
            new = self._chunk(simulator, head, budget)
            if not new:
                break
            chunks.append((simulator.admit(tokens), new))
            budget -= new

    def _chunk(self, simulator: Simulator, sequence: Sequence, budget: int) -> int:
        """Prompt tokens of this step: all that are left, or whole blocks of what the budget leaves."""
        if sequence.left <= budget or not self._rules.chunked_prefill:
            return sequence.left
        return max(0, budget) // simulator.page_tokens * simulator.page_tokens

    def _pause(self, simulator: Simulator) -> bool:
        """MAX_UTILIZATION: pause the request that started last until the next token of the others fits; whether any was."""
        paused = False
        while simulator.blocks_next > simulator.free_blocks and simulator.running > 1:
            last = simulator.prefilling[-1] if simulator.prefilling else next(reversed(simulator.alive))
            simulator.waiting.appendleft(simulator.preempt(last))
            paused = True
        return paused
