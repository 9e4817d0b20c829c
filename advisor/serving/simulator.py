"""Continuous batching of one replica step by step, deterministic, with runs of equal steps taken at once.

It carries what a formula cannot: the first burst, waves when the cache is full, admission, preemption, arrivals that bunch.
What a step carries is the engine's own rule (`schedulers`); how long it takes is the step model's.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from advisor.roofline.step import StepModel
from advisor.serving.capacity import Capacity
from advisor.serving.front_end import FrontEnd
from advisor.serving.prefix_cache import PrefixCache
from advisor.serving.record import Gaps, Records
from advisor.serving.scaled import Scaled
from advisor.serving.sequence import Sequence
from advisor.specs.trace import Request

UNLIMITED = 1e15  # cache tokens of a model whose state does not grow
Chunks = list[tuple[Sequence, int]]
FollowUp = Callable[[float], Request | None]


class Rules(Protocol):
    """The scheduler of an engine family: what each step carries."""

    grows: bool  # a decoding sequence takes cache blocks as it needs them; False: it owns all of them from the start

    def schedule(self, simulator: Simulator) -> tuple[bool, Chunks]:
        """Whether the decoding sequences take part in the next step, and the prompt tokens that do.

        It admits and preempts through the simulator, and leaves free blocks for what it returns.
        """

    def decoded(self, steps: int) -> None:
        """So many decode steps have passed."""

    def left(self) -> None:
        """A sequence has ended."""


class Simulator:
    """One replica serving requests: `send` what comes, `advance` in time; or `run` to the end."""

    def __init__(self, model: StepModel | Scaled, capacity: Capacity, rules: Rules, *, jitter: bool = False) -> None:
        self.model, self.capacity, self.rules = model, capacity, rules
        self.page_tokens = model.engine.page_tokens
        self.total_blocks = math.floor(min(capacity.kv_tokens, UNLIMITED) / self.page_tokens)
        self.free_blocks = self.total_blocks
        self.waiting: deque[Sequence] = deque()
        self.prefilling: list[Sequence] = []
        self.alive: dict[Sequence, None] = {}  # decoding, in order of admission
        self.prefix_cache = PrefixCache(self.page_tokens) if model.engine.scheduler.prefix_cache else None
        self.records, self.gaps = Records(), Gaps()
        self.answered: Callable[[float], None] | None = None  # told when an answer ends
        self.rejected = self.preemptions = self.sent = 0
        self.now_s = self.busy_s = 0.0  # busy_s: sequence-seconds of decoding
        self.decode_steps = 0
        self._front_end = FrontEnd(model.engine, jitter=jitter)
        self._entering: list[tuple[float, int, Sequence]] = []  # the order is negative for those that lie before the scheduler
        self._ending: list[tuple[int, int, Sequence]] = []  # heap by the step of the last token; preempted ones stay behind, stale
        self._phases = [0] * self.page_tokens  # decoding sequences by the step at which they need their next block
        self._context = 0  # tokens of all decoding sequences
        self._part_token = 0.0  # what verify steps have yielded beyond whole tokens
        self._order = 0
        self._run_steps = 0  # equal decode steps that are planned from now on, and the seconds of each
        self._run_step_s = 0.0
        self._decoded_s = 0.0  # when the last decode step ended
        self._ahead_s = 0.0  # length of the steps that a scheduler plans ahead
        self._unseen_steps = model.engine.host.wait_steps + (model.engine.polling_steps - 1) / 2
        self._decode_steps_s: dict[tuple[int, int], float] = {}

    def run(self, arrivals: Iterable[Request], *, follow_up: FollowUp | None = None) -> None:
        """Serve `arrivals` (in order of time) to the end. `follow_up` closes the loop: what the client of an answer sends next."""

        def answered(now_s: float) -> None:
            following = follow_up(now_s) if follow_up else None
            if following is not None:
                self.send(following)

        self.answered = answered
        for request in arrivals:
            self.advance(request.arrival_s)
            self.send(request)
        self.advance(math.inf)

    def advance(self, until_s: float) -> None:
        """Everything that begins before a time. A step in progress is not cut short."""
        while (at_s := self.next_s) < until_s:
            self.step(at_s)

    @property
    def outstanding(self) -> int:
        """Requests sent and not answered."""
        return self.sent - self.rejected - len(self.records)

    @property
    def running(self) -> int:
        """Sequences that were admitted."""
        return len(self.alive) + len(self.prefilling)

    @property
    def next_s(self) -> float:
        """When the next thing happens: a step begins, or a run of equal steps ends."""
        if self._run_steps:
            return self.now_s + self._steps_left() * self._run_step_s
        if self.alive or self.prefilling or self.waiting:
            return self.now_s
        return max(self.now_s, self._entering[0][0]) if self._entering else math.inf

    def send(self, request: Request) -> None:
        """A request on its way to the scheduler; one that the empty cache cannot hold is rejected."""
        self.sent += 1
        if self.blocks_of(request.input_tokens + request.output_tokens) > self.total_blocks:
            self.rejected += 1
            return
        self._order += 1
        heapq.heappush(self._entering, (self._front_end.entry_s(request.arrival_s), self._order, Sequence(request)))

    def step(self, at_s: float) -> None:
        """What happens at `next_s`: a run of equal steps ends, and the next step or run of steps begins."""
        if self._run_steps:
            self._decode(self._steps_left())
        self.now_s = max(self.now_s, at_s)
        self._look()
        if not (self.alive or self.prefilling or self.waiting):
            return
        decodes, chunks = self.rules.schedule(self)
        if chunks:
            self._mixed(decodes, chunks)
        elif self.alive:
            self._plan()
        else:  # the engine never admits the head of the queue
            self.waiting.popleft()
            self.rejected += 1

    def _look(self) -> None:
        """New requests join the queue. A scheduler that runs ahead of the GPU or polls sees one some steps after it came.

        SGLang does not run ahead of a prefill batch (`mixed_steps` False): there the delay is of decode steps only.
        """
        while self._entering and self._entering[0][0] <= self.now_s + 1e-12:
            at_s, order, sequence = heapq.heappop(self._entering)
            if self._unseen_steps and order > 0 and (self.alive or self.prefilling):
                heapq.heappush(self._entering, (at_s + self._unseen_steps * self._ahead_s, -order, sequence))
            else:
                self.waiting.append(sequence)

    # What the rules ask and do.

    @property
    def verified(self) -> int:
        """Tokens that the decoding sequences take of a step's budget: one each, or with speculative decoding K + 1."""
        return len(self.alive) * self.model.queries

    def blocks_of(self, tokens: int) -> int:
        """Cache blocks of so many tokens."""
        return -(-tokens // self.page_tokens)

    def blocks_due(self, steps: int) -> int:
        """Blocks that the decoding sequences need for so many tokens more of each."""
        if not self.rules.grows:
            return 0
        page, step, phases = self.page_tokens, self.decode_steps, self._phases
        if steps == 1:
            return phases[step % page]
        whole, rest = divmod(steps, page)
        return whole * len(self.alive) + sum(phases[(step + i) % page] for i in range(rest))

    @property
    def blocks_next(self) -> int:
        """Blocks that the next step may need: a verify step yields several tokens."""
        return self.blocks_due(math.ceil(self.model.tokens_per_step))

    def generated(self, sequence: Sequence) -> int:
        """Output tokens so far of a decoding sequence."""
        return sequence.generated + self.decode_steps - sequence.began_step

    def look_up(self, sequence: Sequence) -> None:
        """What of the head of the queue need not be computed, as far as the prefix cache holds it now."""
        if self.prefix_cache is not None and sequence.prefix:
            sequence.done = max(sequence.request.cached_tokens, self.prefix_cache.found_tokens(sequence))

    def blocks_for(self, sequence: Sequence, tokens: int) -> int:
        """Free blocks that a waiting sequence takes to hold so many of its tokens."""
        if self.prefix_cache is None or not sequence.prefix:
            return self.blocks_of(tokens)
        shared = sum(length // self.page_tokens for _, length in sequence.prefix)
        return self.prefix_cache.missing_blocks(sequence) + max(0, self.blocks_of(tokens) - shared)

    def admit(self, tokens: int) -> Sequence:
        """The head of the queue starts its prompt, with room for so many of its tokens."""
        sequence = self.waiting.popleft()
        if math.isnan(sequence.admitted_s):
            sequence.admitted_s = self.now_s
            sequence.cached_tokens = sequence.done
        if self.prefix_cache is not None and sequence.prefix:
            self.prefix_cache.looked_up_tokens += sequence.known
            self.prefix_cache.hit_tokens += sequence.done
            self._take(self.prefix_cache.take(sequence))
        self.prefilling.append(sequence)
        self.give(sequence, tokens)
        return sequence

    def join(self, tokens: int) -> None:
        """The head of the queue decodes from now on: its prompt was computed elsewhere and its cache is here."""
        sequence = self.admit(tokens)
        self.prefilling.remove(sequence)
        self._begin(sequence)

    def give(self, sequence: Sequence, tokens: int) -> None:
        """The blocks that a sequence that prefills still lacks for so many tokens."""
        lacking = max(0, self.blocks_of(tokens) - sequence.shared_blocks - sequence.blocks)
        sequence.blocks += lacking
        self._take(lacking)

    def preempt(self, sequence: Sequence) -> Sequence:
        """Free all blocks of a running sequence; it will compute its prompt and its output so far again. The caller queues it.

        With a prefix cache its blocks stay there until others take them.
        """
        if sequence.last_step >= 0:
            del self.alive[sequence]
            now = self.generated(sequence)
            self._context -= sequence.request.input_tokens + now
            self._phases[self._phase(sequence)] -= 1
            self._release(sequence, now)
            sequence.generated, sequence.last_step = now, -1
        else:
            self.prefilling.remove(sequence)
            self._free(sequence, sequence.blocks)
        if self.prefix_cache is not None and not sequence.prefix:
            sequence.prefix = self.prefix_cache.keep(sequence.known - 1 if sequence.generated else sequence.done)
        sequence.blocks, sequence.done = 0, sequence.request.cached_tokens
        sequence.preemptions += 1
        self.preemptions += 1
        return sequence

    # Blocks.

    def _take(self, blocks: int) -> None:
        self.free_blocks -= blocks
        if self.prefix_cache is not None:
            self.prefix_cache.forget(self.free_blocks)

    def _free(self, sequence: Sequence, blocks: int) -> None:
        self.free_blocks += blocks
        if self.prefix_cache is not None and sequence.prefix:
            self.free_blocks += self.prefix_cache.release(sequence)

    def _release(self, sequence: Sequence, generated: int) -> None:
        if not self.rules.grows:
            self._free(sequence, sequence.blocks)
            return
        tokens = sequence.request.input_tokens + generated - 1  # the last token is not in the cache yet
        self._free(sequence, self.blocks_of(tokens) - sequence.shared_blocks)

    # Steps.

    def _mixed(self, decodes: bool, chunks: Chunks) -> None:
        """One step with prompt tokens."""
        count = len(self.alive) if decodes else 0
        context = self._context / count if count else 0.0
        taken_s = self.model.mixed_s(count, context, [(new, sequence.done) for sequence, new in chunks])
        self._pass(taken_s, 1, count)
        if count:
            self._advance(self._yielded(1))
        for sequence, new in chunks:
            sequence.done += new
            if sequence.done >= sequence.known:
                self.prefilling.remove(sequence)
                self._begin(sequence)
        self._retire()

    def _plan(self) -> None:
        """A run of equal decode steps: until one ends or the cache is full. A request that comes cuts it short."""
        count = len(self.alive)
        while self._ending[0][2].last_step != self._ending[0][0]:
            heapq.heappop(self._ending)
        tokens, each = self._ending[0][0] - self.decode_steps, self.model.tokens_per_step
        self._run_steps = math.ceil(tokens / each)
        most = math.ceil(self._run_steps * each)
        if self.rules.grows and count * (most // self.page_tokens + 1) > self.free_blocks:
            self._run_steps = max(1, min(self._run_steps, int(self._fitting(most) / each)))
        self._run_step_s = self._decode_s(count, self._context // count + tokens // 2)

    def _steps_left(self) -> int:
        """Steps of the run: all, or as many as are begun before a request joins an empty queue."""
        if not self._entering or self.waiting:
            return self._run_steps
        before = math.ceil((self._entering[0][0] - self.now_s) / self._run_step_s)
        return min(self._run_steps, max(1, before))

    def _decode(self, steps: int) -> None:
        """So many equal decode steps."""
        count = len(self.alive)
        self._pass(self._run_step_s, steps, count)
        self._run_steps = 0
        self._advance(self._yielded(steps))
        self._retire()

    def _yielded(self, steps: int) -> int:
        """Tokens that each decoding sequence gets from so many steps, one a step without speculative decoding."""
        tokens = steps * self.model.tokens_per_step + self._part_token
        self._part_token = tokens % 1.0
        return int(tokens)

    def _decode_s(self, count: int, context: int) -> float:
        """Seconds of a decode step; contexts are rounded to seven binary digits (below 1%), so that most are asked for again."""
        dropped = max(0, context.bit_length() - 7)
        key = (count, context >> dropped << dropped)
        found = self._decode_steps_s.get(key)
        if found is None:
            found = self._decode_steps_s[key] = self.model.decode_s(*key)
        return found

    def _fitting(self, span: int) -> int:
        """The largest number of steps up to `span` for which there are blocks; at least one, for which the rules made room."""
        low, high = 1, span
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks_due(middle) <= self.free_blocks:
                low = middle
            else:
                high = middle - 1
        return low

    def _pass(self, each_s: float, steps: int, decodes: int) -> None:
        taken_s = each_s * steps
        self.now_s += taken_s
        self.busy_s += taken_s * len(self.alive)
        if decodes:
            self.gaps.add(self.now_s - (steps - 1) * each_s - self._decoded_s, decodes)
            if steps > 1:
                self.gaps.add(each_s, decodes * (steps - 1))
            self._decoded_s = self.now_s
        if decodes or self.model.engine.scheduler.mixed_steps:
            self._ahead_s = each_s
        self._front_end.stream(decodes / each_s, taken_s)

    def _advance(self, tokens: int) -> None:
        """Every decoding sequence gets so many tokens; what a verify step yields beyond its last one is dropped when it ends."""
        self._take(self.blocks_due(tokens))
        self.decode_steps += tokens
        self._context += tokens * len(self.alive)
        self.rules.decoded(tokens)

    def _begin(self, sequence: Sequence) -> None:
        """The prompt is computed: its last step has sent a token, and the sequence decodes."""
        if math.isnan(sequence.first_s):
            sequence.first_s = self.now_s
        sequence.generated += 1
        sequence.began_step = self.decode_steps
        sequence.last_step = self.decode_steps + sequence.request.output_tokens - sequence.generated
        if not self.alive:
            self._decoded_s = self.now_s
        self.alive[sequence] = None
        self._context += sequence.known
        self._phases[self._phase(sequence)] += 1
        self._order += 1
        heapq.heappush(self._ending, (sequence.last_step, self._order, sequence))

    def _phase(self, sequence: Sequence) -> int:
        """The remainder of the decode step at which it needs a block: when its tokens but the last fill their blocks."""
        return (sequence.began_step - (sequence.known - 1)) % self.page_tokens

    def _retire(self) -> None:
        while self._ending and self._ending[0][0] <= self.decode_steps:
            last_step, _, sequence = heapq.heappop(self._ending)
            if sequence.last_step == last_step:
                self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        del self.alive[sequence]
        dropped = self.decode_steps - sequence.last_step
        self._context -= sequence.final + dropped
        self._phases[self._phase(sequence)] -= 1
        self._release(sequence, sequence.request.output_tokens + dropped)
        if self.prefix_cache is not None and not sequence.prefix:
            self.prefix_cache.leave(self.blocks_of(sequence.final - 1))
        sequence.last_step = -1
        self.records.add(sequence, self.now_s)
        self.rules.left()
        if self.answered is not None:
            self.answered(self.now_s)
