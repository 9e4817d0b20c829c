"""The routed experts of a decode step in four kernels: whose rows, gate and up with the activation, down with the weights, the sum.

Rows are found by the experts, not sorted: each expert's program scans the choices and lists its pairs, so that nothing waits for
the host and no shape depends on how many rows an expert gets. fp8 weights are widened as they are read: a decode waits for their
bytes.

Legend: `N` tokens, `k` chosen a token, `R` = N k pairs, `E` experts of this rank, `D` hidden, `F` width of this rank.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from runner.pointwise import SWIGLU_ALPHA, SWIGLU_LIMIT

MOST_PAIRS = 16384  # of one program's scan
ROWS_EACH = 64  # pairs for each expert beyond which the products wait for arithmetic, which torch's grouped ones do better
ACTIVATIONS = ("silu", "swigluoai")
ROWS, COLUMNS, DEPTH = 16, 64, 128  # of a tile of the products


def experts_sum(
    x: Tensor,
    chosen: Tensor,
    gates: Tensor,
    gate_up: Tensor,
    down: Tensor,
    *,
    first: int,
    activation: str,
    scales: tuple[Tensor, Tensor] | None = None,
    biases: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """(N, D), choices (N, k), weights (N, k) in fp32 over gate_up (E, 2 F, D) and down (E, D, F) -> (N, D).

    `first` is the number of this rank's first expert; choices of other ranks' experts add nothing. `scales` are those of the rows
    of fp8 weights, (E, 2 F) and (E, D); `biases` the same shapes.
    """
    N, D = x.shape
    k, (E, width, _) = chosen.shape[1], gate_up.shape
    F, R = width // 2, N * k
    pairs = torch.empty((E, R), device=x.device, dtype=torch.int32)
    counts = torch.empty(E, device=x.device, dtype=torch.int32)
    _list_pairs[(E,)](chosen, pairs, counts, R, first, BLOCK=triton.next_power_of_2(R), num_warps=8)
    inner = torch.empty((R, F), device=x.device, dtype=x.dtype)
    scaled, biased = scales or (x, x), biases or (x, x)
    _gate_up[(E, triton.cdiv(F, COLUMNS))](
        x, gate_up, scaled[0], biased[0], pairs, counts, inner, R, k,
        D=D, F=F, SCALED=scales is not None, BIASED=biases is not None, SWIGLU=activation == "swigluoai",
        LIMIT=SWIGLU_LIMIT, ALPHA=SWIGLU_ALPHA, ROWS=ROWS, COLUMNS=COLUMNS, DEPTH=DEPTH, num_warps=4, num_stages=3,
    )  # fmt: skip
    out = torch.zeros((R, D), device=x.device, dtype=x.dtype)
    _down[(E, triton.cdiv(D, COLUMNS))](
        inner, down, scaled[1], biased[1], gates, pairs, counts, out, R,
        D=D, F=F, SCALED=scales is not None, BIASED=biases is not None, ROWS=ROWS, COLUMNS=COLUMNS, DEPTH=DEPTH,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return out.view(N, k, D).sum(dim=1)


@triton.jit
def _list_pairs(chosen, pairs, counts, R, first, BLOCK: tl.constexpr):
    expert = tl.program_id(0)
    pair = tl.arange(0, BLOCK)
    mine = tl.load(chosen + pair, mask=pair < R, other=-1) == expert + first
    place = tl.cumsum(mine.to(tl.int32), axis=0) - 1
    tl.store(pairs + expert.to(tl.int64) * R + place, pair, mask=mine)
    tl.store(counts + expert, tl.sum(mine.to(tl.int32), axis=0))


@triton.jit
def _gate_up(
    x, weights, scales, biases, pairs, counts, inner, R, k,
    D: tl.constexpr, F: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr, SWIGLU: tl.constexpr,
    LIMIT: tl.constexpr, ALPHA: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(0).to(tl.int64)
    count = tl.load(counts + expert)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = column < F
    gate_rows = weights + (expert * 2 * F + column) * D
    for begin in range(0, count, ROWS):
        row = begin + tl.arange(0, ROWS)
        is_row = row < count
        pair = tl.load(pairs + expert * R + row, mask=is_row, other=0)
        gate = tl.zeros((ROWS, COLUMNS), tl.float32)
        up = tl.zeros((ROWS, COLUMNS), tl.float32)
        for depth in range(0, D, DEPTH):
            d = depth + tl.arange(0, DEPTH)
            is_d = d < D
            a = tl.load(x + (pair // k)[:, None] * D + d[None, :], mask=is_row[:, None] & is_d[None, :], other=0.0)
            mask = is_column[:, None] & is_d[None, :]
            g = tl.load(gate_rows[:, None] + d[None, :], mask=mask, other=0.0).to(a.dtype)
            u = tl.load(gate_rows[:, None] + F * D + d[None, :], mask=mask, other=0.0).to(a.dtype)
            gate += tl.dot(a, tl.trans(g), input_precision="ieee")
            up += tl.dot(a, tl.trans(u), input_precision="ieee")
        at = expert * 2 * F + column
        if SCALED:
            gate *= tl.load(scales + at, mask=is_column, other=0.0)[None, :]
            up *= tl.load(scales + at + F, mask=is_column, other=0.0)[None, :]
        if BIASED:
            gate += tl.load(biases + at, mask=is_column, other=0.0).to(tl.float32)[None, :]
            up += tl.load(biases + at + F, mask=is_column, other=0.0).to(tl.float32)[None, :]
        if SWIGLU:
            gate = tl.minimum(gate, LIMIT)
            up = tl.minimum(tl.maximum(up, -LIMIT), LIMIT)
            y = gate * tl.sigmoid(ALPHA * gate) * (up + 1.0)
        else:
            y = gate * tl.sigmoid(gate) * up
        place = inner + pair[:, None] * F + column[None, :]
        tl.store(place, y.to(inner.dtype.element_ty), mask=is_row[:, None] & is_column[None, :])


@triton.jit
def _down(
    inner, weights, scales, biases, gates, pairs, counts, out, R,
    D: tl.constexpr, F: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    expert = tl.program_id(0).to(tl.int64)
    count = tl.load(counts + expert)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = column < D
    weight_rows = weights + (expert * D + column) * F
    for begin in range(0, count, ROWS):
        row = begin + tl.arange(0, ROWS)
        is_row = row < count
        pair = tl.load(pairs + expert * R + row, mask=is_row, other=0)
        y = tl.zeros((ROWS, COLUMNS), tl.float32)
        for depth in range(0, F, DEPTH):
            f = depth + tl.arange(0, DEPTH)
            is_f = f < F
            a = tl.load(inner + pair[:, None] * F + f[None, :], mask=is_row[:, None] & is_f[None, :], other=0.0)
            w = tl.load(weight_rows[:, None] + f[None, :], mask=is_column[:, None] & is_f[None, :], other=0.0).to(a.dtype)
            y += tl.dot(a, tl.trans(w), input_precision="ieee")
        at = expert * D + column
        if SCALED:
            y *= tl.load(scales + at, mask=is_column, other=0.0)[None, :]
        if BIASED:
            y += tl.load(biases + at, mask=is_column, other=0.0).to(tl.float32)[None, :]
        y *= tl.load(gates + pair, mask=is_row, other=0.0)[:, None]
        place = out + pair[:, None] * D + column[None, :]
        tl.store(place, y.to(out.dtype.element_ty), mask=is_row[:, None] & is_column[None, :])
