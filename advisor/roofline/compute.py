"""Seconds of one kernel: the sizes of a Work, the data sheet of a Device, and what a Calibration says that it reaches.

Legend: `Q` bytes moved, `F` flop done, `B` memory bytes/s and `P` flop/s of the data sheet, `c` named coefficients of a Reach.
Every kind shares one formula, (K1) of docs/physics.md,

    t = (read^q + math^q + queue^q + chain^q)^(1/q) + launch + passes
    read = Q / (B memory)    math = (F + softmax scores) / (P compute)

and `demand` says, kind by kind, what is counted as each. Source of the coefficients: `fitting.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from advisor.errors import ProfileError
from advisor.roofline.work import (
    ACTIVATION_BYTES,
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
    Stream,
)
from advisor.specs.calibration import Calibration, Reach
from advisor.specs.cluster import Device
from advisor.specs.formats import FORMATS
from advisor.specs.keys import KernelKey

# Where a format has no coefficients of its own: the formats that are read and multiplied most like it, nearest first.
NEAREST = {
    "fp8": ("fp8-block", "int8"),
    "fp8-block": ("fp8",),
    "int8": ("fp8",),
    "int8-wo": ("int4",),
    "int4": ("mxfp4", "int8-wo"),
    "mxfp4": ("int4", "nvfp4"),
    "mxfp4-mxfp8": ("nvfp4", "mxfp4", "fp8"),
    "nvfp4": ("mxfp4", "fp8"),
}


def nearest(number_format: str) -> tuple[str, ...]:
    """A format, then those most like it: weight-only formats stand together, the others by what the tensor cores multiply."""
    stored = FORMATS[number_format]
    like = NEAREST.get(number_format) or (("int4", "int8-wo", "mxfp4") if stored.weight_only else (stored.compute,))
    return (number_format, *like, "bf16")


KINDS: dict[type, str] = {
    Gemm: "gemm",
    Experts: "experts",
    PrefillAttention: "attention_prefill",
    DecodeAttention: "attention_decode",
    LatentPrefill: "mla_prefill",
    LatentDecode: "mla_decode",
    StateScan: "state_scan",
    StateUpdate: "state_update",
    IndexScores: "index_scores",
    Stream: "stream",
}
# Rules of recurrent states whose kernels nobody measured: they read and write the same states as the gated delta rule's.
LIKE_RULE = {"kda": "gated-delta", "mamba2": "gated-delta", "linear": "gated-delta"}
# Query rows of one thread block of a FlashAttention kernel (flash-attention, hopper/tile_size.h: 128 for heads of 128 to 256).
ROWS_PER_BLOCK = 128
CHAIN_TOKENS = 1024  # the context at which a decode chain takes its coefficient, chain_s
CHAIN_DEPTH = 4096  # the k at which a GEMM's chain does

Demand = tuple[float, float, float, float, float, float]
"""(Q bytes, F flop, scores, queue, chain, passes bytes) of all repeats of a kernel; what a kind does not have is 0."""


def _gemm(work: Gemm, sms: int) -> Demand:
    """(K2) Q = weights + inputs + outputs, F = 2 m n k; chain: a thread block walks through its k one tile after the other,
    counted as k / 4096."""
    return work.hbm_bytes, work.flop, 0.0, 0.0, work.k / CHAIN_DEPTH * work.count, 0.0


def _experts(work: Experts, sms: int) -> Demand:
    """(K3) A grouped GEMM over the experts hit; passes: the rows of all tokens x top_k draws, of experts elsewhere too, are
    sorted, gathered, gated and summed again in buffers of the full size."""
    width = work.hidden * 2 + work.matrices * work.width
    return work.hbm_bytes, work.flop, 0.0, 0.0, 0.0, ACTIVATION_BYTES * work.tokens * work.top_k * width * work.count


def _prefill(work: PrefillAttention, sms: int) -> Demand:
    """(K4) F counts whole tiles on the causal diagonal, scores the exponentials, chain the longest thread block alone on its SM."""
    tile = min(float(ROWS_PER_BLOCK), work.new)
    both = work.head_dim + work.value_dim
    scores = work.batch * work.heads * (work.pairs + work.new * tile / 2) * work.count
    seen = work.past + work.new
    if work.window:
        seen = min(seen, work.window + tile)
    return work.hbm_bytes, 2 * scores * both, scores, 0.0, 2 * tile * seen * both * sms * work.count, 0.0


def _latent_prefill(work: LatentPrefill, sms: int) -> Demand:
    """(K4) with the expanded head sizes of MLA."""
    tile = min(float(ROWS_PER_BLOCK), work.new)
    both = work.head_dim + work.value_dim
    scores = work.batch * work.heads * (work.pairs + work.new * tile / 2) * work.count
    seen = min(work.past + work.new, work.seen + tile)
    return work.hbm_bytes, 2 * scores * both, scores, 0.0, 2 * tile * seen * both * sms * work.count, 0.0


def _decode(work: DecodeAttention, sms: int) -> Demand:
    """(K5) The cache is read once a group. queue: each (sequence, KV head) is a thread block that waits for an SM. chain: one
    sequence cut into k parts takes a S / k + b k to read and to combine, at best 2 sqrt(a b S): counted as sqrt(S / 1024)."""
    queue = work.batch * work.kv_heads / sms
    return work.hbm_bytes, work.flop, 0.0, queue * work.count, sqrt(work.seen / CHAIN_TOKENS) * work.count, 0.0


def _latent_decode(work: LatentDecode, sms: int) -> Demand:
    """(K5) with one latent head a sequence."""
    return work.hbm_bytes, work.flop, 0.0, work.batch / sms * work.count, sqrt(work.seen / CHAIN_TOKENS) * work.count, 0.0


def _state_update(work: StateUpdate, sms: int) -> Demand:
    """(K7) The states in and out; queue: each (sequence, head) is a thread block that waits for an SM."""
    return work.hbm_bytes, 0.0, 0.0, work.batch * work.heads / sms * work.count, 0.0, 0.0


def _state_scan(work: StateScan, sms: int) -> Demand:
    """(K8) Rows and the state of every chunk out and in; queue: every chunk of every head waits for an SM; chain: a sequence's
    chunks one after the other."""
    blocks = work.batch * work.heads * work.chunks / sms
    return work.hbm_bytes, work.flop, 0.0, blocks * work.count, work.chunks * work.count, 0.0


def _index_scores(work: IndexScores, sms: int) -> Demand:
    """(K9) Keys read and scores written, in flop of the indexer's heads; chain: the best of one query's scores are chosen by one
    block, counted as keys in sight / 1024."""
    sight = work.pairs / work.queries if work.queries else 0.0
    return work.hbm_bytes, work.flop, 0.0, 0.0, sight / CHAIN_TOKENS * work.count, 0.0


_DEMANDS: dict[type, Callable[..., Demand]] = {
    Gemm: _gemm,
    Experts: _experts,
    PrefillAttention: _prefill,
    DecodeAttention: _decode,
    LatentPrefill: _latent_prefill,
    LatentDecode: _latent_decode,
    StateScan: _state_scan,
    StateUpdate: _state_update,
    IndexScores: _index_scores,
}


def demand(work: Kernel, sms: int) -> Demand:
    """What a kernel asks of a device with `sms` multiprocessors; the calibration fits its coefficients on the same numbers."""
    return _DEMANDS[type(work)](work, sms)


class _Rates:
    """Coefficients of one kind and format on one device, as seconds per byte, per flop, per score, per queued block, per chain."""

    __slots__ = ("chain", "flop", "launch_s", "passes", "q", "queue", "read", "root", "score")

    def __init__(self, reach: Reach, device: Device, kind: type, number_format: str) -> None:
        attention = kind in (PrefillAttention, DecodeAttention, LatentPrefill, LatentDecode)
        widened = attention or kind in (StateScan, StateUpdate)
        peak = 1.0 if kind is Stream else peak_flop_per_s(device, "bf16" if widened else number_format)
        self.read = 1.0 / (device.memory_bytes_per_s * reach.memory)
        self.flop = 1.0 / (peak * reach.compute)
        self.score = reach.coefficient("softmax", 0.0) * self.flop
        self.queue = reach.coefficient("queue_s", 0.0)
        self.chain = reach.coefficient("chain_s", 0.0) or reach.coefficient("chain", 0.0) / peak
        self.passes = reach.coefficient("passes", 0.0) / device.memory_bytes_per_s
        self.launch_s, self.q, self.root = reach.launch_s, reach.sharpness, 1.0 / reach.sharpness


class DeviceRates:
    """Rates of one device under one calibration; those of a kind and format are looked up once.

    An `engine` (vllm, sglang, trtllm) takes its own kernels where they were measured apart, else the best of all engines'.
    """

    __slots__ = ("_engine", "_found", "_name", "_reaches", "device")

    def __init__(self, device: Device, calibration: Calibration, engine: str = "") -> None:
        self.device, self._name = device, calibration.name
        self._reaches = dict(calibration.kernels)
        self._engine = engine
        self._found: dict[tuple[type, str], _Rates] = {}

    def find(self, kind: type, variant: str) -> _Rates:
        """Rates of a kind of kernel in a variant: a number format, or the rule of a state."""
        found = self._found.get((kind, variant))
        if found is None:
            reach = reach_of(self._reaches, KINDS[kind], variant, self._name, engine=self._engine)
            found = self._found[kind, variant] = _Rates(reach, self.device, kind, variant)
        return found


def reach_of(reaches: dict[KernelKey, Reach], kind: str, variant: str, name: str, *, engine: str = "") -> Reach:
    """The coefficients of `kind` in a variant, or in the nearest one that has any; an engine's own kernels go first.

    A variant is a number format, or the rule of a recurrent state. Raises ProfileError when nothing near it has coefficients.
    """
    near = nearest(variant) if variant in FORMATS else (variant, LIKE_RULE.get(variant, variant))
    for candidate in near:
        found = reaches.get(KernelKey(kind, candidate, engine)) or reaches.get(KernelKey(kind, candidate))
        if found is not None:
            return found
    found = reaches.get(KernelKey(kind))
    if found is None:
        raise ProfileError(f"calibration {name} has no coefficients for {kind}/{variant}: add that key to the file.")
    return found


def peak_flop_per_s(device: Device, number_format: str) -> float:
    """Dense peak at which the device multiplies a format; 16 bits where its tensor cores lack it (weights are widened first).

    Raises ProfileError when the data sheet has no 16-bit peak.
    """
    peak = device.peak(FORMATS[number_format].compute) or device.peak("bf16") or device.peak("fp16")
    if not peak:
        raise ProfileError(f"{device.name} states no peak for {number_format} nor for 16 bits: add one to its hardware file.")
    return peak


def _variant(work: Kernel) -> str:
    """What tells the kernels of one kind apart: the format of weights or cache, the rule of a state."""
    if isinstance(work, Gemm | Experts):
        return work.weights
    if isinstance(work, StateScan | StateUpdate):
        return work.rule
    return "fp8" if isinstance(work, IndexScores) else work.cache  # type: ignore[union-attr]


def kernel_s(work: Kernel, known: DeviceRates) -> float:
    """Seconds of all `work.count` repeats of one kernel on one device, (K1); a kernel without work takes none.

    Raises ProfileError when the calibration has nothing for such a kernel or the data sheet lacks its peak.
    """
    kind = type(work)
    if kind is Stream:  # (K6): memory traffic, and a launch for each of its kernels
        rates = known.find(kind, "bf16")
        return work.hbm_bytes * rates.read + rates.launch_s * work.kernels * work.count  # type: ignore[union-attr]
    rates = known.find(kind, _variant(work))
    moved, flop, scores, queue, chain, passes = _DEMANDS[kind](work, known.device.sms)
    read, math = moved * rates.read, flop * rates.flop + scores * rates.score
    longest = read if read > math else math
    if longest <= 0.0:
        return 0.0
    q = rates.q
    total = (read / longest) ** q + (math / longest) ** q
    if queue or chain:
        total += (queue * rates.queue / longest) ** q + (chain * rates.chain / longest) ** q
    return float(longest * total**rates.root + rates.launch_s * work.count + passes * rates.passes)
