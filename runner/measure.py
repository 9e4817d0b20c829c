"""A Job's cells on this rank's part of the model: step times, and what they achieve.

Legend: `B` sequences of one replica, `S` context, `L` layers. A decode cell steps at a fixed context; the token is sampled
greedily and fed back. A prefill cell starts from position zero and ends with the first token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from advisor.errors import MachineError
from advisor.specs.experiment import Cell, Job, Timing
from runner import clocks
from runner.capacity import Memory, memory
from runner.clock import Clock, Spread
from runner.counts import PassSize, pass_flop, read_bytes
from runner.exchange import exchange_of
from runner.fused import compiled_graphs, why_not
from runner.graphs import DecodeGraph
from runner.mesh import Mesh
from runner.pipeline import MicroBatch, run
from runner.stages import MANY_STEPS, prefill_in_pieces, time_stages
from runner.transformer import Transformer
from runner.weights import initialise, load

WIDE_SPREAD = 0.15  # a cell whose middle 80% is wider than this share of its median was disturbed
SKEW = 0.03  # a rank that takes so much longer than the fastest for the same product holds the others up
SKEW_SIZE = {"cuda": 4096, "cpu": 256}  # rows and columns of that product


class Bench:
    """One model on one rank, and the cells that are timed on it. `notes` say what was not as it should be."""

    def __init__(self, job: Job, mesh: Mesh, device: torch.device, *, layers: int, beat: Callable[[str], None]) -> None:
        self.job, self.mesh, self.device, self.beat = job, mesh, device, beat
        self.clock = Clock(device, alone=mesh.alone or mesh.plan.world == 1)
        self.gpu = clocks.Gpu(str(torch.cuda.get_device_properties(device).uuid)) if device.type == "cuda" else None
        self.activations_bytes = 0.0
        self.layers = layers or len(job.model.layers)
        self.notes: list[str] = [*straggler(self.clock)]
        beat(f"building {self.layers} layers")
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.compiled = self._compiles()
        self.model = Transformer(
            job.model, job.plan, mesh.coordinates, mesh, device=device, dtype=self.dtype, layers=layers or None,
            max_batch=1, max_context=1, compiled=self.compiled, exchange=job.exchange,
        )  # fmt: skip
        if job.weights_dir:
            load(self.model, job.model, job.weights_dir, beat)
        else:
            initialise(self.model, job.model, job.seed, beat)
        mesh.recording = False

    def _compiles(self) -> bool:
        """Whether to compile; a GPU where that does not work is told."""
        if self.device.type != "cuda":
            return False
        self.beat("trying torch.compile")
        reason = why_not(self.device)
        if reason:
            self.notes.append(f"ran without torch.compile, which costs time between the matrix products: {reason}")
        # All ranks alike: kernels that differ would make one wait for the others.
        return self.clock.worst(float(bool(reason))) == 0.0

    def time(self, cell: Cell, most_s: float) -> Timing | None:
        """The cell's timing; None where it does not fit in the memory of some rank.

        Raises MachineError where memory runs out in the middle and other ranks wait for this one.
        """
        self.beat(cell.label)
        self.model.exchange_by(exchange_of(self.job.exchange, "prefill" if cell.phase == "prefill" else "decode", self.device))
        before = self.gpu.read() if self.gpu else None
        graphs = compiled_graphs()
        try:
            timing = self._timed(cell, most_s)
        except RuntimeError as error:
            cause = out_of_memory(error)
            if cause is None:
                raise
            if not self.clock.alone:
                reason = " ".join(str(cause).splitlines()[:1])
                raise MachineError(f"ran out of memory in the activations of {cell.label}: {reason}") from None
            timing = None
        if timing is None:
            return None
        notes = [*timing.notes, *clocks.notes(before, self.gpu.read() if self.gpu else None)]
        if self.compiled and graphs == 0 and compiled_graphs() == 0:
            notes.append("torch.compile was asked for and compiled nothing: the step ran kernel by kernel")
        width = (timing.high_s - timing.low_s) / timing.median_s
        if width > WIDE_SPREAD:
            notes.append(f"times spread over {width:.0%} of the median: something else was at work, or clocks moved")
        return replace(timing, notes=tuple(notes))

    def _timed(self, cell: Cell, most_s: float) -> Timing | None:
        flights = self._flights(cell)
        batches = self._batches(cell, flights)
        if batches is None:
            return None
        if cell.phase == "mixed":
            return self._mixed(cell, batches[0], most_s)
        if cell.phase == "prefill":
            return self._prefill(cell, batches, most_s)
        if self.mesh.plan.pp == 1 or self.mesh.alone:
            return self._decode(cell, batches[0], most_s)
        timing = self._decode_stages(cell, batches, most_s)
        if self.job.schedule == "naive":
            return replace(timing, naive_s=timing.median_s)
        del batches
        whole = self._batches(cell, 1)  # the honest naive step: the whole batch at once, weights read once
        if whole is None:
            return timing
        return replace(timing, naive_s=self._decode_stages(cell, whole, most_s).median_s)

    def _flights(self, cell: Cell) -> int:
        """Micro-batches: as many as stages where there are so many sequences; one where stages take turns, or pieces fill them."""
        if self.job.schedule == "naive" or cell.phase == "mixed" or cell.chunk_tokens:
            return 1
        return min(self.mesh.plan.pp, self._own(cell))

    def _own(self, cell: Cell) -> int:
        return max(1, cell.batch // self.mesh.plan.adp)

    def _batches(self, cell: Cell, flights: int) -> list[MicroBatch] | None:
        """Micro-batches with empty caches; None: no room on some rank."""
        rows = self._own(cell) // flights
        contexts = self._contexts(cell, rows)
        longest = max(contexts) if contexts else cell.context_tokens
        context = max(longest, cell.chunk_tokens, MANY_STEPS + 1)
        room, caches = 1.0, []
        try:
            caches = [self.model.new_cache(rows + (cell.phase == "mixed"), context) for _ in range(flights)]
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            room = 0.0
        if self.clock.worst(1.0 - room):
            return None
        tokens = cell.context_tokens if cell.phase == "prefill" else 1
        made = []
        for cache in caches:
            prompts = torch.randint(0, self.job.model.vocab_size, (rows, tokens), device=self.device)
            positions = torch.tensor([c - 1 for c in contexts] or [0] * rows, device=self.device)
            made.append(MicroBatch(prompts=prompts, cache=cache, positions=positions))
        return made

    def _contexts(self, cell: Cell, rows: int) -> tuple[int, ...]:
        """Context of each decode of a micro-batch."""
        if cell.phase == "prefill":
            return ()
        if not cell.mixed_lengths or rows == 1:
            return (cell.context_tokens,) * rows
        half, step = cell.context_tokens // 2, cell.context_tokens / (rows - 1)
        return tuple(max(1, half + round(step * row)) for row in range(rows))

    # Decode.

    def _decode(self, cell: Cell, batch: MicroBatch, most_s: float) -> Timing:
        """One step of this stage, the sampled token fed back where this stage has both ends."""
        graph = self._graph(batch)
        first, last = self.mesh.is_first_stage, self.mesh.is_last_stage
        state = [batch.prompts[:, 0].clone() if first else self.model.states(batch.prompts.shape[0], 1).zero_()]

        def step() -> None:
            y = graph(state[0], batch.positions)
            if last:
                token = y.argmax(dim=-1)
                if first:
                    state[0] = token

        return self._timing(cell, batch, self._spread(step, most_s))

    def _decode_stages(self, cell: Cell, batches: list[MicroBatch], most_s: float) -> Timing:
        found = time_stages(
            self.model, batches, [self._graph(batch) for batch in batches], self.job.schedule, self.clock,
            warmup=self.job.warmup, repeats=self.job.repeats, most_s=most_s,
        )  # fmt: skip
        return replace(self._timing(cell, batches[0], found.step, flights=len(batches)), bubble=found.bubble)

    def _graph(self, batch: MicroBatch) -> DecodeGraph:
        return DecodeGraph(self.model, batch.cache, batch=batch.prompts.shape[0], span=batch.cache.context)

    def _mixed(self, cell: Cell, batch: MicroBatch, most_s: float) -> Timing:
        """A decode step that carries a piece of one more prompt, launched kernel by kernel as engines launch prefills."""
        decodes = batch.prompts.shape[0]
        rows = decodes + cell.chunk_tokens
        if self.mesh.is_first_stage:
            x = torch.randint(0, self.job.model.vocab_size, (rows,), device=self.device)
        else:
            x = self.model.states(1, rows).zero_()[0]

        def step() -> Tensor:
            y = self.model.mixed(x, batch.positions, batch.cache, chunk=cell.chunk_tokens, span=batch.cache.context)
            return y.argmax(dim=-1) if self.mesh.is_last_stage else y

        return self._timing(cell, batch, self._spread(step, most_s))

    # Prefill.

    def _prefill(self, cell: Cell, batches: list[MicroBatch], most_s: float) -> Timing:
        staged = self.mesh.plan.pp > 1 and not self.mesh.alone

        batch = batches[0]

        def one() -> object:
            if cell.chunk_tokens:
                prefill_in_pieces(self.model, batch, cell.chunk_tokens)
                return None
            if staged:
                return run(self.model, batches, steps=0, schedule=self.job.schedule)
            x = batch.prompts if self.mesh.is_first_stage else self.model.states(*batch.prompts.shape).zero_()
            y = self.model.prefill(x, batch.cache)
            return y.argmax(dim=-1) if self.mesh.is_last_stage else y

        one()
        if self.device.type == "cuda":
            self.clock.sync()
            held = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            one()
            self.clock.sync()
            self.activations_bytes = max(self.activations_bytes, float(torch.cuda.max_memory_allocated(self.device) - held))
        return self._timing(cell, batches[0], self._spread(one, most_s), flights=len(batches))

    # What it achieves.

    def _spread(self, call: Callable[[], object], most_s: float) -> Spread:
        return self.clock.spread(call, warmup=self.job.warmup, repeats=self.job.repeats, most_s=most_s)

    def _timing(self, cell: Cell, batch: MicroBatch, found: Spread, *, flights: int = 1) -> Timing:
        size, took_s = self._size(cell, batch), found.median_s / flights
        return Timing(
            cell=cell, median_s=found.median_s, low_s=found.low_s, high_s=found.high_s, repeats=found.repeats,
            achieved_flop_per_s=pass_flop(self.model, size) / took_s,
            achieved_bytes_per_s=read_bytes(self.model, batch.cache, size) / took_s,
        )  # fmt: skip

    def _size(self, cell: Cell, batch: MicroBatch) -> PassSize:
        """What one micro-batch is, for the counts; a prompt in pieces is counted as a whole."""
        rows, tokens = batch.prompts.shape
        if cell.phase == "prefill":
            return PassSize(prompts=rows, chunk=tokens)
        contexts = self._contexts(cell, rows)
        return PassSize(contexts=contexts, prompts=int(cell.phase == "mixed"), chunk=cell.chunk_tokens)

    def memory(self) -> Memory:
        """How many tokens the cache holds beside weights and the largest prefill."""
        self.beat("filling the cache")
        return memory(self.model, self.job, self.clock, layers=self.layers, activations_bytes=self.activations_bytes)


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """The error of the allocator among the causes: the end of a broken capture hides it behind an error of its own."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return error
        error = error.__cause__ or error.__context__
    return None


