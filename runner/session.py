"""From a Job to its Measurement on one rank: join the others, time the cells from small to large, keep what is done."""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from advisor.errors import MachineError
from advisor.files import write_whole
from advisor.specs import wire
from advisor.specs.benchmark import BenchJob
from advisor.specs.experiment import Cell, Job, Measurement, Timing
from runner import clocks
from runner.capacity import Memory
from runner.exchange import exchange_notes
from runner.measure import Bench, scaled
from runner.mesh import Mesh

UNFINISHED = "stopped before it was done"
# The collectives give up before the watchdog does, so that the rank that waits can say so.
COLLECTIVE_SHARE = 0.8

Beat = Callable[[str], None]


def measure_job(job: Job, out: Path, rank: int, beat: Beat) -> None:
    """Time every cell; rank 0 writes OUT whole after each, as failed until all are done."""
    ends = time.monotonic() + job.time_limit_s
    device = device_of(job)
    beat("meeting the other ranks")
    mesh = _mesh(job, device)
    empty = Measurement(
        job_id=job.id, plan=job.plan, status="failed", reason=UNFINISHED, timings=(), kv_tokens=0, weights_bytes=0.0,
        device_name=device_name(device), driver=driver(device), software=software(), date=now(),
    )  # fmt: skip

    def keep(measurement: Measurement) -> None:
        if rank == 0:
            write_whole(out, wire.to_json(measurement))

    keep(empty)
    done = _whole(job, mesh, device, beat, ends, lambda t: keep(replace(empty, timings=t)))
    keep(done_measurement(empty, *done))
    beat("leaving")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def done_measurement(empty: Measurement, timings: tuple[Timing, ...], memory: Memory, notes: tuple[str, ...]) -> Measurement:
    """The Measurement of a job that ran to its end; without a single timing it has failed."""
    return replace(
        empty, status="ok" if timings else "failed", reason="" if timings else "no cell fitted in memory", timings=timings,
        kv_tokens=memory.kv_tokens, weights_bytes=memory.weights_bytes, notes=(*memory.notes, *notes),
    )  # fmt: skip


def _whole(
    job: Job, mesh: Mesh, device: torch.device, beat: Beat, ends: float, keep: Callable[[tuple[Timing, ...]], None]
) -> tuple[tuple[Timing, ...], Memory, tuple[str, ...]]:
    """All cells on all layers, or on two depths that are scaled."""
    layers = len(job.model.layers)
    if not 0 < job.layers < layers:
        timings, memory, left_out = _depth(job, mesh, device, 0, beat, ends, keep)
        return timings, memory, left_out
    fewer, more = depths(job)
    few, _, _ = _depth(job, mesh, device, fewer, beat, ends, lambda _: None)
    by_cell = {t.cell: t for t in few}

    def both(many: tuple[Timing, ...]) -> tuple[Timing, ...]:
        return tuple(scaled(by_cell[t.cell], t, fewer=fewer, more=more, layers=layers) for t in many if t.cell in by_cell)

    timings, memory, left_out = _depth(job, mesh, device, more, beat, ends, lambda many: keep(both(many)))
    mixed = set(job.model.layers[fewer:more]) != set(job.model.layers[more:])
    note = ("layers beyond those measured are of other kinds than the scaled ones",) if mixed else ()
    return both(timings), memory, (*left_out, *note)


def depths(job: Job) -> tuple[int, int]:
    """The two depths that `--layers K` measures: K, and half of it, each a multiple of the stages."""
    pp = job.plan.pp
    more = max(2 * pp, job.layers // pp * pp)
    fewer = max(pp, more // 2 // pp * pp)
    return fewer, more


def _depth(
    job: Job, mesh: Mesh, device: torch.device, layers: int, beat: Beat, ends: float, keep: Callable[[tuple[Timing, ...]], None]
) -> tuple[tuple[Timing, ...], Memory, tuple[str, ...]]:
    bench = Bench(job, mesh, device, layers=layers, beat=beat)
    timings: list[Timing] = []
    notes: list[str] = []
    cells = sorted(job.cells, key=_size)
    for index, cell in enumerate(cells):
        left_s = bench.clock.worst(ends - time.monotonic())
        if left_s <= 0:
            notes.append(f"{len(cells) - index} cells were left out: the time was up")
            break
        timing = bench.time(cell, most_s=left_s / (len(cells) - index) / 2)
        gc.collect()  # the cell's caches and graphs, before the next asks for memory
        if timing is None:
            notes.append(f"{cell.label} does not fit in memory")
            continue
        timings.append(timing)
        keep(tuple(timings))
    notes += exchange_notes(job.exchange, {_exchanged(timing.cell) for timing in timings}, device)
    return tuple(timings), bench.memory(), (*bench.notes, *notes)


def _size(cell: Cell) -> int:
    return cell.batch * cell.context_tokens


def _exchanged(cell: Cell) -> Literal["prefill", "decode"]:
    """As which phase a cell exchanges its tokens."""
    return "prefill" if cell.phase == "prefill" else "decode"


def _mesh(job: Job, device: torch.device) -> Mesh:
    if job.shard:
        return Mesh.shard(job.plan, job.shard_rank)
    if job.plan.world == 1 and "RANK" not in os.environ:
        return Mesh.single()
    return Mesh.connect(job.plan, device=device, time_limit_s=job.stall_limit_s * COLLECTIVE_SHARE)


def device_of(job: Job | BenchJob) -> torch.device:
    """This rank's device. Raises MachineError where there is none."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if job.device == "cpu":
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
        return torch.device("cpu")
    if local >= torch.cuda.device_count():
        raise MachineError(
            f"rank needs GPU {local} and torch sees {torch.cuda.device_count()}: check the driver and CUDA_VISIBLE_DEVICES."
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def device_name(device: torch.device) -> str:
    """As torch calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def driver(device: torch.device) -> str:
    """The driver's version where NVML says."""
    return clocks.Gpu(str(torch.cuda.get_device_properties(device).uuid)).driver() if device.type == "cuda" else ""


def software() -> str:
    """torch and what it was built with."""
    parts = [f"torch {torch.__version__}"]
    if torch.version.cuda:
        parts.append(f"CUDA {torch.version.cuda}")
        with contextlib.suppress(AttributeError, RuntimeError):
            parts.append("NCCL " + ".".join(str(n) for n in torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return ", ".join(parts)


def now() -> str:
    """The date and time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
