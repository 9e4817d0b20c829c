"""The mixer of one layer on one rank, op for op in the order of `runner/attention.py`.

Legend: `T` new tokens in the step, `D` hidden size, `H` query heads, `K` key-value heads, `t` tensor-parallel degree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import sqrt

from advisor.roofline.work import (
    ACTIVATION_BYTES,
    SCAN_CHUNK,
    STATE_BYTES,
    Collective,
    DecodeAttention,
    Gemm,
    IndexScores,
    LatentDecode,
    LatentPrefill,
    PrefillAttention,
    StateScan,
    StateUpdate,
    Stream,
    Work,
)
from advisor.specs.model import GroupedAttention, LatentAttention, Mixer, RecurrentMixer


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step carries through one rank: decoding sequences and prefill chunks.

    `decodes` sequences bring `queries` tokens each (one, or with speculative decoding the drafts to verify too) on top of `context`
    cached ones; `prefills` sequences bring `new` tokens each on top of `past`. Both may be fractions: a step of a steady mix.
    """

    decodes: float = 0.0
    context: float = 0.0
    prefills: float = 0.0
    new: float = 0.0
    past: float = 0.0
    queries: int = 1

    @property
    def tokens(self) -> float:
        """New tokens of the step."""
        return self.decodes * self.queries + self.prefills * self.new

    @property
    def sequences(self) -> float:
        """Sequences that the step carries."""
        return self.decodes + self.prefills

    @property
    def logits(self) -> float:
        """Tokens that end the step with logits: every one of a decoding sequence, the last of a prefill."""
        return self.decodes * self.queries + self.prefills


def local_kv_heads(kv_heads: int, tp: int) -> int:
    """Key-value heads one rank holds: K / t, and one whole head (replicated) where t > K."""
    return max(1, math.ceil(kv_heads / tp))


def projection_work(mixer: Mixer, hidden: int, weights: str, tp: int, tokens: float, *, count: float = 1) -> list[Work]:
    """The token-wise part of the mixer: projections, RoPE, cache write. The weights of its GEMMs are those of one rank."""
    if isinstance(mixer, GroupedAttention):
        return _grouped_projections(mixer, hidden, weights, tp, tokens, count)
    if isinstance(mixer, LatentAttention):
        return _latent_projections(mixer, hidden, weights, tp, tokens, count)
    return _recurrent_projections(mixer, hidden, weights, tp, tokens, count)


def _recurrent_projections(mixer: RecurrentMixer, hidden: int, weights: str, tp: int, tokens: float, count: float) -> list[Work]:
    """All inputs as one GEMM, the short convolution over them, the gated norm, the output, as Qwen3-Next's layer is served."""
    T, D = tokens, hidden
    values = mixer.heads * sqrt(mixer.state_values / mixer.heads) / tp  # heads of a square state
    into = mixer.weights / D / tp - values
    return [
        Gemm(name="recurrent_in", m=T, n=into, k=D, weights=weights, count=count),
        Stream(name="convolution", bytes_moved=2 * ACTIVATION_BYTES * T * max(0.0, into - values), kernels=1, count=count),
        Stream(name="gated_norm", bytes_moved=3 * ACTIVATION_BYTES * T * values, kernels=2, count=count),
        Gemm(name="recurrent_out", m=T, n=D, k=values, weights=weights, count=count),
    ]


def _grouped_projections(mixer: GroupedAttention, hidden: int, weights: str, tp: int, tokens: float, count: float) -> list[Work]:
    """Query, key, value and gate as one GEMM, then the output; a block-sparse indexer has its own, whole on every rank."""
    T, D = tokens, hidden
    H, K = mixer.heads / tp, local_kv_heads(mixer.kv_heads, tp)
    q, k, v = H * mixer.head_dim, K * mixer.head_dim, K * mixer.value_dim
    k = 0 if mixer.shares_kv else k
    v = 0 if mixer.shares_kv or mixer.k_is_v else v
    gate = H * mixer.value_dim if mixer.gated else H if mixer.head_gate else 0.0
    works: list[Work] = [
        Gemm(name="qkv", m=T, n=q + k + v + gate, k=D, weights=weights, count=count),
        Stream(name="rope", bytes_moved=2 * ACTIVATION_BYTES * T * (q + k + v), kernels=1, count=count),
        Gemm(name="out", m=T, n=D, k=H * mixer.value_dim, weights=weights, count=count),
    ]
    works += _query_key_norms(mixer, tp, T, q + k, count)
    if mixer.index_heads:
        width = (mixer.index_heads + 1) * mixer.index_head_dim  # queries of its heads and one key
        works.append(Gemm(name="index", m=T, n=width, k=D, weights=weights, count=count))
    return works


