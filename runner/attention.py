"""The token mixers: grouped-query attention and latent attention, whole or one rank's heads, op for op as `roofline/attention.py`.

Legend: `B` sequences, `T` new tokens a sequence (1 in decode), `D` hidden, `H` query heads of this rank, `K` key-value heads of
this rank, `G` = H / K, `d` head width, `P` pages of the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from advisor.errors import PlanError
from advisor.specs.model import GroupedAttention, LatentAttention, ModelSpec
from runner.kv_cache import CacheShape, LayerCache
from runner.norm import Norm
from runner.parallel import Build, ColumnParallel, Piece, RowParallel, Rows, Sharded, even_rows, share
from runner.pointwise import Pointwise

BLOCK_SCORES = 2**28  # scores of one block of a prefill that no fused kernel computes: 1 GiB in fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a forward pass carries: positions (T in a prefill from zero, B in a decode), and cosine and sine by rope name.

    `span` is how many tokens of the cache a decode reads (rounded up to pages); it may exceed the longest context.
    """

    phase: str
    positions: Tensor
    span: int
    turns: dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Which keys a query sees and how scores become weights. `window` 0: all before it."""

    scale: float
    window: int = 0
    chunked: bool = False
    softcap: float = 0.0


class GroupedAttentionShard(Sharded):
    """Grouped-query attention over this rank's heads; a key-value head is replicated where there are fewer than ranks."""

    sinks: Tensor

    def __init__(self, build: Build, spec: ModelSpec, mixer: GroupedAttention, pointwise: Pointwise, *, reduce: bool) -> None:
        super().__init__()
        self.mixer, self.pointwise, self.mesh = mixer, pointwise, build.mesh
        tp, rank = build.mesh.size("tp"), build.mesh.coordinates.tp_rank
        first, self.heads = share(mixer.heads, tp, rank, "query heads")
        kv_first, self.kv_heads = local_kv_heads(mixer.kv_heads, tp, rank)
        if self.heads % self.kv_heads:
            raise PlanError(f"{self.heads} query heads a rank do not share {self.kv_heads} key-value heads; choose another tp.")
        d, dv = mixer.head_dim, mixer.value_dim
        rows = [
            Rows(name="q", total=mixer.heads * d, first=first * d, count=self.heads * d),
            Rows(name="k", total=mixer.kv_heads * d, first=kv_first * d, count=self.kv_heads * d),
            Rows(name="v", total=mixer.kv_heads * dv, first=kv_first * dv, count=self.kv_heads * dv),
        ]
        self.sizes = [r.count for r in rows]
        weights = spec.formats.attention
        self.qkv = ColumnParallel(build, spec.hidden_size, rows, weights=weights, bias=mixer.qkv_bias)
        self.out = RowParallel(
            build, "o", spec.hidden_size, mixer.heads * dv, weights=weights, bias=mixer.output_bias, reduce=reduce
        )
        if mixer.qk_norm != "none":
            full = mixer.qk_norm == "full"
            self.q_norm = Norm.of_rows(build.at("q_norm"), spec.numerics, rows[0] if full else None, d, pointwise)
            self.k_norm = Norm.of_rows(build.at("k_norm"), spec.numerics, rows[1] if full else None, d, pointwise)
        if mixer.sinks:
            cut = slice(first, first + self.heads)
            piece = Piece(name=f"{build.prefix}sinks", shape=(mixer.heads,), cut=(cut,), place=(slice(None),))
            self.hold("sinks", build.zeros(self.heads), [piece])
        numerics = spec.numerics
        self.interleaved = mixer.rope != "none" and dict(numerics.ropes)[mixer.rope].interleaved
        self.sight = Sight(
            scale=numerics.attention_scale if numerics.attention_scale is not None else d**-0.5,
            window=mixer.window_tokens or 0,
            chunked=mixer.chunked,
            softcap=numerics.attention_softcap,
        )

    @property
    def cache_shape(self) -> CacheShape:
        """What the layer's cache keeps."""
        mixer = self.mixer
        return CacheShape(heads=self.kv_heads, key_dim=mixer.head_dim, value_dim=mixer.value_dim, window=mixer.window_tokens or 0)

    def forward(self, x: Tensor, step: Step, cache: LayerCache) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        B, T, _ = x.shape
        q, k, v = self.qkv(x).split(self.sizes, dim=-1)
        if self.mixer.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = q.view(B, T, self.heads, -1), k.view(B, T, self.kv_heads, -1)
        v = v.view(B, T, self.kv_heads, -1)
        if self.mixer.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if self.mixer.rope != "none":
            cos, sin = step.turns[self.mixer.rope]
            q = self.pointwise.rotate(q, cos, sin, interleaved=self.interleaved)
            k = self.pointwise.rotate(k, cos, sin, interleaved=self.interleaved)
        sinks = self.sinks if self.mixer.sinks else None
        if step.phase == "prefill":
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            cache.write_prompt(k, v)
            y = prefill_attention(q, k, v, self.sight, sinks).transpose(1, 2)
        else:
            cache.write_token(k[:, 0], v[:, 0], step.positions)
            y = decode_attention(q[:, 0], cache, step, self.sight, sinks, self.pointwise)
        out: Tensor = self.out(y.reshape(B, T, -1))
        return out


