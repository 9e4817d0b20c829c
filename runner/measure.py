"""A Job's cells on this rank's part of the model: step times, what they achieve, and how many tokens the cache really holds.

Legend: `B` sequences of one replica, `S` context, `L` layers. A decode cell steps at a fixed context; the token is sampled
greedily and fed back. A prefill cell starts from position zero and ends with the first token.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from advisor.specs.experiment import Cell, Job, Timing
from advisor.specs.model import MoeFfn
from runner import clocks
from runner.clock import Clock, Spread, spread_of
from runner.exchange import exchange_of
from runner.ffn import MoeShard
from runner.graphs import DecodeGraph
from runner.kv_cache import KvCache
from runner.mesh import Mesh
from runner.pipeline import MicroBatch, run
from runner.transformer import Transformer
from runner.weights import initialise, load

WIDE_SPREAD = 0.15  # a cell whose middle 80% is wider than this share of its median was disturbed
FEW_STEPS, MANY_STEPS = 3, 11  # of a pipeline: their difference has no filling and draining in it
KEPT_FREE = 0.02  # of the memory, for the allocator's rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of the fullest rank: bytes of its weights and how many tokens one replica's cache holds beside them."""

    weights_bytes: float
    kv_tokens: int
    notes: tuple[str, ...] = ()