def _query_key_norms(mixer: GroupedAttention, tp: int, tokens: float, width: float, count: float) -> list[Work]:
    """Norms of queries and keys. Over whole rows, whose heads tp ranks hold a part of each (MiniMax-M2), they need the sum of
    squares of all ranks: two fp32 values a token (vLLM, MiniMaxText01RMSNormTP)."""
    if mixer.qk_norm == "none":
        return []
    works: list[Work] = [Stream(name="qk_norm", bytes_moved=2 * ACTIVATION_BYTES * tokens * width, kernels=1, count=count)]
    if mixer.qk_norm == "full" and tp > 1:
        works.append(Collective(name="qk_norm_reduce", op="all_reduce", axis="tp", payload_bytes=2 * 4 * tokens, count=count))
    return works


def _latent_projections(mixer: LatentAttention, hidden: int, weights: str, tp: int, tokens: float, count: float) -> list[Work]:
    """Down to the latents (whole on every rank), up to the rank's heads, and the output, of low rank where it has one."""
    T, D, H = tokens, hidden, mixer.heads / tp
    down, q, values = mixer.kv_rank + mixer.rope_dim, H * mixer.head_dim, H * mixer.v_head_dim
    works: list[Work] = []
    if mixer.q_rank:
        works.append(Gemm(name="qkv_down", m=T, n=mixer.q_rank + down, k=D, weights=weights, count=count))
        works.append(Gemm(name="q_up", m=T, n=q, k=mixer.q_rank, weights=weights, count=count))
    else:
        works.append(Gemm(name="qkv_down", m=T, n=q + down, k=D, weights=weights, count=count))
    if not mixer.absorbed:
        # Prefill expands the latent to keys and values; decode absorbs the same matrix into query and output. Same weights.
        up = H * (mixer.nope_dim + mixer.v_head_dim)
        works.append(Gemm(name="kv_up", m=T, n=up, k=mixer.kv_rank, weights="bf16", count=count))
    works += _index_projections(mixer, D, weights, T, count)
    if mixer.gated:
        works.append(Gemm(name="gate", m=T, n=values, k=D, weights=weights, count=count))
    works.append(Stream(name="rope", bytes_moved=2 * ACTIVATION_BYTES * T * (q + down), kernels=2, count=count))
    if not mixer.output_rank:
        return [*works, Gemm(name="out", m=T, n=D, k=values, weights=weights, count=count)]
    # Each group of heads meets its own block only: a batched GEMM as deep as one group is wide.
    low, group = mixer.output_rank * mixer.output_groups / tp, mixer.heads * mixer.v_head_dim / mixer.output_groups
    works.append(Gemm(name="out_down", m=T, n=low, k=group, weights=weights, count=count))
    return [*works, Gemm(name="out", m=T, n=D, k=low, weights=weights, count=count)]


def _index_projections(mixer: LatentAttention, hidden: int, weights: str, tokens: float, count: float) -> list[Work]:
    """What is pooled into compressed entries (value and gate), and the indexer's queries, weights and keys; whole on every rank."""
    T, D = tokens, hidden
    overlap = 2 if mixer.index_heads else 1  # selected entries overlap their neighbours: two halves each
    pools = mixer.head_dim if mixer.absorbed and mixer.compress_tokens > 1 else 0
    works: list[Work] = []
    if mixer.index_heads and not mixer.index_shared:
        width = mixer.index_heads * mixer.index_head_dim
        works.append(Gemm(name="index", m=T, n=width, k=mixer.q_rank or D, weights=weights, count=count))
        keys = 2 * overlap * mixer.index_head_dim if mixer.absorbed else mixer.index_head_dim
        works.append(Gemm(name="index_keys", m=T, n=mixer.index_heads + keys, k=D, weights=weights, count=count))
    if pools:
        works.append(Gemm(name="compress", m=T, n=2 * overlap * pools, k=D, weights=weights, count=count))
    return works