class LatentAttentionShard(Sharded):
    """Multi-head latent attention: the latent is whole on every rank, the heads are cut.

    A prefill expands the latent to keys and values; a decode takes the same matrix to the other side (absorbs it), so that the
    cache is read as it is. The down projections of query and latent are one product.
    """

    def __init__(self, build: Build, spec: ModelSpec, mixer: LatentAttention, pointwise: Pointwise, *, reduce: bool) -> None:
        super().__init__()
        self.mixer, self.pointwise = mixer, pointwise
        mesh, D, weights = build.mesh, spec.hidden_size, spec.formats.attention
        first, self.heads = share(mixer.heads, mesh.size("tp"), mesh.coordinates.tp_rank, "query heads")
        q_rows = Rows(name="q", total=mixer.heads * mixer.head_dim, first=first * mixer.head_dim, count=self.heads * mixer.head_dim)
        down_width = mixer.kv_rank + mixer.rope_dim
        down = Rows(name="kv_down", total=down_width, first=0, count=down_width)
        if mixer.q_rank:
            q_down = Rows(name="q_down", total=mixer.q_rank, first=0, count=mixer.q_rank)
            self.qkv_down = ColumnParallel(build, D, [q_down, down], weights=weights)
            self.q_norm = Norm(build.at("q_norm"), spec.numerics, mixer.q_rank, pointwise, offset=0.0, kind="rms")
            self.q_up = ColumnParallel(build, mixer.q_rank, [replace_name(q_rows, "q_up")], weights=weights)
        else:
            self.qkv_down = ColumnParallel(build, D, [q_rows, down], weights=weights)
        self.down_sizes = [mixer.q_rank or q_rows.count, mixer.kv_rank, mixer.rope_dim]
        self.kv_norm = Norm(build.at("kv_norm"), spec.numerics, mixer.kv_rank, pointwise, offset=0.0, kind="rms")
        both = mixer.nope_dim + mixer.v_head_dim
        # Whole in 16 bits: a decode multiplies with its two halves from the other side, which packed formats do not allow.
        up = even_rows(mesh, "kv_up", mixer.heads * both)
        self.kv_up = ColumnParallel(build, mixer.kv_rank, [up], weights="bf16")
        self.out = RowParallel(build, "o", D, mixer.heads * mixer.v_head_dim, weights=weights, bias=False, reduce=reduce)
        numerics = spec.numerics
        self.interleaved = dict(numerics.ropes)[mixer.rope].interleaved
        scale = numerics.attention_scale if numerics.attention_scale is not None else mixer.head_dim**-0.5
        self.sight = Sight(scale=scale)

    @property
    def cache_shape(self) -> CacheShape:
        """The latent and the rotary key as one key; the value is its first part."""
        return CacheShape(heads=1, key_dim=self.mixer.kv_rank + self.mixer.rope_dim, value_dim=0)

    def forward(self, x: Tensor, step: Step, cache: LayerCache) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        B, T, _ = x.shape
        m = self.mixer
        q, latent, k_rope = self.qkv_down(x).split(self.down_sizes, dim=-1)
        if m.q_rank:
            q = self.q_up(self.q_norm(q))
        q_nope, q_rope = q.view(B, T, self.heads, m.head_dim).split([m.nope_dim, m.rope_dim], dim=-1)
        latent = self.kv_norm(latent)
        cos, sin = step.turns[m.rope]
        q_rope = self.pointwise.rotate(q_rope, cos, sin, interleaved=self.interleaved)
        k_rope = self.pointwise.rotate(k_rope[:, :, None], cos, sin, interleaved=self.interleaved)
        entry = torch.cat((latent[:, :, None], k_rope), dim=-1)  # (B, T, 1, kv_rank + rope)
        if step.phase == "prefill":
            cache.write_prompt(entry.transpose(1, 2), None)
            k_nope, v = self.kv_up(latent).view(B, T, self.heads, -1).split([m.nope_dim, m.v_head_dim], dim=-1)
            q = torch.cat((q_nope, q_rope), dim=-1).transpose(1, 2)
            k = torch.cat((k_nope, k_rope.expand(-1, -1, self.heads, -1)), dim=-1).transpose(1, 2)
            y = prefill_attention(q, k, v.transpose(1, 2), self.sight, None).transpose(1, 2)
        else:
            cache.write_token(entry[:, 0], None, step.positions)
            up = self.kv_up.matrix.weight.view(self.heads, -1, m.kv_rank)
            k_up, v_up = up[:, : m.nope_dim], up[:, m.nope_dim :]
            q_latent = torch.bmm(q_nope[:, 0].transpose(0, 1), k_up).transpose(0, 1)  # (B, H, kv_rank)
            q = torch.cat((q_latent, q_rope[:, 0]), dim=-1)
            seen = decode_attention(q, cache, step, self.sight, None, self.pointwise, value_dim=m.kv_rank)
            y = torch.bmm(seen.transpose(0, 1), v_up.transpose(1, 2)).transpose(0, 1)
        out: Tensor = self.out(y.reshape(B, T, -1))
        return out