class Bench:
    """One model on one rank, and the cells that are timed on it."""

    def __init__(self, job: Job, mesh: Mesh, device: torch.device, *, layers: int, beat: Callable[[str], None]) -> None:
        self.job, self.mesh, self.device, self.beat = job, mesh, device, beat
        self.clock = Clock(device, alone=mesh.alone or mesh.plan.world == 1)
        self.gpu = clocks.Gpu(str(torch.cuda.get_device_properties(device).uuid)) if device.type == "cuda" else None
        self.activations_bytes = 0.0
        beat(f"building {layers or len(job.model.layers)} layers")
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.model = Transformer(
            job.model, job.plan, mesh.coordinates, mesh, device=device, dtype=self.dtype, layers=layers or None,
            max_batch=1, max_context=1, compiled=device.type == "cuda" and _compiles(device), exchange=job.exchange,
        )  # fmt: skip
        if job.weights_dir:
            load(self.model, job.model, job.weights_dir)
        else:
            initialise(self.model, job.model, job.seed)
        mesh.recording = False
        self.layers = layers or len(job.model.layers)

    def time(self, cell: Cell, most_s: float) -> Timing | None:
        """The cell's timing; None where its cache does not fit on some rank."""
        self.beat(f"{cell.phase} of {cell.batch} x {cell.context_tokens} tokens")
        self.model.exchange_by(exchange_of(self.job.exchange, cell.phase, self.device))
        before = self.gpu.read() if self.gpu else None
        batches = self._batches(cell)
        if batches is None:
            return None
        timing = self._decode(cell, batches, most_s) if cell.phase == "decode" else self._prefill(cell, batches, most_s)
        notes = [*timing.notes, *clocks.notes(before, self.gpu.read() if self.gpu else None)]
        width = (timing.high_s - timing.low_s) / timing.median_s
        if width > WIDE_SPREAD:
            notes.append(f"times spread over {width:.0%} of the median: something else was at work, or clocks moved")
        return replace(timing, notes=tuple(notes))

    def _batches(self, cell: Cell) -> list[MicroBatch] | None:
        """Micro-batches with empty caches, as many as stages where there are so many sequences; None: no room on some rank."""
        own = max(1, cell.batch // self.mesh.plan.adp)
        flights = min(self.mesh.plan.pp, own)
        rows, context = own // flights, max(cell.context_tokens, MANY_STEPS + 1)
        room, caches = 1.0, []
        try:
            caches = [self.model.new_cache(rows, context) for _ in range(flights)]
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            room = 0.0
        if self.clock.worst(1.0 - room):
            return None
        tokens = cell.context_tokens if cell.phase == "prefill" else 1
        return [self._micro_batch(rows, tokens, cell.context_tokens - 1, cache) for cache in caches]

    def _micro_batch(self, rows: int, tokens: int, position: int, cache: KvCache) -> MicroBatch:
        prompts = torch.randint(0, self.job.model.vocab_size, (rows, tokens), device=self.device)
        return MicroBatch(prompts=prompts, cache=cache, positions=torch.full((rows,), position, device=self.device))

    # Decode.

    def _decode(self, cell: Cell, batches: list[MicroBatch], most_s: float) -> Timing:
        first = batches[0]
        rows, span = first.prompts.shape[0], first.cache.context
        work = self._counted(lambda: self._step(first, span))
        pipelined = self.mesh.plan.pp > 1 and not self.mesh.alone
        graphs = [DecodeGraph(self.model, b.cache, batch=rows, span=span) for b in batches]
        stage = self._alone_step(first, graphs[0])
        if not pipelined:
            found = self._spread(stage, most_s)
            return self._timing(cell, found, work, moved=self._read_bytes(first, span), took_s=found.median_s)
        found = self._pipeline(batches, graphs, self.job.schedule, most_s)
        naive = self._pipeline(batches, graphs, "naive", most_s) if self.job.schedule != "naive" else found
        alone_s = self.clock.mean(self._stage_s(first, graphs[0]))
        busy = len(batches) * alone_s / found.median_s
        timing = self._timing(cell, found, work, moved=self._read_bytes(first, span), took_s=found.median_s / len(batches))
        return replace(timing, bubble=max(0.0, 1.0 - busy), naive_s=naive.median_s)

    def _step(self, batch: MicroBatch, span: int) -> torch.Tensor:
        x = batch.prompts[:, 0] if self.mesh.is_first_stage else self.model.states(batch.prompts.shape[0], 1).zero_()
        return self.model.decode(x, batch.positions, batch.cache, span=span)

    def _alone_step(self, batch: MicroBatch, graph: DecodeGraph) -> Callable[[], object]:
        """One step of this stage on its own, the sampled token fed back where this stage has both ends."""
        both = self.mesh.is_first_stage and self.mesh.is_last_stage
        first = self.mesh.is_first_stage
        state = [batch.prompts[:, 0].clone() if first else self.model.states(batch.prompts.shape[0], 1).zero_()]

        def step() -> None:
            y = graph(state[0], batch.positions)
            if self.mesh.is_last_stage:
                token = y.argmax(dim=-1)
                if both:
                    state[0] = token

        return step

    def _stage_s(self, batch: MicroBatch, graph: DecodeGraph) -> float:
        """This stage's own seconds, nothing sent or received between stages; its other ranks take part."""
        step = self._alone_step(batch, graph)
        samples = []
        for _ in range(self.job.warmup + 3):
            dist.barrier()
            self.clock.sync()
            start = time.perf_counter()
            step()
            self.clock.sync()
            samples.append(time.perf_counter() - start)
        return spread_of(samples[self.job.warmup :]).median_s

    def _pipeline(self, batches: list[MicroBatch], graphs: list[DecodeGraph], schedule: str, most_s: float) -> Spread:
        """Seconds of one step of all micro-batches: many steps less few, so that filling and draining cancel."""
        graph_of = {id(batch): graph for batch, graph in zip(batches, graphs, strict=True)}
        starts = [(batch.positions - MANY_STEPS).clamp(min=0) for batch in batches]  # the last step has the whole context

        def forward(batch: MicroBatch, x: torch.Tensor) -> torch.Tensor:
            return graph_of[id(batch)](x.view(-1) if self.mesh.is_first_stage else x, batch.positions)

        def steps(count: int) -> Callable[[], None]:
            def call() -> None:
                for batch, start in zip(batches, starts, strict=True):
                    batch.positions.copy_(start)
                run(
                    self.model, batches, steps=count, schedule="naive" if schedule == "naive" else "1f1b",
                    prefill=forward, decode=forward,
                )  # fmt: skip

            return call

        took = [self.clock.once(steps(MANY_STEPS)) for _ in range(max(1, self.job.warmup // 2))]
        repeats = max(3, min(self.job.repeats, int(most_s / max(2 * min(took), 1e-9))))
        samples = []
        for _ in range(repeats):
            few, many = self.clock.once(steps(FEW_STEPS)), self.clock.once(steps(MANY_STEPS))
            samples.append(max(1e-9, many - few) / (MANY_STEPS - FEW_STEPS))
        return spread_of(samples)

    # Prefill.

    def _prefill(self, cell: Cell, batches: list[MicroBatch], most_s: float) -> Timing:
        def one(batch: MicroBatch) -> torch.Tensor:
            rows, tokens = batch.prompts.shape
            x = batch.prompts if self.mesh.is_first_stage else self.model.states(rows, tokens).zero_()
            y = self.model.prefill(x, batch.cache)
            return y.argmax(dim=-1) if self.mesh.is_last_stage else y

        work = self._counted(lambda: one(batches[0]))
        if self.device.type == "cuda":
            held = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            one(batches[0])
            self.activations_bytes = max(self.activations_bytes, float(torch.cuda.max_memory_allocated(self.device) - held))
        if self.mesh.plan.pp > 1 and not self.mesh.alone:
            found = self._spread(lambda: run(self.model, batches, steps=0, schedule=self.job.schedule), most_s)
        else:
            found = self._spread(lambda: one(batches[0]), most_s)
        return self._timing(cell, found, work, moved=self._read_bytes(batches[0], 0), took_s=found.median_s / len(batches))

    # What it achieves.

    def _spread(self, call: Callable[[], object], most_s: float) -> Spread:
        return self.clock.spread(call, warmup=self.job.warmup, repeats=self.job.repeats, most_s=most_s)

    def _counted(self, call: Callable[[], object]) -> float:
        """FLOP of the call on this rank, as torch counts the matrix products it ran."""
        with FlopCounterMode(display=False) as counter:
            call()
        self.clock.sync()
        return float(counter.get_total_flops())

    def _read_bytes(self, batch: MicroBatch, span: int) -> float:
        """Bytes one pass over a micro-batch must read on this rank: weights used, and the cache up to `span`."""
        rows, tokens = batch.prompts.shape
        total = float(self.model.weight_bytes)
        embedding = self.model.embedding
        if embedding is not None and not (self.job.model.tied_embeddings and self.mesh.is_last_stage):
            total -= embedding.weight.numel() * embedding.weight.element_size()  # looked up, not read
        for module in self.model.modules():
            if isinstance(module, MoeShard):
                total -= _idle_bytes(module, self.job, rows * tokens)
        for layer in batch.cache.layers:
            for part in (layer.keys, layer.values):
                if part is not None and span:
                    total += part.numel() * part.element_size() * min(span, layer.slots) / layer.slots
        return total

    def _timing(self, cell: Cell, found: Spread, flop: float, *, moved: float, took_s: float) -> Timing:
        return Timing(
            cell=cell, median_s=found.median_s, low_s=found.low_s, high_s=found.high_s, repeats=found.repeats,
            achieved_flop_per_s=flop / took_s, achieved_bytes_per_s=moved / took_s,
        )  # fmt: skip

    # Memory.

    def memory(self) -> Memory:
        """What is left for the cache beside weights and the largest prefill: really allocated where all layers are there.

        A CPU's memory belongs to everybody: nothing is said of it.
        """
        self.beat("filling the cache")
        if self.device.type == "cpu":
            return Memory(weights_bytes=self.clock.worst(self._whole_weights()), kv_tokens=0)
        gc.collect()
        one = self.model.new_cache(1, 256)
        each = one.bytes / 256
        del one
        torch.cuda.empty_cache()
        spare = free_bytes(self.device) * (1.0 - KEPT_FREE) - self.activations_bytes
        weights = self._whole_weights()
        notes: tuple[str, ...] = ()
        if self.layers < len(self.job.model.layers):
            spare -= weights - self.model.weight_bytes
            each *= len(self.job.model.layers) / self.layers
            tokens = int(max(0.0, spare) / each)
            notes = ("weights and cache of the whole model are reckoned from the layers measured",)
        else:
            tokens = self._allocated(int(max(0.0, spare) / each))
        tokens = int(-self.clock.worst(-float(tokens))) * self.mesh.plan.adp
        return Memory(weights_bytes=self.clock.worst(weights), kv_tokens=tokens, notes=notes)

    def _whole_weights(self) -> float:
        """This rank's weights with all layers."""
        inside = sum(t.numel() * t.element_size() for t in self.model.blocks.buffers())
        return self.model.weight_bytes + inside * (len(self.job.model.layers) / self.layers - 1.0)

    def _allocated(self, tokens: int) -> int:
        """The largest cache up to `tokens` that the allocator grants, found from above in steps of 2%."""
        rows = 64
        while tokens > rows:
            try:
                cache = self.model.new_cache(rows, tokens // rows)
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                tokens = int(tokens * 0.98)
                continue
            del cache
            torch.cuda.empty_cache()
            return tokens // rows * rows
        return 0


def _idle_bytes(module: MoeShard, job: Job, tokens: int) -> float:
    """Bytes of the experts that no token of an even draw reaches: E (1 - k/E)^T of E."""
    moe = next((layer.ffn for layer in job.model.layers if isinstance(layer.ffn, MoeFfn)), None)
    if moe is None:
        return 0.0
    idle = (1.0 - moe.top_k / moe.experts) ** tokens
    experts = [t for name, t in module.named_buffers() if "expert" in name and "shared" not in name]
    return idle * sum(t.numel() * t.element_size() for t in experts)


def free_bytes(device: torch.device) -> float:
    """Memory that this process could still have; on a CPU the machine's, shared among its ranks."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / ranks


def _compiles(device: torch.device) -> bool:
    """Whether torch.compile works here: it wants Triton and a C compiler."""
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(16, device=device))
    except (RuntimeError, ImportError, OSError):
        return False
    return True


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
