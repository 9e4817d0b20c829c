"""The static key-value cache of one batch: allocated once, one run of tokens for each sequence and head.

Legend: `B` sequences, `K` key-value heads of this rank, `S` slots of a sequence, `d` head width, `N` rows of a step. A layer with a
window is a ring that keeps just the window; the position that a slot holds follows from the sequence's own position, so nothing
else is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """What one layer keeps a token: `heads` keys of `key_dim` and values of `value_dim` (0: the value is part of the key).

    `window` 0 keeps everything.
    """

    heads: int
    key_dim: int
    value_dim: int
    window: int = 0


class LayerCache:
    """Keys (B, K, S, d) and values of one layer."""

    def __init__(self, shape: CacheShape, batch: int, context: int, *, device: torch.device, dtype: torch.dtype) -> None:
        self.slots = min(context, shape.window) if shape.window else context
        size = (batch, shape.heads, self.slots)
        self.keys = torch.zeros((*size, shape.key_dim), device=device, dtype=dtype)
        self.values = torch.zeros((*size, shape.value_dim), device=device, dtype=dtype) if shape.value_dim else None

    def write(self, keys: Tensor, values: Tensor | None, sequences: Tensor, positions: Tensor) -> None:
        """Keep (N, K, d) of tokens at `positions` (N) of `sequences` (N). No slot may be named twice."""
        slots = positions % self.slots
        self.keys[sequences, :, slots] = keys
        if values is not None and self.values is not None:
            self.values[sequences, :, slots] = values

    def before(self, sequences: slice, past: int, chunk: int) -> tuple[Tensor, Tensor | None]:
        """Keys and values of the tokens before position `past` that are still here, oldest first; `chunk` more are to be written.

        A copy where that writing could overwrite them.
        """
        if past + chunk <= self.slots:
            kept = slice(0, past)
            return self.keys[sequences, :, kept], None if self.values is None else self.values[sequences, :, kept]
        slots = torch.arange(max(0, past - self.slots), past, device=self.keys.device) % self.slots
        return self.keys[sequences][:, :, slots], None if self.values is None else self.values[sequences][:, :, slots]

    def held(self, positions: Tensor, count: int) -> Tensor:
        """The token position in each of the first `count` slots (B, count) after the token at `positions` (B) was written; negative
        where none is."""
        at = positions[:, None]
        return at - (at - torch.arange(count, device=positions.device)) % self.slots


class KvCache:
    """The caches of a rank's layers for `batch` sequences of up to `context` tokens."""

    def __init__(self, shapes: Sequence[CacheShape], *, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> None:
        self.batch, self.context = batch, context
        self.layers = [LayerCache(shape, batch, context, device=device, dtype=dtype) for shape in shapes]

    @property
    def bytes(self) -> int:
        """Memory of all layers."""
        tensors = [t for layer in self.layers for t in (layer.keys, layer.values) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)
