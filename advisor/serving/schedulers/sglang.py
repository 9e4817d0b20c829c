"""SGLang: prefill batches before decode batches, a forecast of the outputs' memory, retraction of the shortest output.

Source: sglang 0.5.23, srt/managers/scheduler.py (`get_next_batch_to_run`, `update_running_batch`), schedule_policy.py
(`PrefillAdder`), new_token_ratio_tracker.py, schedule_batch.py (`retract_decode`). Left out: the other order of admission that
`ignore_eos` takes when the radix cache is off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.specs.engine import Scheduler

if TYPE_CHECKING:
    from advisor.serving.sequence import Sequence
    from advisor.serving.simulator import Chunks, Simulator

FIRST_RATIO = 0.7  # new_token_ratio_tracker.py: the share of the outputs to come that an admission counts at first
LOWEST_SHARE = 0.14  # of the first ratio, where its fall ends
FALLING_STEPS = 600  # decode steps of that fall
AFTER_RETRACTION_STEPS = 20  # SGLANG_RETRACT_DECODE_STEPS
CLIP_NEW_TOKENS = 4096  # CLIP_MAX_NEW_TOKENS
MANY_RANKS = 0.3  # dp-attention multiplies the conservativeness


class SglangRules:
    """Rules of one replica: `budget` prompt tokens a prefill batch, at most `most` sequences."""

    grows = True

    def __init__(self, scheduler: Scheduler, *, budget: int, most: int, ranks: int) -> None:
        self._chunked, self._most = scheduler.chunked_prefill, most
        self._budget = min(budget, scheduler.max_prefill_tokens * ranks) if scheduler.max_prefill_tokens else budget
        self._first = min(1.0, FIRST_RATIO * (MANY_RANKS if ranks > 1 else 1.0))
        self.ratio = self._first
        self._full = False  # until a request leaves

    def schedule(self, simulator: Simulator) -> tuple[bool, Chunks]:
        """A prefill batch where one can be made, and the decodes wait for it; else one decode step."""
        chunks: Chunks = []
        budget = self._budget
        for sequence in simulator.prefilling:  # at most one: the prompt that the last batch cut
            new = min(sequence.left, budget)
            simulator.give(sequence, sequence.done + new)
            chunks.append((sequence, new))
            budget -= new
        if not self._full:
            self._admit(simulator, chunks, budget)
        if chunks:
            return False, chunks
        self._retract(simulator)
        return True, chunks

    def decoded(self, steps: int) -> None:
        """The share of the outputs that is expected falls."""
        lowest = LOWEST_SHARE * self._first
        self.ratio = max(lowest, self.ratio - steps * (self._first - lowest) / FALLING_STEPS)

    def left(self) -> None:
        """A request has left: prefill batches are tried again."""
        self._full = False

    def _admit(self, simulator: Simulator, chunks: Chunks, budget: int) -> None:
        """First come first served, while prompt and output to come fit beside what the running are expected to write."""
        page = simulator.page_tokens
        if not simulator.waiting or budget <= 0:
            return
        remaining = simulator.free_blocks * page - self.ratio * _owed(simulator)
        while simulator.waiting and budget > 0:
            head = simulator.waiting[0]
            simulator.look_up(head)
            to_come = min(head.request.output_tokens - head.generated, CLIP_NEW_TOKENS)
            fits = head.left + to_come + page < remaining or not simulator.running
            if simulator.running >= self._most or not fits:
                self._full = True
                break
            new = head.left
            if new > budget:
                if not self._chunked and chunks:
                    break
                new = min(new, max(page, budget // page * page)) if self._chunked else new
            whole = new == head.left
            chunks.append((simulator.admit(head.done + new), new))
            budget -= simulator.blocks_of(new) * page
            remaining -= new + (to_come if whole else 0)

    def _retract(self, simulator: Simulator) -> None:
        """Put back those with the fewest output tokens, of them the longest prompt first, until a step fits; one always stays."""
        retracted = 0
        while simulator.blocks_next > simulator.free_blocks and len(simulator.alive) > 1:

            def least(sequence: Sequence) -> tuple[int, int]:
                return simulator.generated(sequence), -sequence.request.input_tokens

            simulator.waiting.append(simulator.preempt(min(simulator.alive, key=least)))
            retracted += 1
        if retracted:
            produced = sum(simulator.generated(s) for s in simulator.alive)
            in_all = sum(s.request.output_tokens for s in simulator.alive)
            self.ratio = min(1.0, (produced + AFTER_RETRACTION_STEPS * len(simulator.alive)) / (in_all + 1))
            self._full = False


def _owed(simulator: Simulator) -> float:
    """Output tokens to come of the running sequences, at most `CLIP_NEW_TOKENS` of each."""
    step = simulator.decode_steps
    return sum(min(s.last_step - step, CLIP_NEW_TOKENS) for s in simulator.alive)
