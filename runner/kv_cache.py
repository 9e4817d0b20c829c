"""The static key-value cache of one batch: allocated once, in pages, read whole pages at a time.

Legend: `P` pages, `B` sequences, `K` key-value heads of this rank, `d` head width. A layer with a window is a ring that keeps
just the window; the position that a slot holds follows from the sequence's own position, so nothing else is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PAGE_TOKENS = 256  # a decode step reads whole pages, one block of the GPU each: long enough to stream, short enough to be many


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
    """Keys (P, B, K, page, d) and values of one layer."""

    def __init__(self, shape: CacheShape, batch: int, context: int, page: int, *, device: torch.device, dtype: torch.dtype) -> None:
        kept = min(context, shape.window) if shape.window else context
        self.page = min(page, kept)
        pages = -(-kept // self.page)
        self.slots = pages * self.page
        size = (pages, batch, shape.heads, self.page)
        self.keys = torch.zeros((*size, shape.key_dim), device=device, dtype=dtype)
        self.values = torch.zeros((*size, shape.value_dim), device=device, dtype=dtype) if shape.value_dim else None

    def write_prompt(self, keys: Tensor, values: Tensor | None, first: int = 0) -> None:
        """Keep (B, K, T, d) of the tokens from `first`; of those a ring has room for, the last."""
        batch, _, tokens, _ = keys.shape
        positions = torch.arange(max(0, tokens - self.slots), tokens, device=keys.device)
        page, slot = self._place(positions + first)
        self.keys[page, :batch, :, slot] = keys[:, :, positions].permute(2, 0, 1, 3)
        if values is not None and self.values is not None:
            self.values[page, :batch, :, slot] = values[:, :, positions].permute(2, 0, 1, 3)

    def write_token(self, keys: Tensor, values: Tensor | None, positions: Tensor) -> None:
        """Keep (B, K, d) of one token a sequence at `positions` (B)."""
        page, slot = self._place(positions)
        rows = torch.arange(positions.shape[0], device=positions.device)
        self.keys[page, rows, :, slot] = keys
        if values is not None and self.values is not None:
            self.values[page, rows, :, slot] = values

    def pages(self, span: int, batch: int) -> tuple[Tensor, Tensor | None]:
        """Keys and values of the pages that `span` tokens reach into."""
        count = -(-min(span, self.slots) // self.page)
        return self.keys[:count, :batch], None if self.values is None else self.values[:count, :batch]

    def held(self, positions: Tensor, pages: int) -> Tensor:
        """The token position in each slot (P, B, page) after the token at `positions` was written; negative where none is."""
        slots = torch.arange(pages * self.page, device=positions.device).view(pages, 1, self.page)
        at = positions.view(1, -1, 1)
        return at - (at - slots) % self.slots

    def _place(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        slot = positions % self.slots
        return slot // self.page, slot % self.page


class KvCache:
    """The caches of a rank's layers for `batch` sequences of up to `context` tokens."""

    def __init__(
        self,
        shapes: Sequence[CacheShape],
        *,
        batch: int,
        context: int,
        device: torch.device,
        dtype: torch.dtype,
        page: int = PAGE_TOKENS,
    ) -> None:
        self.batch, self.context = batch, context
        self.layers = [LayerCache(shape, batch, context, page, device=device, dtype=dtype) for shape in shapes]

    @property
    def bytes(self) -> int:
        """Memory of all layers."""
        tensors = [t for layer in self.layers for t in (layer.keys, layer.values) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)
