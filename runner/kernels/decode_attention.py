"""One query a sequence over the cache, split over the context: each token of the cache is read once and no score leaves the chip.

As FlashDecoding (Dao et al., 2023): programs take a share of the tokens each and leave a partial sum with its largest score; a
second kernel joins them. All query heads of one key-value head are rows of the same matrix product.

Legend: `B` sequences, `K` key-value heads, `G` query heads of each, `d` head width, `S` slots of the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from runner.kernels import processors

LEAST_TOKENS = 128  # of one program: fewer cost more to join than they save
WAVES = 2  # programs for each multiprocessor: loads of one hide behind products of the other
LEAST_ROWS = 16  # of a matrix product on tensor cores
MOST_ROWS, MOST_ROWS_WIDE = 64, 32  # a wide head's tile of 64 rows exceeds the shared memory of an L40S (99 KiB)
WIDE = 512  # a head wider than this (a latent with its rotary part) is read as two parts


def decode_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor | None,
    positions: Tensor,
    *,
    span: int,
    scale: float,
    window: int = 0,
    chunked: bool = False,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    value_dim: int = 0,
) -> Tensor:
    """(B, H, d) over keys (., K, S, d) and values (., K, S, dv) -> (B, H, dv); without values the first `value_dim` of each key.

    `positions` (B) are those of the queries; no more than `span` tokens are read. `sinks` (H) join the sum.
    """
    B, H, d = q.shape
    K, slots = keys.shape[1], keys.shape[2]
    G = H // K
    width = value_dim if values is None else values.shape[-1]
    rows = min(MOST_ROWS_WIDE if d > 256 else MOST_ROWS, max(LEAST_ROWS, triton.next_power_of_2(G)))
    groups = triton.cdiv(G, rows)
    reach = min(span, slots)
    tokens = 32 if d > 256 else 64
    wanted = triton.cdiv(WAVES * processors(q.device), B * K * groups)
    each = max(LEAST_TOKENS, triton.cdiv(triton.cdiv(reach, wanted), tokens) * tokens)
    splits = triton.cdiv(reach, each)
    out = torch.empty((B, H, width), device=q.device, dtype=q.dtype)
    parts = out if splits == 1 else torch.empty((B, H, splits, width), device=q.device, dtype=torch.float32)
    tops, sums = torch.empty((2, B, H, splits), device=q.device, dtype=torch.float32).unbind(0)
    first = WIDE if d > WIDE else triton.next_power_of_2(d)
    rest = triton.next_power_of_2(d - WIDE) if d > WIDE else 0
    _partial_sums[(B, K * groups, splits)](
        q.contiguous(), keys, keys if values is None else values, positions, q if sinks is None else sinks, parts, tops, sums,
        K, G, slots, each, scale,
        D=d, DV=width, D_FIRST=first, D_REST=max(16, rest) if rest else 0, DV_BLOCK=triton.next_power_of_2(width), ROWS=rows,
        GROUPS=groups, TOKENS=tokens, SPLITS=splits, SHARED=values is None, WINDOW=window, CHUNKED=chunked, SOFTCAP=softcap,
        SINKS=sinks is not None, num_warps=8 if d > 256 else 4, num_stages=2,
    )  # fmt: skip
    if splits > 1:
        _join[(B, H)](
            parts, tops, sums, q if sinks is None else sinks, out, splits,
            DV=width, DV_BLOCK=triton.next_power_of_2(width), SPLITS_BLOCK=triton.next_power_of_2(splits), SINKS=sinks is not None,
            num_warps=4,
        )  # fmt: skip
    return out


@triton.jit
def _partial_sums(
    q, keys, values, positions, sinks, out, tops, sums, K, G, slots, each, scale,
    D: tl.constexpr, DV: tl.constexpr, D_FIRST: tl.constexpr, D_REST: tl.constexpr, DV_BLOCK: tl.constexpr, ROWS: tl.constexpr,
    GROUPS: tl.constexpr, TOKENS: tl.constexpr, SPLITS: tl.constexpr, SHARED: tl.constexpr, WINDOW: tl.constexpr,
    CHUNKED: tl.constexpr, SOFTCAP: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    sequence, group, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    head_of_keys = group // GROUPS
    g = group % GROUPS * ROWS + tl.arange(0, ROWS)
    is_row = g < G
    row = sequence * K * G + head_of_keys * G + g
    at = tl.load(positions + sequence).to(tl.int32)
    start = split * each
    stop = tl.minimum(tl.minimum(start + each, at + 1), slots)
    d0 = tl.arange(0, D_FIRST)
    is_d0 = d0 < D
    q0 = tl.load(q + row[:, None] * D + d0[None, :], mask=is_row[:, None] & is_d0[None, :], other=0.0)
    if D_REST:
        d1 = D_FIRST + tl.arange(0, D_REST)
        is_d1 = d1 < D
        q1 = tl.load(q + row[:, None] * D + d1[None, :], mask=is_row[:, None] & is_d1[None, :], other=0.0)
    dv = tl.arange(0, DV_BLOCK)
    is_dv = dv < DV
    first_slot = (sequence.to(tl.int64) * K + head_of_keys) * slots
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    summed = tl.zeros((ROWS, DV_BLOCK), tl.float32)
    for begin in range(start, stop, TOKENS):
        slot = begin + tl.arange(0, TOKENS)
        is_slot = slot < stop
        seen = is_slot
        if WINDOW:
            held = at - (at - slot) % slots
            oldest = at // WINDOW * WINDOW if CHUNKED else at - WINDOW + 1
            seen = seen & (held >= oldest)
        place = first_slot + slot
        k0 = tl.load(keys + place[:, None] * D + d0[None, :], mask=is_slot[:, None] & is_d0[None, :], other=0.0)
        scores = tl.dot(q0, tl.trans(k0), input_precision="ieee")
        if D_REST:
            k1 = tl.load(keys + place[:, None] * D + d1[None, :], mask=is_slot[:, None] & is_d1[None, :], other=0.0)
            scores += tl.dot(q1, tl.trans(k1), input_precision="ieee")
        scores = scores * scale
        if SOFTCAP > 0.0:
            scores = SOFTCAP * (2.0 * tl.sigmoid(2.0 * scores / SOFTCAP) - 1.0)  # tanh
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, axis=1))
        against = tl.where(higher == float("-inf"), 0.0, higher)  # a block outside the window: nothing minus nothing
        weights = tl.exp(scores - against[:, None])
        shrink = tl.exp(top - against)
        if SHARED:
            if DV_BLOCK == D_FIRST:
                v = k0  # columns beyond the value's width are computed and never stored
            else:
                v = tl.load(keys + place[:, None] * D + dv[None, :], mask=is_slot[:, None] & is_dv[None, :], other=0.0)
        else:
            v = tl.load(values + place[:, None] * DV + dv[None, :], mask=is_slot[:, None] & is_dv[None, :], other=0.0)
        total = total * shrink + tl.sum(weights, axis=1)
        summed = summed * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        top = higher
    if SPLITS == 1:
        if SINKS:
            sink = tl.load(sinks + head_of_keys * G + g, mask=is_row, other=0.0).to(tl.float32)
            higher = tl.maximum(top, sink)
            total = total * tl.exp(top - higher) + tl.exp(sink - higher)
            summed = summed * tl.exp(top - higher)[:, None]
        summed = summed / total[:, None]
        tl.store(out + row[:, None] * DV + dv[None, :], summed.to(out.dtype.element_ty), mask=is_row[:, None] & is_dv[None, :])
    else:
        place = row * SPLITS + split
        tl.store(out + place[:, None] * DV + dv[None, :], summed, mask=is_row[:, None] & is_dv[None, :])
        tl.store(tops + place, top, mask=is_row)
        tl.store(sums + place, total, mask=is_row)


@triton.jit
def _join(
    parts, tops, sums, sinks, out, splits,
    DV: tl.constexpr, DV_BLOCK: tl.constexpr, SPLITS_BLOCK: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    row = tl.program_id(0) * tl.num_programs(1) + head
    split = tl.arange(0, SPLITS_BLOCK)
    is_split = split < splits
    dv = tl.arange(0, DV_BLOCK)
    is_dv = dv < DV
    place = row * splits + split
    each_top = tl.load(tops + place, mask=is_split, other=float("-inf"))
    top = tl.max(each_top, axis=0)
    if SINKS:
        sink = tl.load(sinks + head).to(tl.float32)
        top = tl.maximum(top, sink)
    share = tl.exp(each_top - top)
    total = tl.sum(share * tl.load(sums + place, mask=is_split, other=0.0), axis=0)
    if SINKS:
        total += tl.exp(sink - top)
    part = tl.load(parts + place[:, None] * DV + dv[None, :], mask=is_split[:, None] & is_dv[None, :], other=0.0)
    summed = tl.sum(share[:, None] * part, axis=0) / total
    tl.store(out + row * DV + dv, summed.to(out.dtype.element_ty), mask=is_dv)
