"""The kinds of sharding, one class each. A module says which pieces of which whole tensors it holds; `weights.py` fills them.

Legend: `N` rows (out), `D` columns (in), `V` vocabulary, `t` tensor-parallel degree. Whole weights are (out, in) as in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from advisor.errors import PlanError
from runner.mesh import Mesh
from runner.quantised import Matrix

VOCABULARY_PADDING = 64  # as vLLM and SGLang pad before the split


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What every module of a rank needs to be made: where, in which type, in which mesh, under which name."""

    mesh: Mesh
    device: torch.device
    dtype: torch.dtype
    prefix: str = ""

    def at(self, name: str) -> Build:
        """The same for the part called `name`."""
        return Build(mesh=self.mesh, device=self.device, dtype=self.dtype, prefix=f"{self.prefix}{name}.")

    def zeros(self, *shape: int) -> Tensor:
        """A tensor of the rank's type, on its device."""
        return torch.zeros(shape, device=self.device, dtype=self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """`cut` of the whole tensor `name` of `shape` goes to `place` of a local one."""

    name: str
    shape: tuple[int, ...]
    cut: tuple[slice, ...]
    place: tuple[slice | int, ...]


class Sharded(nn.Module):
    """A module with weights. `pieces` lists what each local tensor is made of; `put` takes the assembled one."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: dict[str, list[Piece]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def hold(self, name: str, tensor: Tensor, pieces: Sequence[Piece]) -> None:
        """Register a plain local tensor and its pieces."""
        self.register_buffer(name, tensor)
        self.pieces[name], self.shapes[name] = list(pieces), tuple(tensor.shape)

    def put(self, name: str, whole: Tensor) -> None:
        """Take the assembled local tensor."""
        getattr(self, name).copy_(whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows `first` to `first + count` of the whole matrix `name` of `total` rows, held by this rank."""

    name: str
    total: int
    first: int
    count: int


def share(total: int, parts: int, part: int, what: str) -> tuple[int, int]:
    """First and count of an even cut. Raises PlanError where it does not divide."""
    if total % parts:
        raise PlanError(f"{total} {what} do not divide by {parts} ranks; choose a degree that divides {total}.")
    return part * (total // parts), total // parts


def even_rows(mesh: Mesh, name: str, total: int) -> Rows:
    """This rank's even part of the rows along tp."""
    first, count = share(total, mesh.size("tp"), mesh.coordinates.tp_rank, f"rows of {name}")
    return Rows(name=name, total=total, first=first, count=count)


class ColumnParallel(Sharded):
    """y = x W^T + b with the rows of W cut: several matrices of one input as one product (q, k, v; gate, up). No collective."""

    def __init__(self, build: Build, columns: int, rows: Sequence[Rows], *, weights: str, bias: bool = False) -> None:
        super().__init__()
        count = sum(r.count for r in rows)
        self.matrix = Matrix(count, columns, weights=weights, device=build.device, dtype=build.dtype)
        self.pieces["weight"], self.shapes["weight"] = [], (count, columns)
        biases: list[Piece] = []
        at = 0
        for r in rows:
            cut, place = slice(r.first, r.first + r.count), slice(at, at + r.count)
            name = f"{build.prefix}{r.name}"
            self.pieces["weight"].append(
                Piece(name=f"{name}.weight", shape=(r.total, columns), cut=(cut, slice(None)), place=(place, slice(None)))
            )
            biases.append(Piece(name=f"{name}.bias", shape=(r.total,), cut=(cut,), place=(place,)))
            at += r.count
        self.bias: Tensor | None = None
        if bias:
            del self.bias
            self.hold("bias", build.zeros(count), biases)

    def put(self, name: str, whole: Tensor) -> None:
        """Take an assembled tensor; a matrix packs itself."""
        if name == "weight":
            self.matrix.put(whole)
        else:
            super().put(name, whole)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., N / t)."""
        y: Tensor = self.matrix(x, self.bias)
        return y


class RowParallel(Sharded):
    """This rank's part x_r W_r^T of y = sum over ranks of x_r W_r^T + b: the columns of W cut. The block reduces the sum.

    The first rank alone holds the bias, so that the sum has it once.
    """

    def __init__(self, build: Build, name: str, rows: int, columns: int, *, weights: str, bias: bool) -> None:
        super().__init__()
        first, count = share(columns, build.mesh.size("tp"), build.mesh.coordinates.tp_rank, f"columns of {name}")
        self.matrix = Matrix(rows, count, weights=weights, device=build.device, dtype=build.dtype)
        name = f"{build.prefix}{name}"
        cut = (slice(None), slice(first, first + count))
        piece = Piece(name=f"{name}.weight", shape=(rows, columns), cut=cut, place=(slice(None), slice(None)))
        self.pieces["weight"], self.shapes["weight"] = [piece], (rows, count)
        self.bias: Tensor | None = None
        if bias and build.mesh.coordinates.tp_rank == 0:
            del self.bias
            all_rows = (slice(None),)
            self.hold("bias", build.zeros(rows), [Piece(name=f"{name}.bias", shape=(rows,), cut=all_rows, place=all_rows)])

    def put(self, name: str, whole: Tensor) -> None:
        """Take an assembled tensor; a matrix packs itself."""
        if name == "weight":
            self.matrix.put(whole)
        else:
            super().put(name, whole)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D / t) -> this rank's part of the sum, (..., N)."""
        y: Tensor = self.matrix(x, self.bias)
        return y


class Replicated(ColumnParallel):
    """A linear that every rank holds whole (router, gates)."""

    def __init__(self, build: Build, name: str, rows: int, columns: int, *, weights: str = "bf16", bias: bool = False) -> None:
        super().__init__(build, columns, [Rows(name=name, total=rows, first=0, count=rows)], weights=weights, bias=bias)


class VocabularyShard:
    """The rows of the vocabulary that one rank holds: padded to 64, then split."""

    def __init__(self, vocabulary: int, mesh: Mesh) -> None:
        padded = -(-vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING
        self.rows = -(-padded // mesh.size("tp"))
        self.first = self.rows * mesh.coordinates.tp_rank
        self.real = max(0, min(self.rows, vocabulary - self.first))
        self.vocabulary = vocabulary

    def piece(self, name: str, *columns: int) -> Piece:
        """Its real rows of the whole table (or of the bias, without columns)."""
        rest = tuple(slice(None) for _ in columns)
        cut = (slice(self.first, self.first + self.real), *rest)
        return Piece(name=name, shape=(self.vocabulary, *columns), cut=cut, place=(slice(0, self.real), *rest))


class VocabularyEmbedding(Sharded):
    """Lookup of the rank's own rows, zero elsewhere, then one all-reduce."""

    weight: Tensor

    def __init__(self, build: Build, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.mesh, self.shard = build.mesh, VocabularyShard(vocabulary, build.mesh)
        self.hold("weight", build.zeros(self.shard.rows, hidden), [self.shard.piece("embedding.weight", hidden)])

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        if self.mesh.size("tp") == 1:
            return functional.embedding(tokens, self.weight)
        own = tokens - self.shard.first
        mine = (own >= 0) & (own < self.shard.real)
        found = functional.embedding(own.where(mine, 0), self.weight) * mine[..., None]
        return self.mesh.all_reduce(found, "tp")


class VocabularyHead(Sharded):
    """Logits of the rank's own rows, then one all-gather, cut to the real vocabulary. A tied head is the embedding's own rows."""

    def __init__(
        self, build: Build, name: str, vocabulary: int, hidden: int, *, weights: str, bias: bool, tied: Tensor | None
    ) -> None:
        super().__init__()
        self.mesh, self.shard, self.tied = build.mesh, VocabularyShard(vocabulary, build.mesh), tied
        if tied is None:
            self.matrix = Matrix(self.shard.rows, hidden, weights=weights, device=build.device, dtype=build.dtype)
            self.pieces["weight"] = [self.shard.piece(f"{name}.weight", hidden)]
            self.shapes["weight"] = (self.shard.rows, hidden)
        self.bias: Tensor | None = None
        if bias:
            del self.bias
            self.hold("bias", build.zeros(self.shard.rows), [self.shard.piece("head.bias")])

    def put(self, name: str, whole: Tensor) -> None:
        """Take an assembled tensor; a matrix packs itself."""
        if name == "weight":
            self.matrix.put(whole)
        else:
            super().put(name, whole)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, V)."""
        own = self.matrix(x, self.bias) if self.tied is None else functional.linear(x, self.tied, self.bias)
        return self.mesh.all_gather(own, "tp", dim=-1)[..., : self.shard.vocabulary]
