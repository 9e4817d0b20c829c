"""The model as an architecture: what one decoder layer is made of, and how large it is.

Symbols in docstrings: `D` hidden size, `H` query heads, `K` key-value heads, `F` feed-forward width, `E` experts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from advisor.specs.formats import FORMATS, NumberFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedAttention:
    """Multi-head, grouped-query (K < H) or multi-query (K = 1) attention.

    `window_tokens` None attends to everything; a number to the last so many tokens (sliding window or chunk).
    `chunked` True means aligned chunks (Llama 4), False a sliding window. `gated` adds an output gate of the query's size
    (Qwen3.5), `head_gate` one gate a head (Step-3.7). `sinks` adds one learned logit a head (gpt-oss). `shares_kv` True reads
    an earlier layer's cache and has no key-value projection of its own. `k_is_v` True has one projection for both (Gemma 4
    global layers); the cache still holds both. `index_heads`, `index_head_dim`, `index_topk` describe a block-sparse indexer
    (MiniMax-M3; 0: dense): each query reads at most `index_topk` cached tokens, plus the indexer's own keys. `rope` names an
    entry of `Numerics.ropes`, or "none" for a layer without positions.
    """

    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int | None = None
    window_tokens: int | None = None
    chunked: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: Literal["none", "head", "full"] = "none"
    gated: bool = False
    sinks: bool = False
    shares_kv: bool = False
    k_is_v: bool = False
    head_gate: bool = False
    index_heads: int = 0
    index_head_dim: int = 0
    index_topk: int = 0
    rope: str = "default"

    @property
    def value_dim(self) -> int:
        """Width of one value head."""
        return self.head_dim if self.v_head_dim is None else self.v_head_dim

    def params(self, hidden: int) -> int:
        """Parameters of the projections, biases and head norms."""
        q = hidden * self.heads * self.head_dim
        k = 0 if self.shares_kv else hidden * self.kv_heads * self.head_dim
        v = 0 if self.shares_kv or self.k_is_v else hidden * self.kv_heads * self.value_dim
        out = self.heads * self.value_dim * hidden
        gate = hidden * self.heads * self.value_dim if self.gated else hidden * self.heads if self.head_gate else 0
        bias = (q + k + v) // hidden if self.qkv_bias else 0
        bias += hidden if self.output_bias else 0
        norm = {"none": 0, "head": 2 * self.head_dim, "full": (self.heads + self.kv_heads) * self.head_dim}[self.qk_norm]
        index = hidden * (self.index_heads + 1) * self.index_head_dim + 2 * self.index_head_dim if self.index_heads else 0
        return q + k + v + out + gate + bias + norm + index + (self.heads if self.sinks else 0)

    def cache_values_per_token(self) -> int:
        """Key and value elements one token leaves in this layer's cache, over all heads."""
        return 0 if self.shares_kv else self.kv_heads * (self.head_dim + self.value_dim) + self.index_head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2 paper, section 2.1): one compressed latent a token, whole on every tp rank.

    `q_rank` 0 means no query compression. `index_heads`, `index_head_dim`, `index_topk` describe the sparse indexer of
    DeepSeek-V3.2 (0: dense): each query reads at most `index_topk` cached tokens, plus the indexer's own keys.
    `index_shared` True reuses an earlier layer's selection and has no indexer weights. `gated` adds an output gate (Kimi K3).

    DeepSeek-V4 keeps the shape and drops the expansion: `absorbed` True has no key-value up projection (queries live in the
    latent space, the latent is the value). One cached entry stands for `compress_tokens` tokens (0: none is kept) and the
    latest `window_tokens` are kept whole beside them; `index_topk` then counts entries. `output_groups` blocks of heads are
    projected to `output_rank` each before the hidden size.
    """

    heads: int
    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_head_dim: int
    index_heads: int = 0
    index_head_dim: int = 0
    index_topk: int = 0
    index_shared: bool = False
    gated: bool = False
    absorbed: bool = False
    compress_tokens: int = 1
    window_tokens: int = 0
    output_rank: int = 0
    output_groups: int = 1
    sinks: bool = False
    rope: str = "default"

    @property
    def head_dim(self) -> int:
        """Width of one query or key head before compression."""
        return self.nope_dim + self.rope_dim

    def params(self, hidden: int) -> int:
        """Parameters of the down and up projections, their norms, the output projection, the compressor and the indexer."""
        q_width = self.heads * self.head_dim
        q = hidden * self.q_rank + self.q_rank + self.q_rank * q_width if self.q_rank else hidden * q_width
        kv = hidden * (self.kv_rank + self.rope_dim) + self.kv_rank
        kv += self.rope_dim if self.absorbed else self.kv_rank * self.heads * (self.nope_dim + self.v_head_dim)
        values = self.heads * self.v_head_dim
        out = self.output_rank * (values + self.output_groups * hidden) if self.output_rank else values * hidden
        gate = values * hidden if self.gated else 0
        return q + kv + out + gate + self._compressor_params(hidden) + (self.heads if self.sinks else 0)

    def _compressor_params(self, hidden: int) -> int:
        """The pooling of `compress_tokens` tokens into an entry (key-value and gate projections), and the indexer."""
        index = 0
        if self.index_heads and not self.index_shared:
            index = (self.q_rank or hidden) * self.index_heads * self.index_head_dim + hidden * self.index_heads
            index += self._pool_params(hidden, self.index_head_dim) if self.absorbed else (hidden + 2) * self.index_head_dim
        pool = self._pool_params(hidden, self.head_dim) if self.absorbed and self.compress_tokens > 1 else 0
        return index + pool

    def _pool_params(self, hidden: int, width: int) -> int:
        wide = 2 * width if self.index_heads else width  # selected entries overlap their neighbours: two halves each
        return 2 * hidden * wide + self.compress_tokens * wide + width

    def cache_values_per_token(self) -> int:
        """Latent, rotary key and indexer key elements one token leaves in this layer's cache for good."""
        entry = self.kv_rank + self.rope_dim + (0 if self.index_shared else self.index_head_dim)
        return entry // self.compress_tokens if self.compress_tokens else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentMixer:
    """A layer with a state of fixed size instead of a cache: Mamba-2, gated delta rule, Kimi delta attention, lightning attention.

    Sizes are given directly because the families differ: `weights` parameters, `state_values` elements a sequence keeps,
    `flop_per_token` beyond two per weight.
    """

    kind: Literal["mamba", "mamba2", "gated-delta", "kda", "linear"]
    heads: int
    weights: int
    state_values: int
    flop_per_token: int = 0

    def params(self, hidden: int) -> int:
        """All weights of the mixer (the hidden size is already in them)."""
        return self.weights

    def cache_values_per_token(self) -> int:
        """None: the state does not grow with the context."""
        return 0


