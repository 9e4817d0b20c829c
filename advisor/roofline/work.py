"""What one rank has to do in a step, op by op: sizes only, no seconds.

`count` repeats an op (equal layers). FLOP counts two per multiply-add. HBM bytes are what a perfect kernel must move:
weights once, activations in and out once, cache read once. Wire bytes are the payload a rank hands to a collective.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Literal

from advisor.specs.formats import FORMATS
from advisor.specs.keys import Op

ACTIVATION_BYTES = 2  # activations travel in 16 bits between kernels
# How unevenly a router draws its experts: the i-th most popular one in proportion to i ^ -SKEW. Between 0.5 and 0.7 the residual of
# the MoE tables' uneven rows is least; MiniMax-M2.5 in vLLM and DeepSeek-R1 in TensorRT-LLM agree (docs/physics.md).
SKEW = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """(m, k) x (k, n): `m` tokens, weights (k, n) in `weights` format."""

    name: str
    m: float
    n: float
    k: float
    weights: str
    count: float = 1

    @property
    def flop(self) -> float:
        """2 m n k."""
        return 2 * self.m * self.n * self.k * self.count

    @property
    def weight_bytes(self) -> float:
        """n k values in their format."""
        return self.n * self.k * FORMATS[self.weights].bytes_per_value * self.count

    @property
    def hbm_bytes(self) -> float:
        """Weights, inputs and outputs once."""
        return self.weight_bytes + ACTIVATION_BYTES * self.m * (self.n + self.k) * self.count


@lru_cache
def _popularity(experts: int, top_k: int, skew: float) -> tuple[float, ...]:
    """Chance that a token draws each expert: proportional to rank ^ -skew, at most 1, top_k in all."""
    chances = [rank**-skew for rank in range(1, experts + 1)]
    certain = 0
    while certain < top_k and (scale := (top_k - certain) / sum(chances[certain:])) * chances[certain] > 1:
        certain += 1
    return tuple(1.0 if rank < certain else min(1.0, scale * chance) for rank, chance in enumerate(chances))


@lru_cache(maxsize=1 << 14)
def drawn_share(experts: int, top_k: int, tokens: float, skew: float | None) -> float:
    """Share of the experts that `tokens` draws of `top_k` hit in expectation: mean of 1 - (1 - p_i)^tokens.
    Without a skew, rows are assigned round-robin, as some benchmarks do."""
    if skew is None:
        return min(1.0, tokens * top_k / experts)
    return float(sum(1.0 - (1.0 - p) ** tokens for p in _popularity(experts, top_k, skew))) / experts


def ranks_reached(ranks: int, top_k: int) -> float:
    """Ranks of n that hold an expert of a token, in expectation: n (1 - (1 - 1/n)^k) for k draws; uneven draws reach fewer."""
    return float(ranks * (1.0 - (1.0 - 1.0 / ranks) ** top_k))


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Grouped GEMMs of one MoE layer on one rank.

    `tokens` tokens of the batch reach this layer, each drawing `top_k` of all `experts`; the rank holds `local_experts` of
    them, each with `matrices` matrices of (hidden, width) after splitting. `routed_rows`: token-expert pairs that land here in
    expectation; `hit`: local experts with at least one row, when some are drawn more often than others (`drawn_share`).
    """

    name: str
    tokens: float
    top_k: int
    experts: int
    local_experts: float
    hidden: int
    width: float
    matrices: int
    weights: str
    skew: float | None = SKEW
    count: float = 1

    @property
    def routed_rows(self) -> float:
        """Token-expert pairs on this rank when the draw is even."""
        return self.tokens * self.top_k * self.local_experts / self.experts

    @property
    def hit(self) -> float:
        """Expected local experts with work."""
        return self.local_experts * drawn_share(self.experts, self.top_k, self.tokens, self.skew)

    @property
    def flop(self) -> float:
        """2 per weight and routed row."""
        return 2 * self.routed_rows * self.matrices * self.hidden * self.width * self.count

    @property
    def hbm_bytes(self) -> float:
        """Weights of the experts hit, and activations in and out of each matrix."""
        weights = self.hit * self.matrices * self.hidden * self.width * FORMATS[self.weights].bytes_per_value
        activations = ACTIVATION_BYTES * self.routed_rows * (2 * self.hidden + self.matrices * self.width)
        return (weights + activations) * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillAttention:
    """Causal attention of `batch` sequences with `new` query tokens each over `past` cached ones (read from cache).

    `window` 0 is global; otherwise each query sees at most so many keys. Heads are those of this rank.
    """

    name: str
    batch: float
    new: float
    past: float
    heads: float
    kv_heads: float
    head_dim: int
    value_dim: int
    window: int = 0
    cache: str = "bf16"
    count: float = 1

    @property
    def pairs(self) -> float:
        """Query-key pairs of one sequence that are not masked: new * past + new (new + 1) / 2, cut to the window."""
        full = self.new * self.past + self.new * (self.new + 1) / 2
        if not self.window or self.past + self.new <= self.window:
            return full
        growing = max(0.0, min(self.new, self.window - self.past))
        return growing * self.past + growing * (growing + 1) / 2 + (self.new - growing) * self.window

    @property
    def flop(self) -> float:
        """2 (head_dim + value_dim) per pair and head."""
        return 2 * self.batch * self.pairs * self.heads * (self.head_dim + self.value_dim) * self.count

    @property
    def hbm_bytes(self) -> float:
        """Queries and outputs, new keys and values, and the cached ones in sight."""
        io = self.new * self.heads * (self.head_dim + self.value_dim) + self.new * self.kv_heads * (self.head_dim + self.value_dim)
        past = min(self.past, self.window) if self.window else self.past
        cached = past * self.kv_heads * (self.head_dim + self.value_dim) * FORMATS[self.cache].bytes_per_value
        return self.batch * (ACTIVATION_BYTES * io + cached) * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeAttention:
    """`queries` tokens a sequence over `context` cached ones, `batch` sequences. Heads are those of this rank."""

    name: str
    batch: float
    context: float
    heads: float
    kv_heads: float
    head_dim: int
    value_dim: int
    window: int = 0
    cache: str = "bf16"
    queries: int = 1
    count: float = 1

    @property
    def seen(self) -> float:
        """Cached tokens one query reads."""
        return min(self.context, self.window) if self.window else self.context

    @property
    def flop(self) -> float:
        """2 (head_dim + value_dim) per cached token, query token and query head."""
        return 2 * self.batch * self.queries * self.seen * self.heads * (self.head_dim + self.value_dim) * self.count

    @property
    def hbm_bytes(self) -> float:
        """The cache once for all heads of a group and all query tokens, queries and outputs."""
        cached = self.seen * self.kv_heads * (self.head_dim + self.value_dim) * FORMATS[self.cache].bytes_per_value
        io = ACTIVATION_BYTES * self.queries * self.heads * (self.head_dim + self.value_dim)
        return self.batch * (cached + io) * self.count