def replace_name(rows: Rows, name: str) -> Rows:
    """The same rows of a tensor with another name."""
    return Rows(name=name, total=rows.total, first=rows.first, count=rows.count)


def local_kv_heads(kv_heads: int, tp: int, rank: int) -> tuple[int, int]:
    """First and count of a rank's key-value heads: K / t, or one head replicated t / K times."""
    if kv_heads % tp == 0:
        return rank * (kv_heads // tp), kv_heads // tp
    if tp % kv_heads == 0:
        return rank * kv_heads // tp, 1
    raise PlanError(f"{kv_heads} key-value heads neither divide by tp={tp} nor divide it; choose a tp that does one of the two.")


def prefill_attention(q: Tensor, k: Tensor, v: Tensor, sight: Sight, sinks: Tensor | None) -> Tensor:
    """Causal attention of a prompt from position zero: (B, H, T, d), (B, K, T, d), (B, K, T, dv) -> (B, H, T, dv)."""
    tokens, value_dim = q.shape[2], v.shape[-1]
    windowed = 0 < sight.window < tokens
    if sinks is not None or sight.softcap:
        return _blocked_attention(q, k, v, sight, sinks)
    if windowed:
        return _banded_attention(q, k, v, sight)
    if q.is_cuda and value_dim != q.shape[-1]:  # the flash kernel wants one width; zeros add nothing to the sum
        v = functional.pad(v, (0, q.shape[-1] - value_dim))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=sight.scale, enable_gqa=True)[..., :value_dim]


