"""Fit the coefficients of one kind of kernel on one device: robust least squares on ln(predicted / measured).

Source choice: every engine's kernel is fitted alone first; those within `TOLERATED` of the fastest over all shapes of the table are
pooled, the others (launches timed with the kernel, kernels no engine would pick today) are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from advisor.roofline.compute import demand, peak_flop_per_s
from advisor.roofline.work import (
    DecodeAttention,
    Experts,
    Gemm,
    IndexScores,
    Kernel,
    LatentDecode,
    LatentPrefill,
    PrefillAttention,
    StateScan,
    StateUpdate,
)
from advisor.specs.calibration import Provenance, Reach
from advisor.specs.cluster import Device
from fitting.tables import Sample

TOLERATED = 1.2  # a kernel this much slower than the best one on the same shapes is not what an engine would run
FEWEST = 25  # rows below which a source says too little alone
REFERENCE = 100  # rows from which a source covers the shapes well enough to be what the others are held against
ROBUST = 0.08  # residuals beyond about 8% count linearly (soft l1)
COPIES = 6  # the GEMM benchmark walks through six copies of the weights
# A last-level cache that streams from memory in more than this keeps a benchmark's operands between repeats (L40S, RTX PRO 6000).
CACHE_S = 50e-6
Vector = Any  # numpy array of floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Coefficients with the sources they come from and those left out; their provenance says how held-out shapes are met."""

    key: str
    reach: Reach
    sources: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The demands of many samples as arrays, in microseconds at the data sheet's rates; coefficients as in COEFFICIENTS."""

    read: Vector
    math: Vector
    scores: Vector
    queue: Vector
    chain: Vector
    passes: Vector
    measured: Vector
    held_out: Vector
    sources: Vector
    kept: Vector

    def predict(self, p: Vector) -> Vector:
        """(K1) in microseconds for all samples."""
        memory, compute, launch, q, queue_s, chain, softmax, passes = p
        read, math = self.read / memory, (self.math + softmax * self.scores) / compute
        longest = np.maximum(read, math)
        waits = (self.queue * queue_s / longest) ** q + (self.chain * chain / longest) ** q
        return longest * ((read / longest) ** q + (math / longest) ** q + waits) ** (1 / q) + launch + passes * self.passes


def _table(samples: Sequence[Sample], device: Device) -> _Table:
    asked = np.array([demand(s.work, device.sms) for s in samples])
    first = samples[0].work
    weights = first.weights if isinstance(first, (Gemm, Experts)) else "fp8" if isinstance(first, IndexScores) else "bf16"
    memory, peak = device.memory_bytes_per_s * 1e-6, peak_flop_per_s(device, weights) * 1e-6
    seconds = isinstance(first, CHAINED)
    moved = asked[:, 0]
    kept = np.ones(len(samples), bool)
    if isinstance(first, Gemm):
        gemms = [s.work for s in samples if isinstance(s.work, Gemm)]
        stored = moved - np.array([2 * g.m * (g.n + g.k) for g in gemms])
        kept = (COPIES * stored > 1.5 * device.l2_bytes) | (np.array([g.m for g in gemms]) >= 512)
    elif device.l2_bytes / device.memory_bytes_per_s > CACHE_S:
        kept = (moved < 0.1 * device.l2_bytes) | (moved > 1.5 * device.l2_bytes) | (moved / memory < asked[:, 1] / peak)
    return _Table(
        read=moved / memory,
        math=asked[:, 1] / peak,
        scores=asked[:, 2] / peak,
        queue=asked[:, 3],
        chain=asked[:, 4] if seconds else asked[:, 4] / peak,
        passes=asked[:, 5] / memory,
        measured=np.array([s.seconds for s in samples]) * 1e6,
        held_out=np.array([s.held_out for s in samples]),
        sources=np.array([s.source for s in samples]),
        kept=kept,
    )


# Kinds whose chain takes chain_s; a prefill's is counted in flop.
CHAINED = (Gemm, DecodeAttention, LatentDecode, StateScan, IndexScores)
# Of (K1); launch, queue_s and chain_s in microseconds, a prefill's chain and passes as multiples, softmax in flop.
COEFFICIENTS = ("memory", "compute", "launch", "q", "queue_s", "chain", "softmax", "passes")
_START = np.array([0.7, 0.5, 5.0, 2.0, 1.0, 0.5, 50.0, 0.5])
_LOWEST = np.array([0.05, 0.01, 1.5, 1.0, 0.0, 0.0, 0.0, 0.0])
_HIGHEST = np.array([1.0, 1.0, 120.0, 8.0, 60.0, 60.0, 400.0, 40.0])
# What a coefficient usually is and by what factor (natural log) it varies from one kernel to another: the medians of the larger
# tables. Worth a few rows (PRIOR), so that a table of forty rows cannot put a coefficient where no other kernel has it.
_TYPICAL = {
    "gemm": np.array([0.8, 0.65, 4.0, 3.0, 1.0, 3.0, 1.0, 1.0]),
    "experts": np.array([0.87, 0.4, 30.0, 1.5, 1.0, 1.0, 1.0, 1.0]),
}
_VARIES = np.array([0.2, 0.5, 0.7, 0.7, 1.0, 1.0, 1.0, 1.0])
PRIOR = 6.0
# Attention counts the 16-bit peak, which kernels over an 8-bit cache may pass.
_HIGHEST_ATTENTION = 1.5