def latents_seen(tokens: float, topk: float, compress: float, window: float) -> float:
    """Cached latents read for a context of `tokens`: one for `compress` of them, at most `topk`, and the latest `window` whole."""
    entries = tokens / compress if compress else 0.0
    return (min(entries, topk) if topk else entries) + min(tokens, window)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDecode:
    """MLA with absorbed projections: `heads` query heads read one latent of `kv_rank + rope_dim` a cached entry.

    An entry stands for `compress` tokens (0: there are none), at most `topk` entries are read (0: all), and the latest `window`
    tokens beside them.
    """

    name: str
    batch: float
    context: float
    heads: float
    kv_rank: int
    rope_dim: int
    topk: int = 0
    compress: int = 1
    window: int = 0
    cache: str = "bf16"
    queries: int = 1
    count: float = 1

    @property
    def seen(self) -> float:
        """Latents one query reads."""
        return latents_seen(self.context, self.topk, self.compress, self.window)

    @property
    def flop(self) -> float:
        """2 (kv_rank + rope_dim) for scores and 2 kv_rank for values, per latent read, query token and head."""
        return 2 * self.batch * self.queries * self.seen * self.heads * (2 * self.kv_rank + self.rope_dim) * self.count

    @property
    def hbm_bytes(self) -> float:
        """The latent cache once for all query tokens, queries and outputs."""
        cached = self.seen * (self.kv_rank + self.rope_dim) * FORMATS[self.cache].bytes_per_value
        io = ACTIVATION_BYTES * self.queries * self.heads * (2 * self.kv_rank + self.rope_dim)
        return self.batch * (cached + io) * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentPrefill:
    """MLA prefill with expanded keys and values: causal attention with head sizes nope + rope and v.

    `topk`, `compress` and `window` as in LatentDecode.
    """

    name: str
    batch: float
    new: float
    past: float
    heads: float
    head_dim: int
    value_dim: int
    kv_rank: int
    rope_dim: int
    topk: int = 0
    compress: int = 1
    window: int = 0
    cache: str = "bf16"
    count: float = 1

    @property
    def seen(self) -> float:
        """Latents the last query reads."""
        return latents_seen(self.past + self.new, self.topk, self.compress, self.window)

    @property
    def pairs(self) -> float:
        """Query-key pairs of one sequence: what its queries see in the mean, times how many they are."""
        full = self.new * self.past + self.new * (self.new + 1) / 2
        return latents_seen(full, self.new * self.topk, self.compress, self.new * self.window)

    @property
    def flop(self) -> float:
        """2 (head_dim + value_dim) per pair and head."""
        return 2 * self.batch * self.pairs * self.heads * (self.head_dim + self.value_dim) * self.count

    @property
    def hbm_bytes(self) -> float:
        """Queries, expanded keys and values, outputs, and the cached latent."""
        io = self.new * self.heads * 2 * (self.head_dim + self.value_dim)
        cached = self.past * (self.kv_rank + self.rope_dim) * FORMATS[self.cache].bytes_per_value
        return self.batch * (ACTIVATION_BYTES * io + cached) * self.count


