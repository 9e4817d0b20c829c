"""Number formats of weights and cache: how many bytes a value takes with its scales, and what the tensor cores multiply it in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """One way to store a value.

    `bytes_per_value` counts the block scales (and zero points); `compute` is the key of `Device.peak_flop_per_s` that the
    matrix product runs at; `block` is the side of a scale block along the split dimension, which a shard has to respect.
    """

    name: str
    bytes_per_value: float
    compute: str
    weight_only: bool = False
    block: int = 1


def _f(name: str, bits: float, compute: str, *, weight_only: bool = False, block: int = 1) -> NumberFormat:
    return NumberFormat(name=name, bytes_per_value=bits / 8, compute=compute, weight_only=weight_only, block=block)


# Bits per value: the format's own bits plus its scales, spread over the block that shares them.
FORMATS: dict[str, NumberFormat] = {
    f.name: f
    for f in (
        _f("fp32", 32, "fp32"),
        _f("bf16", 16, "bf16"),
        _f("fp16", 16, "bf16"),
        _f("fp8", 8, "fp8"),
        _f("fp8-block", 8 + 32 / (128 * 128), "fp8", block=128),  # DeepSeek-V3 report, section 3.3.2: 128 x 128, fp32 scale
        _f("int8", 8, "int8"),
        _f("int8-wo", 8, "bf16", weight_only=True),
        _f("int4", 4 + (16 + 4) / 128, "bf16", weight_only=True, block=128),  # AWQ/GPTQ, group 128: fp16 scale, 4-bit zero
        _f("int4-g32", 4 + 16 / 32, "bf16", weight_only=True, block=32),  # symmetric, one bf16 scale for 32 values (Kimi K2.5)
        _f("nvfp4", 4 + 8 / 16, "nvfp4", block=16),  # one fp8 scale for 16 values
        _f("nvfp4-wo", 4 + 8 / 16, "bf16", weight_only=True, block=16),  # the same bytes, 16-bit activations (modelopt W4A16)
        _f("mxfp4", 4 + 8 / 32, "bf16", weight_only=True, block=32),  # OCP MX: one 8-bit scale for 32 values; bf16 activations
        # The same weights multiplied with 8-bit activations (mxfp8, scaled in blocks of 32 too): no checkpoint's own format, but
        # how some engines compute mxfp4 experts (`Engine.experts_as`). NVIDIA's tensor cores multiply fp4 by fp8 at the fp8 rate.
        _f("mxfp4-mxfp8", 4 + 8 / 32, "fp8", block=32),
        _f("q4_k_m", 4.85, "bf16", weight_only=True, block=256),  # llama.cpp README, quantize: 4.85 bits per weight for Llama-3-8B
    )
}
