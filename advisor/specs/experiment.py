"""The seam between advisor and runner: a `Job` is asked, a `Measurement` is answered, both as JSON files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from advisor.specs.model import ModelSpec
from advisor.specs.plan import Plan

Exchange = Literal["all_gather", "all_to_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One thing to time: a prefill of `batch` sequences of `context_tokens`, a decode step of `batch` at that context, or both at
    once ("mixed": a decode step that carries `chunk_tokens` of one more prompt).

    `chunk_tokens` > 0 in a prefill: the prompt goes in pieces of so many, one after the other, which stages work on at once.
    `mixed_lengths`: the contexts of a decode are spread evenly from half of `context_tokens` to one and a half times it.
    """

    phase: Literal["prefill", "decode", "mixed"]
    batch: int
    context_tokens: int
    chunk_tokens: int = 0
    mixed_lengths: bool = False

    @property
    def kind(self) -> str:
        """In a column: "decode", "decode mixed" (lengths), "decode+512" (of a prompt), "prefill/512" (in pieces)."""
        if self.phase == "mixed":
            return f"decode+{self.chunk_tokens}"
        return f"{self.phase}/{self.chunk_tokens}" if self.chunk_tokens else f"{self.phase}{' mixed' * self.mixed_lengths}"

    @property
    def label(self) -> str:
        """In words, as "decode of 16 x 1,024 tokens"."""
        text = f"{self.phase} of {self.batch} x {self.context_tokens:,} tokens"
        if self.phase == "mixed":
            return f"{text} with {self.chunk_tokens:,} of a prompt"
        text += f" in pieces of {self.chunk_tokens:,}" if self.chunk_tokens else ""
        return f"{text} on average" if self.mixed_lengths else text


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
    """What one cell took: median and spread (the middle 80%) of the step in seconds, with what one rank achieved: FLOP by formula
    (causal attention counts what it shows), bytes that must be read, each over the seconds of one pass.

    With stages, `bubble` is the share of the step in which a stage waits, and `naive_s` the step of the whole batch in one piece,
    one stage after the other.
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
