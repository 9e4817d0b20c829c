"""Seconds of one kernel: the sizes of a Work, the data sheet of a Device, and what a Calibration says that it reaches.

Legend: `Q` bytes moved, `F` flop done, `B` memory bytes/s and `P` flop/s of the data sheet. Every kind shares (K1),

    t = ((Q / (B memory))^q + (F / (P compute))^q)^(1/q) + launch,

and the kinds below say what they count as Q and F. Source of the coefficients: `advisor.calibrate.kernels`.
"""

from __future__ import annotations

from advisor.errors import ProfileError
from advisor.roofline.work import (
    DecodeAttention,
    Experts,
    Gemm,
    Kernel,
    LatentDecode,
    LatentPrefill,
    PrefillAttention,
    Stream,
)
from advisor.specs.calibration import Calibration, Reach
from advisor.specs.cluster import Device
from advisor.specs.formats import FORMATS

# Where a format has no coefficients of its own: the formats that are read and multiplied most like it, nearest first.
NEAREST = {
    "fp16": ("bf16",),
    "fp32": ("bf16",),
    "fp8": ("fp8-block", "int8", "bf16"),
    "fp8-block": ("fp8", "bf16"),
    "int8": ("fp8", "bf16"),
    "int8-wo": ("int4", "bf16"),
    "int4": ("int8-wo", "bf16"),
    "mxfp4": ("int4", "nvfp4", "bf16"),
    "nvfp4": ("fp8", "bf16"),
    "q4_k_m": ("int4", "int8-wo", "bf16"),
}
KINDS: dict[type, str] = {
    Gemm: "gemm",
    Experts: "experts",
    PrefillAttention: "attention_prefill",
    DecodeAttention: "attention_decode",
    LatentPrefill: "mla_prefill",
    LatentDecode: "mla_decode",
    Stream: "stream",
}
_CACHED = 64


class _Prepared:
    """Reaches of one device, looked up once: rates in bytes/s and flop/s instead of shares."""

    __slots__ = ("calibration", "device", "reaches", "rows")

    def __init__(self, device: Device, calibration: Calibration) -> None:
        self.device, self.calibration = device, calibration
        self.reaches = dict(calibration.kernels)
        self.rows: dict[tuple[type, str], tuple[float, float, float, float]] = {}

    def row(self, kind: type, number_format: str) -> tuple[float, float, float, float]:
        """(bytes/s, flop/s, launch seconds, q) of a kind of kernel in a number format."""
        key = (kind, number_format)
        found = self.rows.get(key)
        if found is None:
            reach = reach_of(self.reaches, KINDS[kind], number_format, self.calibration.name)
            peak = 1.0 if kind is Stream else peak_flop_per_s(self.device, number_format)
            found = self.device.memory_bytes_per_s * reach.memory, peak * reach.compute, reach.launch_s, reach.sharpness
            self.rows[key] = found
        return found


_prepared: dict[tuple[int, int], _Prepared] = {}


def _prepare(device: Device, calibration: Calibration) -> _Prepared:
    """The prepared rows of this pair of objects; a bounded memo that keeps them alive, so that an id is never another's."""
    key = (id(device), id(calibration))
    found = _prepared.get(key)
    if found is None:
        if len(_prepared) >= _CACHED:
            _prepared.clear()
        found = _prepared[key] = _Prepared(device, calibration)
    return found


def reach_of(reaches: dict[str, Reach], kind: str, number_format: str, name: str) -> Reach:
    """The coefficients of `kind` in a number format, or in the nearest one that has any. Raises ProfileError when none has."""
    for candidate in (number_format, *NEAREST.get(number_format, ())):
        found = reaches.get(f"{kind}/{candidate}")
        if found is not None:
            return found
    found = reaches.get(kind)
    if found is None:
        raise ProfileError(f"calibration {name} has no coefficients for {kind}/{number_format}: add that key to the file.")
    return found


def peak_flop_per_s(device: Device, number_format: str) -> float:
    """Dense peak at which the device multiplies a format; 16 bits where its tensor cores lack it (weights are widened first).

    Raises ProfileError when the data sheet has no 16-bit peak.
    """
    peak = device.peak(FORMATS[number_format].compute) or device.peak("bf16") or device.peak("fp16")
    if not peak:
        raise ProfileError(f"{device.name} states no peak for {number_format} nor for 16 bits: add one to its hardware file.")
    return peak


def kernel_s(work: Kernel, device: Device, calibration: Calibration) -> float:
    """Seconds of all `work.count` repeats of one kernel on one device, (K1)."""
    kind = type(work)
    if kind is Gemm or kind is Experts:
        number_format = work.weights  # type: ignore[union-attr]
    elif kind is Stream:
        rate, _, launch_s, _ = _prepare(device, calibration).row(kind, "bf16")
        return work.hbm_bytes / rate + launch_s * work.kernels * work.count  # type: ignore[union-attr]
    else:
        number_format = work.cache  # type: ignore[union-attr]
    memory, compute, launch_s, q = _prepare(device, calibration).row(kind, number_format)
    read_s, math_s = work.hbm_bytes / memory, work.flop / compute
    low, high = (read_s, math_s) if read_s < math_s else (math_s, read_s)
    if high <= 0.0:
        return 0.0
    return float(high * (1.0 + (low / high) ** q) ** (1.0 / q) + launch_s * work.count)
