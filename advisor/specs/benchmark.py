"""The micro-benchmarks' seam: a `BenchJob` is asked, `Benchmarks` are answered, both as JSON files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from advisor.specs.keys import Op

KernelKind = Literal["copy", "gemm", "attention_prefill", "attention_decode", "launch", "host_launch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchJob:
    """What to time, on every rank of the group that runs it (collectives need at least two).

    `formats` are names in `FORMATS` that GEMMs are timed in. `tiny` shrinks every size, for tests and CPUs. Kernels stop being
    added after `time_limit_s`.
    """

    device: Literal["cuda", "cpu"] = "cuda"
    formats: tuple[str, ...] = ("bf16", "fp8")
    tiny: bool = False
    time_limit_s: float = 110.0
    stall_limit_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """Median seconds of one kernel. `sizes` by name: gemm m, n, k; attention batch, tokens (new or cached), heads, kv_heads,
    head_dim; copy bytes (read and written, both counted); launch none."""

    kind: KernelKind
    format: str
    sizes: tuple[tuple[str, float], ...]
    median_s: float
    low_s: float
    high_s: float

    def size(self, name: str) -> float:
        """One size by name."""
        return dict(self.sizes)[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireTime:
    """Median seconds of one collective of `ranks` ranks on `nodes` nodes; payload as in `roofline.work.Collective`.

    `algorithm` is "nccl" (gloo on CPUs) or "custom" (symmetric memory, the fastest of its kernels).
    """

    op: Op
    algorithm: Literal["nccl", "custom"]
    ranks: int
    nodes: int
    payload_bytes: float
    median_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmarks:
    """What a machine did. `clocks` says at which clocks; `memory_bytes` is of one device."""

    version: int
    device_name: str
    driver: str
    software: str
    clocks: str
    date: str
    memory_bytes: float
    kernels: tuple[KernelTime, ...]
    wires: tuple[WireTime, ...] = ()
    notes: tuple[str, ...] = field(default=())
