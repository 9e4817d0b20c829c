"""Softmax attention over keys and values, plain: of prompts by torch's fused kernels, of decodes as the reference of our own.

Legend: `B` sequences, `T` new tokens a sequence, `S` keys, `H` query heads of this rank, `K` key-value heads, `G` = H / K, `d` head
width, `dv` width of a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from runner.kv_cache import LayerCache

BLOCK_SCORES = 2**28  # scores of one block of a prompt that no fused kernel computes: 1 GiB in fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Which keys a query sees and how scores become weights. `window` 0: all before it."""

    scale: float
    window: int = 0
    chunked: bool = False
    softcap: float = 0.0


def visible(queries: Tensor, keys: Tensor, sight: Sight) -> Tensor:
    """Which keys (positions) each query (position) sees, (Q, K) bool."""
    a, b = queries[:, None], keys[None, :]
    seen = b <= a
    if sight.window:
        seen = seen & (b >= a // sight.window * sight.window if sight.chunked else b > a - sight.window)
    return seen


def prompt_attention(q: Tensor, k: Tensor, v: Tensor, past: int, sight: Sight, sinks: Tensor | None) -> Tensor:
    """Causal attention of the last T tokens: (B, H, T, d) over (B, K, S, d), (B, K, S, dv) -> (B, H, T, dv).

    The queries stand at `past` and after it; the keys are the last S up to the end, so that S = past + T where nothing was dropped.
    """
    tokens, keys, value_dim = q.shape[2], k.shape[2], v.shape[-1]
    first = past + tokens - keys
    if sinks is not None or sight.softcap:
        return _in_blocks(q, k, v, past, first, sight, sinks)
    if 0 < sight.window < past + tokens:
        return _in_bands(q, k, v, past, first, sight)
    if q.is_cuda and value_dim != q.shape[-1]:  # the flash kernel wants one width; zeros add nothing to the sum
        v = functional.pad(v, (0, q.shape[-1] - value_dim))
    if tokens == keys:
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=sight.scale, enable_gqa=True)
    else:
        mask = causal_lower_right(tokens, keys)
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=sight.scale)
    return y[..., :value_dim]


def _in_bands(q: Tensor, k: Tensor, v: Tensor, past: int, first: int, sight: Sight) -> Tensor:
    """A window shorter than the context: blocks of queries, each against the keys in its reach only."""
    groups, tokens = q.shape[1] // k.shape[1], q.shape[2]
    block = max(128, min(1024, sight.window))
    parts = []
    for start in range(past, past + tokens, block):
        stop = min(start + block, past + tokens)
        low = max(first, start // sight.window * sight.window if sight.chunked else start - sight.window + 1)
        mask = visible(torch.arange(start, stop, device=q.device), torch.arange(low, stop, device=q.device), sight)
        reach = slice(low - first, stop - first)
        keys = k[:, :, reach].repeat_interleave(groups, dim=1)
        values = v[:, :, reach].repeat_interleave(groups, dim=1)
        own = q[:, :, start - past : stop - past]
        parts.append(functional.scaled_dot_product_attention(own, keys, values, attn_mask=mask, scale=sight.scale))
    return torch.cat(parts, dim=2)


def _in_blocks(q: Tensor, k: Tensor, v: Tensor, past: int, first: int, sight: Sight, sinks: Tensor | None) -> Tensor:
    """Soft caps and sinks, which torch's fused kernels lack: plain products over blocks of queries."""
    B, H, T, _ = q.shape
    block = max(1, min(T, BLOCK_SCORES // (B * H * k.shape[2])))
    parts = []
    for start in range(past, past + T, block):
        stop = min(start + block, past + T)
        low = max(first, start - sight.window + 1) if sight.window and not sight.chunked else first
        reach = slice(low - first, stop - first)
        mask = visible(torch.arange(start, stop, device=q.device), torch.arange(low, stop, device=q.device), sight)
        parts.append(_weighted(q[:, :, start - past : stop - past], k[:, :, reach], v[:, :, reach], mask, sight, sinks))
    return torch.cat(parts, dim=2)


def decode_attention(
    q: Tensor, cache: LayerCache, positions: Tensor, span: int, sight: Sight, sinks: Tensor | None, *, value_dim: int = 0
) -> Tensor:
    """One query a sequence over the first `span` tokens of its cache: (B, H, d) -> (B, H, dv).

    Without values of its own, the cache's value is the first `value_dim` of each key. What `kernels.decode_attention` computes.
    """
    B, count = q.shape[0], min(span, cache.slots)
    keys = cache.keys[:B, :, :count]
    values = keys[..., :value_dim] if cache.values is None else cache.values[:B, :, :count]
    held = cache.held(positions, count)
    at = positions[:, None]
    seen = held >= 0
    if sight.window:
        seen = seen & (held >= at // sight.window * sight.window if sight.chunked else held > at - sight.window)
    return _weighted(q[:, :, None], keys, values, seen[:, None, None, None], sight, sinks)[:, :, 0]


def _weighted(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, sight: Sight, sinks: Tensor | None) -> Tensor:
    """Softmax in fp32 over what the mask shows: (B, H, T, d) -> (B, H, T, dv); the mask broadcasts to (B, K, G, T, S)."""
    B, H, T, d = q.shape
    K, S = k.shape[1], k.shape[2]
    G = H // K
    rows = q.reshape(B, K, G * T, d)
    scores = (rows @ k.transpose(-1, -2)).view(B, K, G, T, S).float() * sight.scale
    if sight.softcap:
        scores = sight.softcap * torch.tanh(scores / sight.softcap)
    scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        sink = sinks.view(1, K, G, 1, 1).float().expand(B, K, G, T, 1)
        weights = torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return (weights.to(v.dtype).view(B, K, G * T, S) @ v).view(B, H, T, -1)
