"""The seam between advisor and runner: a `Job` is asked, a `Measurement` is answered, both as JSON files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from advisor.specs.model import ModelSpec
from advisor.specs.plan import Plan

Exchange = Literal["all_gather", "all_to_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One thing to time: a prefill of `batch` sequences of `context_tokens`, or a decode step of `batch` at that context."""

    phase: Literal["prefill", "decode"]
    batch: int
    context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the ranks are to measure. `layers` > 0 measures so many and scales. `shard` runs `shard_rank` of the plan alone.

    A cell's batch is that of one replica. The job ends after `time_limit_s`; a rank without progress for `stall_limit_s` (a
    collective that never returns) ends itself. `exchange` is how tokens of attention-DP groups meet their experts. `machine` is
    what it is measured on: versions of torch, driver and runner, GPUs; figures of another are no answer to this job.
    """

    id: str
    model: ModelSpec
    plan: Plan
    cells: tuple[Cell, ...]
    seed: int = 0
    warmup: int = 3
    repeats: int = 10
    layers: int = 0
    shard: bool = False
    device: Literal["cuda", "cpu"] = "cuda"
    schedule: Literal["1f1b", "naive"] = "1f1b"
    weights_dir: str = ""
    time_limit_s: float = 600.0
    stall_limit_s: float = 120.0
    shard_rank: int = 0
    exchange: Exchange = "all_gather"
    machine: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one cell took: median and spread (the middle 80%) of the step in seconds, with what one rank achieved.

    With stages, `bubble` is the share of the step in which a stage waits, and `naive_s` the step when one stage works at a time.
    """

    cell: Cell
    median_s: float
    low_s: float
    high_s: float
    repeats: int
    achieved_flop_per_s: float
    achieved_bytes_per_s: float
    notes: tuple[str, ...] = field(default=())
    bubble: float | None = None
    naive_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What came back for a Job: timings, memory, or the reason of the failure."""

    job_id: str
    plan: Plan
    status: Literal["ok", "failed"]
    reason: str
    timings: tuple[Timing, ...]
    kv_tokens: int
    weights_bytes: float
    device_name: str
    driver: str
    software: str
    date: str
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A job with what came back for it."""

    job: Job
    measurement: Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """A results file: what was measured so far, for a validation that goes on where it stopped."""

    version: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFailure:
    """Why one rank ended before its time; `at_s` (seconds since the epoch) tells the first of several."""

    rank: int
    at_s: float
    reason: str
