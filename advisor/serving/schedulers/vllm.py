"""vLLM: running requests first, prompts in chunks of the budget that is left, preemption of the youngest.

Source: vllm 0.33.0, v1/core/sched/scheduler.py (`schedule`, `_preempt_request`) and v1/core/kv_cache_manager.py (`allocate_slots`).
The engine before v1 (`mixed_steps` False) runs a prefill step alone whenever a prompt fits: vllm 0.6, core/scheduler.py
(`_schedule_default`, watermark 0.01).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.specs.engine import Scheduler

if TYPE_CHECKING:
    from advisor.serving.simulator import Chunks, Simulator


class VllmRules:
    """Rules of one replica: `budget` tokens a step, at most `most` sequences."""

    grows = True

    def __init__(self, scheduler: Scheduler, *, budget: int, most: int, ranks: int) -> None:
        self._rules, self._budget, self._most = scheduler, budget, most

    def schedule(self, simulator: Simulator) -> tuple[bool, Chunks]:
        """Decodes and started prompts first; new prompts only in a step that preempted nobody."""
        if not self._rules.mixed_steps:
            chunks: Chunks = []
            self._admit(simulator, chunks, self._budget, kept=0)
            if chunks:
                return False, chunks
        preempted = _make_room(simulator)
        budget = self._budget - simulator.verified
        chunks, cut_off = self._continue(simulator, budget)
        if self._rules.mixed_steps and not preempted and not cut_off:
            budget -= sum(new for _, new in chunks)
            self._admit(simulator, chunks, budget, kept=simulator.blocks_next)
        return True, chunks

    def decoded(self, steps: int) -> None:
        """Nothing is counted."""

    def left(self) -> None:
        """Nothing is counted."""

    def _continue(self, simulator: Simulator, budget: int) -> tuple[Chunks, bool]:
        """The prompts already begun, in order; one whose next blocks are not free preempts itself, as the youngest."""
        chunks: Chunks = []
        kept = simulator.blocks_next
        for sequence in list(simulator.prefilling):
            new = min(sequence.left, budget)
            if new <= 0:
                break
            need = simulator.blocks_of(sequence.done + new) - sequence.blocks - sequence.shared_blocks
            if need > simulator.free_blocks - kept:
                for youngest in reversed(simulator.prefilling[simulator.prefilling.index(sequence) :]):
                    simulator.waiting.appendleft(simulator.preempt(youngest))
                return chunks, True
            simulator.give(sequence, sequence.done + new)
            chunks.append((sequence, new))
            budget -= new
        return chunks, False

    def _admit(self, simulator: Simulator, chunks: Chunks, budget: int, *, kept: int) -> None:
        """First come first served; the first prompt that does not fit holds up all behind it.

        `reserve_prompt`: blocks for the whole known sequence must be free, though only those of the chunk are taken.
        """
        watermark = self._rules.watermark * simulator.total_blocks if simulator.running else 0.0
        while simulator.waiting and budget > 0 and simulator.running < self._most:
            head = simulator.waiting[0]
            simulator.look_up(head)
            if not self._rules.chunked_prefill and head.left > budget and chunks:
                break
            new = min(head.left, budget) if self._rules.chunked_prefill else head.left
            tokens = head.done + new
            must_be_free = simulator.blocks_for(head, head.known if self._rules.reserve_prompt else tokens)
            if must_be_free > simulator.free_blocks - kept - watermark:
                break
            chunks.append((simulator.admit(tokens), new))
            budget -= new


def _make_room(simulator: Simulator) -> bool:
    """Preempt the youngest until the next token of the others fits; whether anybody was."""
    preempted = False
    while simulator.blocks_next > simulator.free_blocks and simulator.running > 1:
        youngest = simulator.prefilling[-1] if simulator.prefilling else next(reversed(simulator.alive))
        simulator.waiting.appendleft(simulator.preempt(youngest))
        preempted = True
    return preempted
