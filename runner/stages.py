"""The time of a step through stages, and the share of it in which a stage waits.

The share is taken from the run itself: the seconds of the stage's own forward passes (device events on a GPU) against the seconds
of the steps they were part of. A stage measured on its own would be slower or faster than in the pipeline, whose other stages share
memory, power or cores with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from runner.clock import Clock, Spread, device_event, spread_of
from runner.graphs import DecodeGraph
from runner.pipeline import MicroBatch, Schedule, run
from runner.transformer import Transformer

FEW_STEPS, MANY_STEPS = 3, 11  # their difference has no filling and draining in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Seconds of one step of all micro-batches, and the share of it in which the mean stage waits."""

    step: Spread
    bubble: float


class _Busy:
    """The seconds a stage computes, as its device or its host counts them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.host_s = 0.0

    def timed(self, call: Callable[[], Tensor]) -> Tensor:
        """The call's result; its seconds are counted."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            y = call()
            self.host_s += time.perf_counter() - start
            return y
        first, last = device_event(), device_event()
        first.record()
        y = call()
        last.record()
        self.events.append((first, last))
        return y

    def taken_s(self) -> float:
        """The seconds so far, from zero again afterwards; the device must be idle."""
        total = self.host_s + sum(float(first.elapsed_time(last)) for first, last in self.events) / 1e3
        self.events, self.host_s = [], 0.0
        return total


def time_stages(
    model: Transformer,
    batches: Sequence[MicroBatch],
    graphs: Sequence[DecodeGraph],
    schedule: Schedule,
    clock: Clock,
    *,
    warmup: int,
    repeats: int,
    most_s: float,
) -> Stages:
    """Decode steps of all micro-batches: many less few, so that filling and draining cancel."""
    graph_of = {id(batch): graph for batch, graph in zip(batches, graphs, strict=True)}
    starts = [(batch.positions - MANY_STEPS).clamp(min=0) for batch in batches]  # the last step has the whole context
    busy = _Busy(model.device)

    def forward(batch: MicroBatch, x: Tensor) -> Tensor:
        return busy.timed(lambda: graph_of[id(batch)](x.view(-1) if model.mesh.is_first_stage else x, batch.positions))

    def steps(count: int) -> tuple[float, float]:
        """Seconds of so many steps after the first, and of this stage's work in them."""

        def call() -> None:
            for batch, start in zip(batches, starts, strict=True):
                batch.positions.copy_(start)
            run(model, batches, steps=count, schedule=schedule, prefill=forward, decode=forward)

        took = clock.once(call)
        return took, busy.taken_s()

    first = min(steps(MANY_STEPS)[0] for _ in range(max(1, warmup // 2)))
    samples, shares = [], []
    for _ in range(max(3, min(repeats, int(most_s / max(2 * first, 1e-9))))):
        (few_s, few_busy_s), (many_s, many_busy_s) = steps(FEW_STEPS), steps(MANY_STEPS)
        step_s = max(1e-9, many_s - few_s) / (MANY_STEPS - FEW_STEPS)
        samples.append(step_s)
        shares.append((many_busy_s - few_busy_s) / (MANY_STEPS - FEW_STEPS) / step_s)
    waiting = 1.0 - clock.mean(median(shares))
    return Stages(step=spread_of(samples), bubble=min(1.0, max(0.0, waiting)))


def prefill_in_pieces(model: Transformer, batch: MicroBatch, piece: int) -> None:
    """A prompt in pieces of so many tokens, one after the other: a stage takes the next while the following stage has the last."""
    mesh = model.mesh
    sequences, tokens = batch.prompts.shape
    sent = None
    for past in range(0, tokens, piece):
        count = min(piece, tokens - past)
        if mesh.alone:
            x = batch.prompts[:, past : past + count] if mesh.is_first_stage else model.states(sequences, count).zero_()
        elif mesh.is_first_stage:
            x = batch.prompts[:, past : past + count]
        else:
            x = mesh.receive(model.states(sequences, count))
        y = model.prefill(x, batch.cache, past=past)
        if not mesh.is_last_stage:
            if sent is not None:
                sent.wait()
            sent = mesh.send_on(y)
    if sent is not None:
        sent.wait()