def straggler(clock: Clock) -> tuple[str, ...]:
    """A word on a rank that is slower than the others at the same matrix product, done by all at once without a message."""
    if clock.alone or not dist.is_initialized():
        return ()
    size = SKEW_SIZE[clock.device.type]
    a = torch.randn(size, size, device=clock.device, dtype=torch.bfloat16 if clock.device.type == "cuda" else torch.float32)
    clock.own(lambda: a @ a, 3)
    each = clock.every(min(clock.own(lambda: a @ a, 10) for _ in range(3)))
    return slowest(each)


def slowest(each_s: list[float]) -> tuple[str, ...]:
    """The rank that needs longest, where that is more than SKEW beyond the fastest."""
    worst = max(each_s)
    behind = worst / min(each_s) - 1.0
    if behind <= SKEW:
        return ()
    return (
        f"rank {each_s.index(worst)} is {behind:.0%} slower than the fastest at the same product: every collective waits for it",
    )


def scaled(few: Timing, many: Timing, *, fewer: int, more: int, layers: int) -> Timing:
    """The timing of all `layers` from two measured depths: t(L) = t(m) + (L - m) (t(m) - t(f)) / (m - f).

    Embedding, head and host time are in both depths and therefore counted once. The spread grows with the step beyond.
    """
    slope = (many.median_s - few.median_s) / (more - fewer)
    median_s = many.median_s + (layers - more) * max(0.0, slope)
    reach = (layers - more) / (more - fewer)
    width = (many.high_s - many.low_s) * (1.0 + reach) + (few.high_s - few.low_s) * reach
    outside = many.median_s - more * slope
    note = f"{layers} layers scaled from {fewer} and {more}: {slope * 1e3:.3g} ms a layer, {max(0.0, outside) * 1e3:.3g} ms apart"
    return replace(
        many, median_s=median_s, low_s=max(0.0, median_s - width / 2), high_s=median_s + width / 2,
        notes=(*many.notes, note), naive_s=None,
    )  # fmt: skip