def visible(queries: Tensor, keys: Tensor, sight: Sight) -> Tensor:
    """Which keys (positions) each query (position) sees, (Q, K) bool."""
    a, b = queries[:, None], keys[None, :]
    seen = b <= a
    if sight.window:
        seen = seen & (b >= a // sight.window * sight.window if sight.chunked else b > a - sight.window)
    return seen


def _banded_attention(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    """A window shorter than the prompt: blocks of queries, each against the keys in its reach only."""
    groups, tokens = q.shape[1] // k.shape[1], q.shape[2]
    block = max(128, min(1024, sight.window))
    parts = []
    for start in range(0, tokens, block):
        stop = min(start + block, tokens)
        low = max(0, start // sight.window * sight.window if sight.chunked else start - sight.window + 1)
        mask = visible(torch.arange(start, stop, device=q.device), torch.arange(low, stop, device=q.device), sight)
        keys = k[:, :, low:stop].repeat_interleave(groups, dim=1)
        values = v[:, :, low:stop].repeat_interleave(groups, dim=1)
        parts.append(functional.scaled_dot_product_attention(q[:, :, start:stop], keys, values, attn_mask=mask, scale=sight.scale))
    return torch.cat(parts, dim=2)


def _blocked_attention(q: Tensor, k: Tensor, v: Tensor, sight: Sight, sinks: Tensor | None) -> Tensor:
    """Soft caps and sinks, which torch's fused kernels lack: plain products over blocks of queries."""
    B, H, T, d = q.shape
    K = k.shape[1]
    G = H // K
    block = max(1, min(T, BLOCK_SCORES // (B * H * T)))
    parts = []
    for start in range(0, T, block):
        stop = min(start + block, T)
        low = max(0, start - sight.window + 1) if sight.window and not sight.chunked else 0
        rows = q[:, :, start:stop].reshape(B, K, G * (stop - start), d)
        scores = (rows @ k[:, :, low:stop].transpose(-1, -2)).view(B, K, G, stop - start, stop - low).float() * sight.scale
        if sight.softcap:
            scores = sight.softcap * torch.tanh(scores / sight.softcap)
        mask = visible(torch.arange(start, stop, device=q.device), torch.arange(low, stop, device=q.device), sight)
        scores = scores.masked_fill(~mask, -torch.inf)
        if sinks is not None:
            sink = sinks.view(1, K, G, 1, 1).float().expand(B, K, G, stop - start, 1)
            weights = torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        rows = weights.to(v.dtype).view(B, K, G * (stop - start), stop - low) @ v[:, :, low:stop]
        parts.append(rows.view(B, H, stop - start, -1))
    return torch.cat(parts, dim=2)


def decode_attention(
    q: Tensor,
    cache: LayerCache,
    step: Step,
    sight: Sight,
    sinks: Tensor | None,
    pointwise: Pointwise,
    *,
    value_dim: int = 0,
) -> Tensor:
    """One query a sequence over the cache: (B, H, d) -> (B, H, dv). `value_dim` > 0: the value is that first part of the key.

    The pages are independent blocks of two batched products (a split over the context, so that one long sequence still fills
    the GPU), joined by a softmax over all of them.
    """
    B, H, d = q.shape
    keys, values = cache.pages(step.span, B)
    if values is None:
        values = keys[..., :value_dim]
    P, _, K, page, _ = keys.shape
    G = H // K
    rows = q.view(1, B, K, G, d).expand(P, -1, -1, -1, -1).reshape(P * B * K, G, d)
    scores = torch.bmm(rows, keys.reshape(P * B * K, page, d).transpose(1, 2)).view(P, B, K, G, page)
    weights, total = pointwise.masked_softmax(
        scores,
        step.positions,
        cache.held(step.positions, P),
        sight.window,
        sight.chunked,
        sight.scale,
        sight.softcap,
        None if sinks is None else sinks.view(K, G),
    )
    flat = weights.to(q.dtype).view(P * B * K, G, page)
    parts = torch.bmm(flat, values.flatten(0, 2)).view(P, B, K, G, -1)
    return (parts.sum(dim=0, dtype=torch.float32) / total[..., None]).to(q.dtype).reshape(B, H, -1)
