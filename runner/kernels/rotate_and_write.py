"""Between the qkv product and the attention, one kernel: the norms of queries and keys, the rotation, and the cache's new entries.

Legend: `N` rows of the step, `H` query heads, `K` key-value heads, `d` head width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from runner.kv_cache import LayerCache
from runner.step import Step


def rotate_and_write(
    qkv: Tensor,
    step: Step,
    cache: LayerCache,
    *,
    heads: int,
    turns: tuple[Tensor, Tensor] | None,
    interleaved: bool,
    norms: tuple[Tensor, Tensor] | None,
    eps: float,
    offset: float,
) -> tuple[Tensor, Tensor | None]:
    """(N, (H + K) d + K dv) -> queries (N, H, d), and keys (N, K, d) where the step has prompts; keys and values go to the cache.

    `turns`: cosine and sine (N, width / 2), None: no rotation. `norms`: weights (d) of the root-mean-square norms of each query's
    and each key's head.
    """
    assert cache.values is not None
    N, K, d, dv = qkv.shape[0], cache.keys.shape[1], cache.keys.shape[3], cache.values.shape[3]
    q = torch.empty((N, heads, d), device=qkv.device, dtype=qkv.dtype)
    k = torch.empty((N, K, d), device=qkv.device, dtype=qkv.dtype) if step.prompts else None
    half = turns[0].shape[-1] if turns else 0
    cos, sin = turns or (qkv, qkv)
    _rotate_and_write[(N, heads + 2 * K)](
        qkv, cos, sin, step.positions, step.sequences, *(norms or (qkv, qkv)), q, q if k is None else k, cache.keys, cache.values,
        qkv.stride(0), heads, K, cache.slots, step.decodes, step.past + step.chunk, eps, offset,
        D=d, DV=dv, HALF=half, HALF_BLOCK=triton.next_power_of_2(max(1, half)),
        REST_BLOCK=triton.next_power_of_2(max(1, d - 2 * half)), DV_BLOCK=triton.next_power_of_2(dv), INTERLEAVED=interleaved,
        NORMED=norms is not None, KEYS=k is not None, num_warps=1,
    )  # fmt: skip
    return q, k


@triton.jit
def _rotate_and_write(
    qkv, cos, sin, positions, sequences, q_weight, k_weight, q_out, k_out, keys, values,
    row_stride, H, K, slots, decodes, prompt_end, eps, offset,
    D: tl.constexpr, DV: tl.constexpr, HALF: tl.constexpr, HALF_BLOCK: tl.constexpr, REST_BLOCK: tl.constexpr,
    DV_BLOCK: tl.constexpr, INTERLEAVED: tl.constexpr, NORMED: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    position, sequence = tl.load(positions + row), tl.load(sequences + row)
    slot = position % slots
    stays = (row < decodes) | (position >= prompt_end - slots)  # a ring keeps the last tokens of a long prompt
    if head < H + K:
        i = tl.arange(0, HALF_BLOCK)
        is_i = i < HALF
        j = 2 * HALF + tl.arange(0, REST_BLOCK)
        is_j = j < D
        if INTERLEAVED:
            at_a, at_b = 2 * i, 2 * i + 1
        else:
            at_a, at_b = i, i + HALF
        source = qkv + row * row_stride + head * D
        a = tl.load(source + at_a, mask=is_i, other=0.0).to(tl.float32)
        b = tl.load(source + at_b, mask=is_i, other=0.0).to(tl.float32)
        rest = tl.load(source + j, mask=is_j, other=0.0).to(tl.float32)
        if NORMED:
            weight = q_weight
            if head >= H:
                weight = k_weight
            squares = tl.sum(a * a, axis=0) + tl.sum(b * b, axis=0) + tl.sum(rest * rest, axis=0)
            factor = tl.rsqrt(squares / D + eps)
            # Rounded as the plain path rounds between its steps.
            kind = qkv.dtype.element_ty
            a = (a * factor * (tl.load(weight + at_a, mask=is_i, other=0.0).to(tl.float32) + offset)).to(kind).to(tl.float32)
            b = (b * factor * (tl.load(weight + at_b, mask=is_i, other=0.0).to(tl.float32) + offset)).to(kind).to(tl.float32)
            rest = rest * factor * (tl.load(weight + j, mask=is_j, other=0.0).to(tl.float32) + offset)
        if HALF > 0:
            c = tl.load(cos + row * HALF + i, mask=is_i, other=0.0)
            s = tl.load(sin + row * HALF + i, mask=is_i, other=0.0)
            turned_a, turned_b = a * c - b * s, b * c + a * s
        else:
            turned_a, turned_b = a, b
        kind = q_out.dtype.element_ty
        if head < H:
            target = q_out + (row * H + head) * D
            tl.store(target + at_a, turned_a.to(kind), mask=is_i)
            tl.store(target + at_b, turned_b.to(kind), mask=is_i)
            tl.store(target + j, rest.to(kind), mask=is_j)
        else:
            if KEYS:
                target = k_out + (row * K + head - H) * D
                tl.store(target + at_a, turned_a.to(kind), mask=is_i)
                tl.store(target + at_b, turned_b.to(kind), mask=is_i)
                tl.store(target + j, rest.to(kind), mask=is_j)
            if stays:
                target = keys + ((sequence * K + head - H) * slots + slot) * D
                tl.store(target + at_a, turned_a.to(kind), mask=is_i)
                tl.store(target + at_b, turned_b.to(kind), mask=is_i)
                tl.store(target + j, rest.to(kind), mask=is_j)
    elif stays:
        kv_head = head - H - K
        dv = tl.arange(0, DV_BLOCK)
        is_dv = dv < DV
        value = tl.load(qkv + row * row_stride + (H + K) * D + kv_head * DV + dv, mask=is_dv, other=0.0)
        tl.store(values + ((sequence * K + kv_head) * slots + slot) * DV + dv, value, mask=is_dv)
