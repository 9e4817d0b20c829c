"""Rotary position embedding with the published long-context scalings.

Sources: RoFormer (default), Hugging Face `modeling_rope_utils` conventions for linear, dynamic (NTK), llama3, yarn, longrope.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advisor.specs.model import Rope


class Rotation:
    """Cosine and sine of positions for one named embedding over heads of `head_dim`."""

    def __init__(self, rope: Rope, head_dim: int, device: torch.device) -> None:
        self.rope = rope
        self.width = int(head_dim * rope.fraction)
        self.factor = rope.attention_factor or 1.0
        steps = torch.arange(0, self.width, 2, dtype=torch.float32) / self.width
        self._steps = steps.to(device)
        self._plain = _frequencies(rope, rope.theta**-steps, self.width).to(device)
        self._long = (rope.theta**-steps / torch.tensor(rope.long_factor)).to(device) if rope.kind == "longrope" else None

    def __call__(self, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, (N, width / 2) in fp32, of N `positions`; `lengths` (N) is how long each one's sequence is by now.

        Keys keep the turn they were cached with, as in Hugging Face, when a longer sequence changes the frequencies.
        """
        angles = positions[:, None].float() * self._inverse(lengths)
        return angles.cos() * self.factor, angles.sin() * self.factor

    def _inverse(self, lengths: Tensor) -> Tensor:
        long = lengths[:, None] > self.rope.original_context
        if self._long is not None:
            return torch.where(long, self._long, self._plain)
        if self.rope.kind == "dynamic":
            # NTK: theta grows with the length so that the slowest turn still spans it.
            grown = self.rope.factor * lengths[:, None].double() / self.rope.original_context - (self.rope.factor - 1)
            theta = self.rope.theta * grown.clamp(min=1.0) ** (self.width / (self.width - 2))
            return torch.where(long, (theta**-self._steps).float(), self._plain)
        return self._plain


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool) -> Tensor:
    """Turn the first `2 * cos.shape[-1]` of each head's dimensions; `cos`, `sin` broadcast against (..., width / 2)."""
    width = 2 * cos.shape[-1]
    turned, rest = x[..., :width].float(), x[..., width:]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        out = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = turned.chunk(2, dim=-1)
        out = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    out = out.to(x.dtype)
    return torch.cat((out, rest), dim=-1) if rest.shape[-1] else out


def _frequencies(rope: Rope, inverse: Tensor, width: int) -> Tensor:
    if rope.kind == "linear":
        return inverse / rope.factor
    if rope.kind == "llama3":
        return _llama3(rope, inverse)
    if rope.kind == "yarn":
        return _yarn(rope, inverse, width)
    if rope.kind == "longrope":
        return inverse / torch.tensor(rope.short_factor)
    return inverse


def _llama3(rope: Rope, inverse: Tensor) -> Tensor:
    """Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended."""
    turns = rope.original_context * inverse / (2 * math.pi)
    keep = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0.0, 1.0)
    return inverse / rope.factor * (1 - keep) + inverse * keep


def _yarn(rope: Rope, inverse: Tensor, width: int) -> Tensor:
    """Yarn paper, section 3.2: a ramp over dimensions between `beta_fast` and `beta_slow` turns of the original context."""

    def dimension(turns: float) -> float:
        return width * math.log(rope.original_context / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = ((torch.arange(width // 2) - low) / max(high - low, 0.001)).clamp(0.0, 1.0)
    return inverse / rope.factor * ramp + inverse * (1 - ramp)