def attention_work(mixer: Mixer, tp: int, batch: Batch, cache: str, *, count: float = 1) -> list[Work]:
    """The sequence-wise part of the mixer: attention over the cache, or the recurrent state's update."""
    works: list[Work] = []
    if isinstance(mixer, GroupedAttention):
        H, K = mixer.heads / tp, local_kv_heads(mixer.kv_heads, tp)
        # A block-sparse query reads no more than a window of as many tokens would let it.
        window = mixer.window_tokens or mixer.index_topk
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
                    queries=batch.queries,
                    heads=H,
                    kv_heads=K,
                    head_dim=mixer.head_dim,
                    value_dim=mixer.value_dim,
                    window=window,
                    cache=cache,
                    count=count,
                )
            )
        if mixer.index_heads:
            works += _index_scores(mixer, batch, count)
    elif isinstance(mixer, LatentAttention):
        H = mixer.heads / tp
        if batch.prefills:
            # Beyond its top-k a sparse prompt attends in latent space, as decode does: the chosen latents differ by query,
            # and expanding them for each would cost more (FlashMLA's sparse prefill).
            latent = bool(mixer.index_topk) and batch.past + batch.new > mixer.index_topk and not mixer.absorbed
            works.append(
                LatentPrefill(
                    name="attention",
                    batch=batch.prefills,
                    new=batch.new,
                    past=batch.past,
                    heads=H,
                    head_dim=mixer.kv_rank + mixer.rope_dim if latent else mixer.head_dim,
                    value_dim=mixer.kv_rank if latent else mixer.v_head_dim,
                    kv_rank=mixer.kv_rank,
                    rope_dim=mixer.rope_dim,
                    topk=mixer.index_topk,
                    compress=mixer.compress_tokens,
                    window=mixer.window_tokens,
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
                    queries=batch.queries,
                    heads=H,
                    kv_rank=mixer.kv_rank,
                    rope_dim=mixer.rope_dim,
                    topk=mixer.index_topk,
                    compress=mixer.compress_tokens,
                    window=mixer.window_tokens,
                    cache=cache,
                    count=count,
                )
            )
        if mixer.index_heads and not mixer.index_shared:
            works += _index_scores(mixer, batch, count)
    else:
        works += _state_work(mixer, tp, batch, count)
    return works


def _index_scores(mixer: GroupedAttention | LatentAttention, batch: Batch, count: float) -> list[Work]:
    """The indexer scores every cached entry for every new token: of the decodes, then of the prompts."""
    works: list[Work] = []
    each = 1.0 if isinstance(mixer, GroupedAttention) else max(1.0, float(mixer.compress_tokens))
    heads, head_dim = mixer.index_heads, mixer.index_head_dim
    if batch.decodes:
        entries = batch.decodes * batch.context / each
        works.append(
            IndexScores(
                name="index_scores",
                queries=batch.decodes * batch.queries,
                pairs=entries * batch.queries,
                keys=entries,
                heads=heads,
                head_dim=head_dim,
                count=count,
            )
        )
    if batch.prefills:
        pairs = batch.prefills * (batch.new * batch.past + batch.new * (batch.new + 1) / 2) / each
        keys = batch.prefills * (batch.past + batch.new) / each
        queries = batch.prefills * batch.new
        works.append(
            IndexScores(name="index_scores", queries=queries, pairs=pairs, keys=keys, heads=heads, head_dim=head_dim, count=count)
        )
    return works


def _state_work(mixer: RecurrentMixer, tp: int, batch: Batch, count: float) -> list[Work]:
    """The states of the decoding sequences updated, those of prompts scanned. Mamba-1, whose channels have no matrix state, passes
    through its states once for a chunk of tokens."""
    if mixer.kind == "mamba":
        state = mixer.state_values * STATE_BYTES / tp
        scans = batch.decodes + batch.prefills * max(1.0, batch.new / SCAN_CHUNK)
        return [Stream(name="state", bytes_moved=2 * state * scans, kernels=2, count=count)]
    heads, values, rule = mixer.heads / tp, mixer.state_values / mixer.heads, mixer.kind
    works: list[Work] = []
    if batch.decodes:
        works.append(StateUpdate(name="state", batch=batch.decodes, heads=heads, head_values=values, rule=rule, count=count))
    if batch.prefills:
        works.append(
            StateScan(name="state", batch=batch.prefills, new=batch.new, heads=heads, head_values=values, rule=rule, count=count)
        )
    return works
