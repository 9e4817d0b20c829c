"""Multipliers of the bare kernels in one engine on one device, with the corrections of the user's own runs.

A scale is the product of all that match, 1.0 where none does (S1 of docs/physics.md):

    scale(part) = s(part) s(part, architecture) s(part, architecture, format) s(part, device) * correction(part)
"""

from __future__ import annotations

from dataclasses import replace

from advisor.roofline.compute import peak_flop_per_s
from advisor.roofline.work import Experts, Gemm, Kernel, LatentPrefill, PrefillAttention, StateScan
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import Device
from advisor.specs.engine import Engine
from advisor.specs.keys import ScaleKey
from advisor.specs.model import ModelSpec


class EngineScales:
    """The scales of each part of a step."""

    __slots__ = ("_device", "attention", "collective", "decode", "experts", "host", "prefill", "unsplit")

    def __init__(self, engine: Engine, calibration: Calibration, device: Device, model: ModelSpec) -> None:
        fitted, corrections = dict(engine.scales), dict(calibration.scales)
        scopes = scale_scopes(model, engine, device)

        def of(part: str) -> float:
            found = fitted.get(ScaleKey(part), 1.0)
            for where, number_format in scopes:
                found *= fitted.get(ScaleKey(part, where, number_format), 1.0)
            return found

        self.decode = of("decode") * corrections.get("decode", 1.0)
        self.prefill = of("prefill") * corrections.get("prefill", 1.0)
        self.collective = of("collective") * corrections.get("collective", 1.0)
        self.host = of("host") * corrections.get("host", 1.0)
        self.experts = of("experts")
        self.attention = of("attention") * self.decode
        self.unsplit = fitted.get(ScaleKey("attention", "unsplit"), 1.0)
        self._device = device

    def of(self, work: Kernel) -> float:
        """The scale of a kernel: decode's where memory binds, prefill's where the tensor cores do, by the ideal share of each."""
        if isinstance(work, PrefillAttention | LatentPrefill | StateScan):
            return self.prefill
        if isinstance(work, Gemm | Experts):
            share = memory_share(work, self._device)
            scale = float(self.decode**share * self.prefill ** (1.0 - share))
            return scale * self.experts if isinstance(work, Experts) else scale
        return self.attention


def as_computed(model: ModelSpec, engine: Engine, device: Device) -> ModelSpec:
    """The model with its experts in the format that the engine multiplies them in on this device (`Engine.experts_as`)."""
    major = device.compute_capability.split(".")[0]
    for generation, stored, computed in engine.experts_as:
        if (generation, stored) == (major, model.formats.experts):
            return replace(model, formats=replace(model.formats, experts=computed))
    return model


def scale_scopes(model: ModelSpec, engine: Engine, device: Device) -> tuple[tuple[str, str], ...]:
    """What finer scales a question takes: (architecture or device, number format of the weights as computed, "": any)."""
    computed = as_computed(model, engine, device)
    weights = computed.weight_format
    return (device.architecture, ""), (device.architecture, weights), (device.name, "")


def memory_share(work: Gemm | Experts, device: Device) -> float:
    """Which share of a product's ideal time is reading: read / (read + multiply), both at the data sheet's rates."""
    read_s = work.hbm_bytes / device.memory_bytes_per_s
    math_s = work.flop / peak_flop_per_s(device, work.weights)
    return read_s / (read_s + math_s) if read_s + math_s else 1.0
