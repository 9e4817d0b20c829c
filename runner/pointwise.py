"""The element-wise parts between the matrix products: norms, rotation, activations. Compiled into one kernel each where it pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from runner.fused import BACKEND, RECOMPILES
from runner.rope import rotate

SWIGLU_LIMIT, SWIGLU_ALPHA = 7.0, 1.702  # gpt-oss: clamp of gate and up, and the sigmoid's slope


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * (offset + weight), in fp32."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * (weight.float() + offset)).to(x.dtype)


def add_rms_norm(x: Tensor, branch: Tensor, weight: Tensor, eps: float, offset: float) -> tuple[Tensor, Tensor]:
    """The residual with a branch added, and its norm."""
    x = x + branch
    return x, rms_norm(x, weight, eps, offset)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, offset: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * (offset + weight) + bias, in fp32."""
    wide = functional.layer_norm(x.float(), x.shape[-1:], weight.float() + offset, None if bias is None else bias.float(), eps)
    return wide.to(x.dtype)


def gate(both: Tensor, activation: str) -> Tensor:
    """act(gate) * up of a fused product [gate | up]."""
    a, b = both.chunk(2, dim=-1)
    if activation == "swigluoai":
        a, b = a.clamp(max=SWIGLU_LIMIT), b.clamp(-SWIGLU_LIMIT, SWIGLU_LIMIT)
        return a * torch.sigmoid(SWIGLU_ALPHA * a) * (b + 1)
    return act(a, activation) * b


def act(x: Tensor, activation: str) -> Tensor:
    """One of the catalogue's activations."""
    if activation == "silu":
        return functional.silu(x)
    if activation in ("gelu", "gelu_tanh"):
        return functional.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    relu = functional.relu(x)
    return relu * relu if activation == "relu2" else relu


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise:
    """The functions above, plain or compiled."""

    rms_norm: Callable[[Tensor, Tensor, float, float], Tensor]
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float, float], tuple[Tensor, Tensor]]
    layer_norm: Callable[[Tensor, Tensor, Tensor | None, float, float], Tensor]
    rotate: Callable[..., Tensor]
    gate: Callable[[Tensor, str], Tensor]
    act: Callable[[Tensor, str], Tensor]

    @classmethod
    def of(cls, *, compiled: bool) -> Pointwise:
        """`compiled` True: each is one fused kernel (torch.compile), built anew for the kinds of shapes it meets."""
        if compiled:
            torch._dynamo.config.recompile_limit = RECOMPILES

        def made(function: Callable[..., Any]) -> Any:
            return cast(Any, torch.compile(function, backend=BACKEND)) if compiled else function

        return cls(
            rms_norm=made(rms_norm),
            add_rms_norm=made(add_rms_norm),
            layer_norm=made(layer_norm),
            rotate=made(rotate),
            gate=made(gate),
            act=made(act),
        )
