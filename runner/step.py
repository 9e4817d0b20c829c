"""What one forward pass carries: which rows are decodes and which belong to prompts, where they stand, and what all layers share.

Legend: `N` rows of the step, one a token: first `decodes` sequences with one token each, then `prompts` sequences with `chunk`
tokens each, of which `past` are cached already.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Index arithmetic of a step, done once for all layers.

    `positions` and `sequences` (N) say where each row stands in the cache; decodes are its first sequences, prompts the next.
    `span` is how many cached tokens a decode may read, at least its longest position + 1. `turns` has cosine and sine
    (N, width / 2) by rope name.
    """

    decodes: int
    span: int
    prompts: int
    chunk: int
    past: int
    positions: Tensor
    sequences: Tensor
    turns: dict[str, tuple[Tensor, Tensor]]

    @property
    def prompt_sequences(self) -> slice:
        """Where the prompts lie in the cache."""
        return slice(self.decodes, self.decodes + self.prompts)

    def kept(self, slots: int) -> Tensor | None:
        """The rows that a ring of so many slots still holds after the step; None: all."""
        if self.chunk <= slots:
            return None
        device = self.positions.device
        starts = self.decodes + self.chunk * torch.arange(self.prompts, device=device)
        rows = starts[:, None] + torch.arange(self.chunk - slots, self.chunk, device=device)
        return torch.cat((torch.arange(self.decodes, device=device), rows.flatten()))
