"""Fit the straight lines of one collective: two protocols, each a latency and a share of the link, the faster one taken (C1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from advisor.roofline.comm import wire_bytes
from advisor.specs.calibration import Provenance, WireReach
from fitting.tables import WireSample

# Largest message for which engines call their own all-reduce (vLLM's custom_all_reduce.py, max_size; TensorRT-LLM's tables join
# NCCL's there); beyond it they call NCCL.
OWN_BYTES = 8 * 2.0**20
EVERY = 4  # one message size in four is kept for the report
FOREVER = 1e18
UNBOUNDED = ("nccl", "experts")  # algorithms that take messages of any size
# NVLS adds inside the switch, so that a rank sends less than a ring's 2 p (n - 1) / n: the share may pass 1 by a little.
HIGHEST_SHARE = 1.1
ROBUST = 0.08
Vector = Any  # numpy array of floats


def newest(samples: Sequence[WireSample]) -> list[WireSample]:
    """Samples of the newest version of each library (its version is the last word of the source)."""
    latest: dict[str, tuple[list[int], str]] = {}
    for sample in samples:
        *name, version = sample.source.split()
        parts = [int("".join(filter(str.isdigit, p)) or 0) for p in version.replace("rc", ".").split(".")]
        latest[name[0]] = max(latest.get(name[0], ([], "")), (parts, sample.source))
    kept = {source for _, source in latest.values()}
    return [s for s in samples if s.source in kept]


def fit_lines(samples: Sequence[WireSample], link_bytes_per_s: float, *, source: str) -> list[WireReach]:
    """Two lines for samples of one (op, algorithm, ranks): low latency first. Residuals are those of held-out message sizes."""
    algorithm, samples = samples[0].algorithm, newest(samples)
    if algorithm not in UNBOUNDED:
        samples = [s for s in samples if s.payload_bytes <= OWN_BYTES]
    if algorithm == "custom":  # SGLang's differ by a few microseconds; vLLM's kernels are the reference
        samples = [s for s in samples if s.source.startswith("vLLM")]
    sizes = sorted({s.payload_bytes for s in samples})
    ranks = samples[0].ranks
    wire = np.array([wire_bytes(s.op, s.payload_bytes, ranks) for s in samples]) / link_bytes_per_s * 1e6
    measured = np.array([s.seconds for s in samples]) * 1e6
    held_out = np.array([sizes.index(s.payload_bytes) % EVERY == 2 for s in samples])

    def predict(p: Vector) -> Vector:
        return np.minimum(p[0] + wire / p[1], p[0] + p[2] + wire / _share(p))

    def residual(p: Vector) -> Vector:
        return np.log(predict(p) / measured)[~held_out]

    best: Any = None
    for low, high in ((0.05, 0.6), (0.3, 0.7), (0.6, 0.4)):  # the crossing point makes valleys: start from several
        solution = least_squares(
            residual, [float(np.quantile(measured, 0.1)), low, 10.0, high], bounds=([1, 0.002, 0, 0], [100, HIGHEST_SHARE, 400, 1]),
            loss="soft_l1", f_scale=ROBUST, x_scale=[5, 0.1, 10, 0.2], max_nfev=400,
        )  # fmt: skip
        if best is None or solution.cost < best.cost:
            best = solution
    p = best.x
    off = np.abs(predict(p) / measured - 1)[held_out]
    provenance = Provenance(
        source=source, closeness="device", points=len(samples),
        median=_round(float(np.median(off))), p90=_round(float(np.quantile(off, 0.9))),
    )  # fmt: skip
    up_to = FOREVER if algorithm in UNBOUNDED else OWN_BYTES
    return [
        WireReach(
            alpha_s=_round(alpha * 1e-6), alpha_per_rank_s=0.0, bandwidth=_round(share), up_to_bytes=up_to, provenance=provenance
        )
        for alpha, share in ((p[0], p[1]), (p[0] + p[2], _share(p)))
    ]


def _share(p: Vector) -> Vector:
    """Share of the second line: above the first one's, by a part of what is left."""
    return p[1] + p[3] * (HIGHEST_SHARE - p[1])


def per_rank(fits: dict[int, list[WireReach]]) -> dict[int, list[WireReach]]:
    """The same lines with the latency that one more rank adds, from one rank count to the next (the last step goes on)."""
    counts = sorted(fits)
    slopes: dict[int, list[float]] = defaultdict(list)
    for low, high in pairwise(counts):
        slopes[low] = [max(0.0, (b.alpha_s - a.alpha_s) / (high - low)) for a, b in zip(fits[low], fits[high], strict=True)]
    if len(counts) > 1:
        slopes[counts[-1]] = slopes[counts[-2]]
    return {
        count: [
            WireReach(
                alpha_s=line.alpha_s, alpha_per_rank_s=_round(slope), bandwidth=line.bandwidth, up_to_bytes=line.up_to_bytes,
                provenance=line.provenance,
            )
            for line, slope in zip(lines, slopes.get(count) or [0.0] * len(lines), strict=True)
        ]
        for count, lines in fits.items()
    }  # fmt: skip


def _round(value: float) -> float:
    return float(f"{value:.3g}")