SCAN_CHUNK = 64  # tokens that a chunked scan of a recurrent state takes at once (flash-linear-attention, chunk_size)
STATE_BYTES = 4  # states are kept in fp32 (vLLM and SGLang: mamba_ssm_dtype float32 of Qwen3-Next and Nemotron-H)
Rule = Literal["gated-delta", "kda", "mamba2", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateUpdate:
    """One new token of `batch` sequences in a layer with a state: `heads` states of `head_values` each are read and written."""

    name: str
    batch: float
    heads: float
    head_values: float
    rule: Rule = "gated-delta"
    count: float = 1

    @property
    def flop(self) -> float:
        """Not counted: vector units decay, correct, write and read out the state while it streams through."""
        return 0.0

    @property
    def hbm_bytes(self) -> float:
        """The states in and out; queries, keys, values and outputs of heads that are square."""
        row = 4 * ACTIVATION_BYTES * sqrt(self.head_values)
        return self.batch * self.heads * (2 * STATE_BYTES * self.head_values + row) * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class StateScan:
    """`new` tokens of `batch` sequences in a layer with a state, in chunks of SCAN_CHUNK: inside a chunk products of its tokens,
    between chunks the state handed on."""

    name: str
    batch: float
    new: float
    heads: float
    head_values: float
    rule: Rule = "gated-delta"
    count: float = 1

    @property
    def chunks(self) -> float:
        """Chunks that a sequence walks through one after the other."""
        return max(1.0, self.new / SCAN_CHUNK)

    @property
    def flop(self) -> float:
        """Five products of a chunk with itself, 2 chunk d a token each, and three with the state, 2 d^2 a token each."""
        d = sqrt(self.head_values)
        return self.batch * self.new * self.heads * (10 * SCAN_CHUNK * d + 6 * self.head_values) * self.count

    @property
    def hbm_bytes(self) -> float:
        """Queries, keys, values and outputs of every token, and the state of every chunk out and in again."""
        rows = 4 * ACTIVATION_BYTES * sqrt(self.head_values) * self.new
        return self.batch * self.heads * (rows + 2 * STATE_BYTES * self.head_values * self.chunks) * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexScores:
    """The indexer of sparse attention: `heads` small heads of `head_dim` score every key in sight of `queries` new tokens, in fp8
    (DeepSeek-V3.2 report, section 2.1), and the best are chosen. `pairs`: query-key pairs, `keys`: cached keys that are read."""

    name: str
    queries: float
    pairs: float
    keys: float
    heads: int
    head_dim: int
    count: float = 1

    @property
    def flop(self) -> float:
        """2 head_dim a pair and head."""
        return 2 * self.pairs * self.heads * self.head_dim * self.count

    @property
    def hbm_bytes(self) -> float:
        """The keys in 8 bits with a 32-bit scale each; a 32-bit score a pair written, and read by the selection."""
        return (self.keys * (self.head_dim + 4) + 2 * 4 * self.pairs) * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Memory traffic without matrix work: norms, activations, RoPE, cache writes, embeddings, recurrent states."""

    name: str
    bytes_moved: float
    kernels: float
    count: float = 1

    @property
    def flop(self) -> float:
        """Not counted: the tensor cores do none of it."""
        return 0.0

    @property
    def hbm_bytes(self) -> float:
        """Bytes read and written."""
        return self.bytes_moved * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """A collective over one axis. `payload_bytes` is what one rank puts in (all-reduce: the whole tensor; all-gather: its
    part; all-to-all: all it sends; p2p: the message)."""

    name: str
    op: Op
    axis: Literal["tp", "ep", "adp", "pp"]
    payload_bytes: float
    count: float = 1

    @property
    def flop(self) -> float:
        """None on the tensor cores."""
        return 0.0

    @property
    def hbm_bytes(self) -> float:
        """Left to the collective's own time."""
        return 0.0

    @property
    def wire_bytes(self) -> float:
        """Payload of all repeats."""
        return self.payload_bytes * self.count


Kernel = (
    Gemm
    | Experts
    | PrefillAttention
    | DecodeAttention
    | LatentDecode
    | LatentPrefill
    | StateScan
    | StateUpdate
    | IndexScores
    | Stream
)
Work = Kernel | Collective