def _free(work: Kernel) -> Vector:
    """Which coefficients a kind of kernel has. One head size (MLA) cannot tell scores from flop."""
    queue = isinstance(work, (DecodeAttention, LatentDecode, StateScan, StateUpdate))
    chain = isinstance(work, (*CHAINED, PrefillAttention, LatentPrefill))
    return np.array([True, not isinstance(work, StateUpdate), True, True, queue, chain, isinstance(work, PrefillAttention),
                     isinstance(work, Experts)])  # fmt: skip


def _solve(table: _Table, use: Vector, work: Kernel) -> Vector:
    free = _free(work)
    start, highest = np.where(free, _START, 0.0), _HIGHEST.copy()
    start[1] = _START[1]
    if not isinstance(work, (Gemm, Experts)):
        highest[1] = _HIGHEST_ATTENTION

    typical = _TYPICAL.get("gemm" if isinstance(work, Gemm) else "experts" if isinstance(work, Experts) else "")

    def residual(values: Vector) -> Vector:
        p = start.copy()
        p[free] = values
        off = np.log(table.predict(p)[use] / table.measured[use])
        if typical is None:
            return off
        return np.append(off, PRIOR * ROBUST * (np.log(np.maximum(values, 1e-3) / typical[free]) / _VARIES[free]))

    solution = least_squares(
        residual, start[free], bounds=(_LOWEST[free], highest[free]), loss="soft_l1", f_scale=ROBUST,
        x_scale=np.maximum(start[free], 0.05), max_nfev=300,
    )  # fmt: skip
    p = start.copy()
    p[free] = solution.x
    return p


def _shape(work: Kernel, p: Vector) -> tuple[tuple[str, float], ...]:
    """The further coefficients of a kind, by the names that `roofline.compute` reads."""
    if isinstance(work, (DecodeAttention, LatentDecode, StateScan)):
        return (("queue_s", rounded(p[4] * 1e-6)), ("chain_s", rounded(p[5] * 1e-6)))
    if isinstance(work, StateUpdate):
        return (("queue_s", rounded(p[4] * 1e-6)),)
    if isinstance(work, PrefillAttention):
        return (("chain", rounded(p[5])), ("softmax", rounded(p[6])))
    if isinstance(work, LatentPrefill):
        return (("chain", rounded(p[5])),)
    if isinstance(work, (Gemm, IndexScores)):
        return (("chain_s", rounded(p[5] * 1e-6)),)
    return (("passes", rounded(p[7])),)


def _choose(table: _Table, work: Kernel) -> tuple[list[str], list[str]]:
    """(pooled, dropped) sources: those within TOLERATED of the fastest, by the geometric mean over every shape of the table."""
    speed: dict[str, float] = {}
    for source in sorted({str(s) for s in table.sources}):
        use = table.kept & (table.sources == source)
        if use.sum() >= FEWEST:
            fitted = table.predict(_solve(table, use, work))
            speed[source] = float(np.exp(np.mean(np.log(fitted[table.kept]))))
    if not speed:
        return sorted({str(s) for s in table.sources}), []
    wide = [value for s, value in speed.items() if (table.kept & (table.sources == s)).sum() >= REFERENCE]
    best = min(wide or speed.values())
    pooled = [s for s, value in speed.items() if value <= TOLERATED * best]
    return pooled, [s for s in speed if s not in pooled]


def fit_reach(samples: Sequence[Sample], device: Device, *, source: str) -> Fit:
    """Coefficients of samples of one key on one device: fitted on three shapes in four, residuals reported on the fourth."""
    if isinstance(samples[0].work, (PrefillAttention, DecodeAttention)):
        # TensorRT-LLM's rows time RoPE and the cache write with the attention: used only where nobody else was measured.
        samples = [s for s in samples if not s.source.startswith("trtllm")] or samples
    table, work = _table(samples, device), samples[0].work
    pooled, dropped = _choose(table, work)
    among = table.kept & np.isin(table.sources, pooled)
    p = _solve(table, among & ~table.held_out, work)
    report = among & table.held_out
    off = np.abs(table.predict(p)[report] / table.measured[report] - 1)
    reach = Reach(
        memory=rounded(p[0]),
        compute=rounded(p[1]),
        launch_s=rounded(p[2] * 1e-6),
        sharpness=rounded(p[3]),
        shape=_shape(work, p),
        provenance=Provenance(
            source=source,
            closeness="device",
            points=int(among.sum()),
            median=rounded(float(np.median(off))) if len(off) else None,
            p90=rounded(float(np.quantile(off, 0.9))) if len(off) else None,
        ),
    )
    return Fit(key=samples[0].key, reach=reach, sources=tuple(pooled), dropped=tuple(dropped))


def error_of(reach: Reach, sources: Sequence[str], samples: Sequence[Sample], device: Device) -> tuple[float, float]:
    """(median, p90) of |predicted / measured - 1| when `reach` is served for the held-out samples of these sources."""
    table = _table([s for s in samples if s.source in sources], device)
    named = reach.coefficient
    p = np.array([
        reach.memory, reach.compute, reach.launch_s * 1e6, reach.sharpness, named("queue_s", 0.0) * 1e6,
        named("chain", 0.0) or named("chain_s", 0.0) * 1e6, named("softmax", 0.0), named("passes", 0.0),
    ])  # fmt: skip
    use = table.kept & table.held_out
    off = np.abs(table.predict(p)[use] / table.measured[use] - 1)
    return float(np.median(off)), float(np.quantile(off, 0.9))


def rounded(value: float) -> float:
    """Three significant digits: more is noise, and the same on every machine."""
    return float(f"{value:.3g}")


def by_key(samples: Sequence[Sample]) -> dict[tuple[str, str], list[Sample]]:
    """Samples grouped by (hardware, key)."""
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.hardware, sample.key].append(sample)
    return groups
