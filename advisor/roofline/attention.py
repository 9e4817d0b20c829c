"""The mixer of one layer on one rank, op for op in the order of `runner/attention.py`.

Legend: `T` new tokens in the step, `D` hidden size, `H` query heads, `K` key-value heads, `t` tensor-parallel degree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from advisor.roofline.work import (
    ACTIVATION_BYTES,
    DecodeAttention,
    Gemm,
    LatentDecode,
    LatentPrefill,
    PrefillAttention,
    Stream,
    Work,
)
from advisor.specs.formats import FORMATS
from advisor.specs.model import GroupedAttention, LatentAttention, Mixer, RecurrentMixer


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step carries through one rank: decoding sequences (one token each) and prefill chunks.

    `decodes` sequences have `context` cached tokens each; `prefills` sequences bring `new` tokens each on top of `past`.
    Both may be fractions: a step of a steady mix.
    """

    decodes: float = 0.0
    context: float = 0.0
    prefills: float = 0.0
    new: float = 0.0
    past: float = 0.0

    @property
    def tokens(self) -> float:
        """New tokens of the step."""
        return self.decodes + self.prefills * self.new

    @property
    def sequences(self) -> float:
        """Sequences that end the step with logits."""
        return self.decodes + self.prefills


def local_kv_heads(kv_heads: int, tp: int) -> int:
    """Key-value heads one rank holds: K / t, and one whole head (replicated) where t > K."""
    return max(1, math.ceil(kv_heads / tp))


def projection_work(mixer: Mixer, hidden: int, weights: str, tp: int, tokens: float, *, count: float = 1) -> list[Work]:
    """The token-wise part of the mixer: projections, RoPE, cache write."""
    T, D = tokens, hidden
    if isinstance(mixer, GroupedAttention):
        H, K = mixer.heads / tp, local_kv_heads(mixer.kv_heads, tp)
        q, k, v = H * mixer.head_dim, K * mixer.head_dim, K * mixer.value_dim
        k = 0 if mixer.shares_kv else k
        v = 0 if mixer.shares_kv or mixer.k_is_v else v
        gate = H * mixer.value_dim if mixer.gated else 0.0
        return [
            Gemm(name="qkv", m=T, n=q + k + v + gate, k=D, weights=weights, count=count),
            Stream(name="rope", bytes_moved=2 * ACTIVATION_BYTES * T * (q + k + v), kernels=1, count=count),
            Gemm(name="out", m=T, n=D, k=H * mixer.value_dim, weights=weights, count=count),
        ]
    if isinstance(mixer, LatentAttention):
        H = mixer.heads / tp
        down = mixer.kv_rank + mixer.rope_dim
        works: list[Work] = []
        if mixer.q_rank:
            works.append(Gemm(name="qkv_down", m=T, n=mixer.q_rank + down, k=D, weights=weights, count=count))
            works.append(Gemm(name="q_up", m=T, n=H * mixer.head_dim, k=mixer.q_rank, weights=weights, count=count))
        else:
            works.append(Gemm(name="qkv_down", m=T, n=H * mixer.head_dim + down, k=D, weights=weights, count=count))
        # Prefill expands the latent to keys and values; decode absorbs the same matrix into query and output. Same weights.
        up = H * (mixer.nope_dim + mixer.v_head_dim)
        works.append(Gemm(name="kv_up", m=T, n=up, k=mixer.kv_rank, weights="bf16", count=count))
        if mixer.index_heads and not mixer.index_shared:
            width = mixer.index_heads * mixer.index_head_dim
            works.append(Gemm(name="index", m=T, n=width, k=mixer.q_rank or D, weights=weights, count=count))
        works.append(
            Stream(name="rope", bytes_moved=2 * ACTIVATION_BYTES * T * (H * mixer.head_dim + down), kernels=2, count=count)
        )
        works.append(Gemm(name="out", m=T, n=D, k=H * mixer.v_head_dim, weights=weights, count=count))
        return works
    return [Gemm(name="recurrent", m=T, n=mixer.weights / hidden / tp, k=D, weights=weights, count=count)]


def attention_work(mixer: Mixer, tp: int, batch: Batch, cache: str, *, count: float = 1) -> list[Work]:
    """The sequence-wise part of the mixer: attention over the cache, or the recurrent state's update."""
    works: list[Work] = []
    if isinstance(mixer, GroupedAttention):
        H, K, window = mixer.heads / tp, local_kv_heads(mixer.kv_heads, tp), mixer.window_tokens or 0
        if batch.prefills:
            works.append(
                PrefillAttention(
                    name="attention",
                    batch=batch.prefills,
                    new=batch.new,
                    past=batch.past,
                    heads=H,
                    kv_heads=K,
                    head_dim=mixer.head_dim,
                    value_dim=mixer.value_dim,
                    window=window,
                    cache=cache,
                    count=count,
                )
            )
        if batch.decodes:
            context = batch.context
            if mixer.chunked and window and context > window:  # aligned chunks are half full on average
                context = window / 2
            works.append(
                DecodeAttention(
                    name="attention",
                    batch=batch.decodes,
                    context=context,
                    heads=H,
                    kv_heads=K,
                    head_dim=mixer.head_dim,
                    value_dim=mixer.value_dim,
                    window=window,
                    cache=cache,
                    count=count,
                )
            )
    elif isinstance(mixer, LatentAttention):
        H = mixer.heads / tp
        if batch.prefills:
            works.append(
                LatentPrefill(
                    name="attention",
                    batch=batch.prefills,
                    new=batch.new,
                    past=batch.past,
                    heads=H,
                    head_dim=mixer.head_dim,
                    value_dim=mixer.v_head_dim,
                    kv_rank=mixer.kv_rank,
                    rope_dim=mixer.rope_dim,
                    topk=mixer.index_topk,
                    cache=cache,
                    count=count,
                )
            )
        if batch.decodes:
            works.append(
                LatentDecode(
                    name="attention",
                    batch=batch.decodes,
                    context=batch.context,
                    heads=H,
                    kv_rank=mixer.kv_rank,
                    rope_dim=mixer.rope_dim,
                    topk=mixer.index_topk,
                    cache=cache,
                    count=count,
                )
            )
            if mixer.index_heads and not mixer.index_shared:  # the indexer scores every cached token
                keys = batch.decodes * batch.context * mixer.index_head_dim * FORMATS["fp8"].bytes_per_value
                works.append(Stream(name="index_scores", bytes_moved=keys, kernels=2, count=count))
    else:
        works += _state_work(mixer, tp, batch, count)
    return works


def _state_work(mixer: RecurrentMixer, tp: int, batch: Batch, count: float) -> list[Work]:
    """A decode step reads and writes the state of each sequence; a prefill scans it in chunks of 64 tokens (FLA, Mamba-2)."""
    state = mixer.state_values * 4 / tp  # states are kept in fp32
    scans = batch.decodes + batch.prefills * max(1.0, batch.new / 64)
    return [Stream(name="state", bytes_moved=2 * state * scans, kernels=2, count=count)]
