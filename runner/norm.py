"""Norms: root mean square or layer norm, over the hidden size, one head, or all heads of all ranks together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from advisor.specs.model import Numerics
from runner.parallel import Build, Piece, Rows, Sharded
from runner.pointwise import Pointwise


class Norm(Sharded):
    """A norm that every rank computes on its own."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        build: Build,
        numerics: Numerics,
        width: int,
        pointwise: Pointwise,
        *,
        bias: bool = False,
        offset: float | None = None,
        kind: Literal["rms", "layer"] | None = None,
        rows: Rows | None = None,
    ) -> None:
        super().__init__()
        self.eps = numerics.norm_eps
        self.offset = numerics.norm_offset if offset is None else offset
        self.kind, self.pointwise, self.has_bias = kind or numerics.norm, pointwise, bias
        total, cut = (rows.total, slice(rows.first, rows.first + rows.count)) if rows else (width, slice(0, width))
        name = build.prefix.removesuffix(".")
        self.hold("weight", build.zeros(width), [_piece(f"{name}.weight", total, cut)])
        if bias:
            self.hold("bias", build.zeros(width), [_piece(f"{name}.bias", total, cut)])

    @classmethod
    def of_rows(cls, build: Build, numerics: Numerics, rows: Rows | None, head_dim: int, pointwise: Pointwise) -> Norm:
        """Of queries or keys: over each head, or over all heads where `rows` says which of them are here."""
        if rows is None:
            return cls(build, numerics, head_dim, pointwise)
        return SpreadNorm(build, numerics, rows.count, pointwise, rows=rows)

    def forward(self, x: Tensor) -> Tensor:
        """Normed along the last dimension."""
        if self.kind == "rms":
            return self.pointwise.rms_norm(x, self.weight, self.eps, self.offset)
        return self.pointwise.layer_norm(x, self.weight, self.bias if self.has_bias else None, self.eps, self.offset)

    def after(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """The residual stream with `branch` added, and its norm: one kernel where the norm is of root mean squares."""
        if branch is None:
            return x, self(x)
        if self.kind == "rms":
            return self.pointwise.add_rms_norm(x, branch, self.weight, self.eps, self.offset)
        x = x + branch
        return x, self(x)


class SpreadNorm(Norm):
    """Root mean square over all heads of all tp ranks (OLMo 2): the sum of squares is reduced along tp.

    Replicated heads are summed as often as they are held, so the mean is over the sum of the ranks' own counts.
    """

    def __init__(self, build: Build, numerics: Numerics, width: int, pointwise: Pointwise, *, rows: Rows) -> None:
        super().__init__(build, numerics, width, pointwise, rows=rows)
        self.mesh, self.counted = build.mesh, width * build.mesh.size("tp")

    def forward(self, x: Tensor) -> Tensor:
        """Normed along the last dimension of all ranks together."""
        if self.mesh.size("tp") == 1:
            return super().forward(x)
        wide = x.float()
        squares = self.mesh.all_reduce(wide.square().sum(-1, keepdim=True), "tp")
        wide = wide * torch.rsqrt(squares / self.counted + self.eps)
        return (wide * (self.weight.float() + self.offset)).to(x.dtype)


def _piece(name: str, total: int, cut: slice) -> Piece:
    return Piece(name=name, shape=(total,), cut=(cut,), place=(slice(None),))