ModelFamily = Literal["dense", "MoE", "MLA", "hybrid"]
Mixer = GroupedAttention | LatentAttention | RecurrentMixer


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseFfn:
    """A feed-forward block: gated (gate, up, down: SwiGLU/GeGLU) or plain (up, down)."""

    width: int
    gated: bool = True
    activation: str = "silu"
    bias: bool = False

    def params(self, hidden: int) -> int:
        """Parameters of its matrices and biases."""
        matrices = 3 if self.gated else 2
        return matrices * hidden * self.width + (((matrices - 1) * self.width + hidden) if self.bias else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeFfn:
    """A mixture of experts: `experts` of `expert_width`, `top_k` chosen a token, and `shared_width` that all tokens use.

    `expert_hidden` is the width the experts read (0: the model's own; smaller for latent MoE, with projections in and out).
    `router_bias` is part of the logits (gpt-oss); `correction_bias` only shifts which experts are chosen (DeepSeek-V3, E
    values that are not trained by gradient and not counted). Of `groups` groups the best `groups_kept` compete: a group's
    score is its best expert's with softmax scoring (DeepSeek-V2), the sum of its best two with sigmoid (DeepSeek-V3).
    """

    experts: int
    top_k: int
    expert_width: int
    shared_width: int = 0
    gated: bool = True
    activation: str = "silu"
    expert_bias: bool = False
    router_bias: bool = False
    correction_bias: bool = False
    shared_gate: bool = False
    expert_hidden: int = 0
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    normalise: bool = True
    routed_scale: float = 1.0
    groups: int = 1
    groups_kept: int = 1

    @property
    def matrices(self) -> int:
        """Weight matrices of one expert."""
        return 3 if self.gated else 2

    def expert_params(self, hidden: int) -> int:
        """Parameters of one routed expert."""
        width = self.expert_hidden or hidden
        bias = (self.matrices - 1) * self.expert_width + width if self.expert_bias else 0
        return self.matrices * width * self.expert_width + bias

    def shared_params(self, hidden: int) -> int:
        """Parameters that every token uses: router, shared experts, latent projections."""
        router = hidden * self.experts + (self.experts if self.router_bias else 0)
        latent = 2 * hidden * self.expert_hidden if self.expert_hidden else 0
        return router + self.matrices * hidden * self.shared_width + (hidden if self.shared_gate else 0) + latent

    def params(self, hidden: int) -> int:
        """All parameters of the layer, idle experts included."""
        return self.experts * self.expert_params(hidden) + self.shared_params(hidden)


Ffn = DenseFfn | MoeFfn


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One decoder layer: a mixer, a feed-forward block, and their norms. Either may be missing (Nemotron-H).

    `extra_params` counts what neither holds (per-layer embeddings, altup, side projections).
    """

    mixer: Mixer | None
    ffn: Ffn | None
    parallel_ffn: DenseFfn | None = None
    norms: int = 2
    norm_bias: bool = False
    parallel_residual: bool = False
    extra_params: int = 0

    def params(self, hidden: int) -> int:
        """All parameters of the layer."""
        parts = sum(p.params(hidden) for p in (self.mixer, self.ffn, self.parallel_ffn) if p is not None)
        return parts + self.norms * hidden * (2 if self.norm_bias else 1) + self.extra_params


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary position embedding: base, the part of the head that turns, and the published scaling of long contexts.

    `attention_factor` multiplies cosine and sine (yarn, longrope; 0: 1.0). `truncate` rounds yarn's ramp to whole dimensions.
    `interleaved` turns neighbouring pairs instead of halves.
    """

    theta: float = 10000.0
    fraction: float = 1.0
    kind: str = "default"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float = 0.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    truncate: bool = True
    interleaved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """What changes the function but not its size; only the runner reads it."""

    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    logit_scale: float = 1.0
    residual_scale: float = 1.0
    position: Literal["rope", "learned", "alibi", "none"] = "rope"
    ropes: tuple[tuple[str, Rope], ...] = (("default", Rope()),)
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormats:
    """Names in `FORMATS`, part by part: quantised checkpoints leave some parts in 16 bits."""

    attention: str = "bf16"
    ffn: str = "bf16"
    experts: str = "bf16"
    embedding: str = "bf16"
    head: str = "bf16"

    def of(self, part: Literal["attention", "ffn", "experts", "embedding", "head"]) -> NumberFormat:
        """The format of one part."""
        return FORMATS[getattr(self, part)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A decoder-only transformer. `other_params` are held in memory but not in the decode path (vision tower, MTP left out).

    `quantisation` is how the checkpoint in `repo` is stored (empty: 16 bits); `requantised` says that `formats` are others.
    """

    name: str
    source: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    max_context_tokens: int
    formats: WeightFormats = field(default_factory=WeightFormats)
    kv_format: str = "bf16"
    tied_embeddings: bool = False
    head_bias: bool = False
    position_params: int = 0
    other_params: int = 0
    numerics: Numerics = field(default_factory=Numerics)
    repo: str = ""
    quantisation: str = ""
    requantised: bool = False
    architecture: str = ""
    caveats: tuple[str, ...] = ()

    @property
    def params(self) -> int:
        """All parameters, idle experts and other towers included."""
        embedding = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        final_norm = self.hidden_size * (2 if self.layers and self.layers[-1].norm_bias else 1)
        bias = self.vocab_size if self.head_bias else 0
        return embedding + bias + final_norm + sum_params(self.layers, self.hidden_size) + self.position_params + self.other_params

    @property
    def active_params(self) -> int:
        """Parameters one token is multiplied with, the embedding table left out."""
        total = self.params - self.other_params - (0 if self.tied_embeddings else self.vocab_size * self.hidden_size)
        for layer in self.layers:
            if isinstance(layer.ffn, MoeFfn):
                total -= (layer.ffn.experts - layer.ffn.top_k) * layer.ffn.expert_params(self.hidden_size)
        return total

    @property
    def attention_layers(self) -> tuple[GroupedAttention | LatentAttention, ...]:
        """The mixers that keep a cache, in order."""
        return tuple(x.mixer for x in self.layers if isinstance(x.mixer, GroupedAttention | LatentAttention))

    @property
    def query_heads(self) -> int:
        """Query heads of the attention layers (the largest, where layers differ); of the recurrent ones where there are none."""
        return max((x.mixer.heads for x in self.layers if x.mixer is not None), default=1)

    @property
    def kv_heads(self) -> int:
        """Key-value heads of the grouped attention layers (the largest); 1 for latent attention."""
        return max((m.kv_heads if isinstance(m, GroupedAttention) else 1 for m in self.attention_layers), default=1)

    @property
    def family(self) -> ModelFamily:
        """What an engine's kernels tell apart most: recurrent layers, latent attention, experts, none of them."""
        if self.is_hybrid:
            return "hybrid"
        if self.is_mla:
            return "MLA"
        return "MoE" if self.is_moe else "dense"

    @property
    def weight_format(self) -> str:
        """The number format of most weights: the experts' where there are any."""
        return self.formats.experts if self.is_moe else self.formats.ffn

    @property
    def is_moe(self) -> bool:
        """Whether any layer has routed experts."""
        return any(isinstance(x.ffn, MoeFfn) for x in self.layers)

    @property
    def is_mla(self) -> bool:
        """Whether any layer has latent attention."""
        return any(isinstance(x.mixer, LatentAttention) for x in self.layers)

    @property
    def is_hybrid(self) -> bool:
        """Whether any layer is recurrent."""
        return any(isinstance(x.mixer, RecurrentMixer) for x in self.layers)


def sum_params(layers: Iterable[Layer], hidden: int) -> int:
    """Parameters of several layers; equal layers are counted once and multiplied."""
    return sum(count * layer.params(hidden) for layer, count in count_equal(layers))


def count_equal(layers: Iterable[Layer]) -> list[tuple[Layer, int]]:
    """Distinct layers with how often each occurs, in order of first occurrence.

    A model's layers are mostly one object many times: those are counted by identity, so that few are hashed.
    """
    same: dict[int, tuple[Layer, int]] = {}
    for layer in layers:
        same[id(layer)] = (layer, same.get(id(layer), (layer, 0))[1] + 1)
    counts: dict[Layer, int] = {}
    for layer, times in same.values():
        counts[layer] = counts.get(layer, 0) + times
    return list(counts.items())
