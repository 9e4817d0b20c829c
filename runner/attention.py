"""The token mixers: grouped-query attention and latent attention, whole or one rank's heads, op for op as `roofline/attention.py`.

Each is three parts: `enter` (the products into queries, keys, values), `attend` (rotation, cache, scores) and `leave` (the product
out of them, a part of the sum over the ranks). The outer two are compiled with the norms beside them; the middle one is kernels.

Legend: `N` rows of the step, `B` sequences, `D` hidden, `H` query heads of this rank, `K` key-value heads of this rank, `d` head
width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advisor.errors import PlanError
from advisor.specs.model import GroupedAttention, LatentAttention, ModelSpec
from runner.kernels import fused_on
from runner.kv_cache import CacheShape, LayerCache
from runner.norm import Norm
from runner.parallel import Build, ColumnParallel, Piece, RowParallel, Rows, Sharded, even_rows, share
from runner.pointwise import Pointwise
from runner.scores import Sight, decode_attention, prompt_attention
from runner.step import Step


class GroupedAttentionShard(Sharded):
    """Grouped-query attention over this rank's heads; a key-value head is replicated where there are fewer than ranks."""

    sinks: Tensor

    def __init__(self, build: Build, spec: ModelSpec, mixer: GroupedAttention, pointwise: Pointwise) -> None:
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
        self.out = RowParallel(build, "o", spec.hidden_size, mixer.heads * dv, weights=weights, bias=mixer.output_bias)
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

    def enter(self, x: Tensor) -> Tensor:
        """(N, D) -> queries, keys and values (N, (H + K) d + K dv)."""
        y: Tensor = self.qkv(x)
        return y

    def leave(self, y: Tensor) -> Tensor:
        """(N, H dv) -> this rank's part of the sum, (N, D)."""
        out: Tensor = self.out(y)
        return out

    def attend(self, qkv: Tensor, step: Step, cache: LayerCache) -> Tensor:
        """(N, (H + K) d + K dv) -> (N, H dv)."""
        past = cache.before(step.prompt_sequences, step.past, step.chunk) if step.past else None
        q, k = self._turned(qkv, step, cache)
        parts = []
        if step.decodes:
            parts.append(self._decode(q[: step.decodes], step, cache))
        if step.prompts:
            assert k is not None
            v = qkv[step.decodes :, sum(self.sizes[:2]) :]
            parts.append(self._prompts(q[step.decodes :], k[step.decodes :], v, past, step))
        y = parts[0] if len(parts) == 1 else torch.cat(parts)
        return y.reshape(y.shape[0], -1)

    def _turned(self, qkv: Tensor, step: Step, cache: LayerCache) -> tuple[Tensor, Tensor | None]:
        """Normed and rotated queries (N, H, d) and, where the step has prompts, keys (N, K, d); both are in the cache."""
        turns = step.turns[self.mixer.rope] if self.mixer.rope != "none" else None
        by_head = self.mixer.qk_norm == "head"
        if fused_on(qkv.device) and self.mixer.qk_norm != "full" and not (by_head and self.q_norm.kind != "rms"):
            from runner.kernels.rotate_and_write import rotate_and_write

            return rotate_and_write(
                qkv, step, cache, heads=self.heads, turns=turns, interleaved=self.interleaved,
                norms=(self.q_norm.weight, self.k_norm.weight) if by_head else None,
                eps=self.q_norm.eps if by_head else 0.0, offset=self.q_norm.offset if by_head else 0.0,
            )  # fmt: skip
        q, k, v = qkv.split_with_sizes(self.sizes, dim=-1)
        if self.mixer.qk_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        N = qkv.shape[0]
        q, k, v = q.view(N, self.heads, -1), k.view(N, self.kv_heads, -1), v.view(N, self.kv_heads, -1)
        if by_head:
            q, k = self.q_norm(q), self.k_norm(k)
        if turns is not None:
            cos, sin = (t[:, None] for t in turns)
            q = self.pointwise.rotate(q, cos, sin, interleaved=self.interleaved)
            k = self.pointwise.rotate(k, cos, sin, interleaved=self.interleaved)
        keep(cache, k, v, step)
        return q, k

    def _decode(self, q: Tensor, step: Step, cache: LayerCache) -> Tensor:
        """(B, H, d) -> (B, H, dv)."""
        sinks = self.sinks if self.mixer.sinks else None
        return attend_cache(q, step.positions[: step.decodes], step.span, cache, self.sight, sinks)

    def _prompts(self, q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor | None] | None, step: Step) -> Tensor:
        """(B T, H, d), (B T, K, d), (B T, K dv) -> (B T, H, dv)."""
        sinks = self.sinks if self.mixer.sinks else None
        v = v.reshape(v.shape[0], self.kv_heads, -1)
        q, k, v = (t.view(step.prompts, step.chunk, *t.shape[1:]).transpose(1, 2) for t in (q, k, v))
        if past is not None:
            assert past[1] is not None
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        return prompt_attention(q, k, v, step.past, self.sight, sinks).transpose(1, 2).flatten(0, 1)


class LatentAttentionShard(Sharded):
    """Multi-head latent attention: the latent is whole on every rank, the heads are cut.

    A prefill expands the latent to keys and values; a decode takes the same matrix to the other side (absorbs it), so that the
    cache is read as it is. The down projections of query and latent are one product.
    """

    def __init__(self, build: Build, spec: ModelSpec, mixer: LatentAttention, pointwise: Pointwise) -> None:
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
        self.out = RowParallel(build, "o", D, mixer.heads * mixer.v_head_dim, weights=weights, bias=False)
        numerics = spec.numerics
        self.interleaved = dict(numerics.ropes)[mixer.rope].interleaved
        scale = numerics.attention_scale if numerics.attention_scale is not None else mixer.head_dim**-0.5
        self.sight = Sight(scale=scale)

    @property
    def cache_shape(self) -> CacheShape:
        """The latent and the rotary key as one key; the value is its first part."""
        return CacheShape(heads=1, key_dim=self.mixer.kv_rank + self.mixer.rope_dim, value_dim=0)

    def enter(self, x: Tensor) -> Tensor:
        """(N, D) -> the query or its latent, the latent, the rotary key."""
        y: Tensor = self.qkv_down(x)
        return y

    def leave(self, y: Tensor) -> Tensor:
        """(N, H dv) -> this rank's part of the sum, (N, D)."""
        out: Tensor = self.out(y)
        return out

    def attend(self, down: Tensor, step: Step, cache: LayerCache) -> Tensor:
        """What `enter` gave -> (N, H dv)."""
        m = self.mixer
        q, latent, k_rope = down.split_with_sizes(self.down_sizes, dim=-1)
        if m.q_rank:
            q = self.q_up(self.q_norm(q))
        q_nope, q_rope = q.view(-1, self.heads, m.head_dim).split_with_sizes([m.nope_dim, m.rope_dim], dim=-1)
        latent = self.kv_norm(latent)
        cos, sin = (t[:, None] for t in step.turns[m.rope])
        q_rope = self.pointwise.rotate(q_rope, cos, sin, interleaved=self.interleaved)
        k_rope = self.pointwise.rotate(k_rope[:, None], cos, sin, interleaved=self.interleaved)
        entry = torch.cat((latent[:, None], k_rope), dim=-1)  # (N, 1, kv_rank + rope)
        past = cache.before(step.prompt_sequences, step.past, step.chunk)[0] if step.past else None
        keep(cache, entry, None, step)
        parts = []
        if step.decodes:
            parts.append(self._decode(q_nope[: step.decodes], q_rope[: step.decodes], step, cache))
        if step.prompts:
            own = slice(step.decodes, None)
            parts.append(self._prompts(torch.cat((q_nope[own], q_rope[own]), dim=-1), entry[own], past, step))
        y = parts[0] if len(parts) == 1 else torch.cat(parts)
        return y.reshape(y.shape[0], -1)

    def _decode(self, q_nope: Tensor, q_rope: Tensor, step: Step, cache: LayerCache) -> Tensor:
        """(B, H, nope), (B, H, rope) -> (B, H, dv): the up projection goes to the queries, and to what they saw."""
        m = self.mixer
        up = self.kv_up.matrix.weight.view(self.heads, -1, m.kv_rank)
        k_up, v_up = up[:, : m.nope_dim], up[:, m.nope_dim :]
        q_latent = torch.bmm(q_nope.transpose(0, 1), k_up).transpose(0, 1)  # (B, H, kv_rank)
        q = torch.cat((q_latent, q_rope), dim=-1)
        positions = step.positions[: step.decodes]
        seen = attend_cache(q, positions, step.span, cache, self.sight, None, value_dim=m.kv_rank)
        return torch.bmm(seen.transpose(0, 1), v_up.transpose(1, 2)).transpose(0, 1)

    def _prompts(self, q: Tensor, entry: Tensor, past: Tensor | None, step: Step) -> Tensor:
        """(B T, H, d), (B T, 1, kv_rank + rope) -> (B T, H, dv): the latents of all tokens, cached ones too, expanded."""
        m = self.mixer
        entry = entry.view(step.prompts, step.chunk, 1, -1).transpose(1, 2)
        entry = entry if past is None else torch.cat((past, entry), dim=2)
        latent, k_rope = entry.split_with_sizes([m.kv_rank, m.rope_dim], dim=-1)  # (B, 1, S, .)
        expanded = self.kv_up(latent[:, 0]).view(step.prompts, -1, self.heads, m.nope_dim + m.v_head_dim).transpose(1, 2)
        k_nope, v = expanded.split_with_sizes([m.nope_dim, m.v_head_dim], dim=-1)
        k = torch.cat((k_nope, k_rope.expand(-1, self.heads, -1, -1)), dim=-1)
        q = q.view(step.prompts, step.chunk, self.heads, -1).transpose(1, 2)
        return prompt_attention(q, k, v, step.past, self.sight, None).transpose(1, 2).flatten(0, 1)


def keep(cache: LayerCache, keys: Tensor, values: Tensor | None, step: Step) -> None:
    """Write the step's keys (N, K, d) and values into the cache; of a prompt longer than a ring, its last tokens."""
    rows = step.kept(cache.slots)
    if rows is None:
        cache.write(keys, values, step.sequences, step.positions)
    else:
        cache.write(keys[rows], None if values is None else values[rows], step.sequences[rows], step.positions[rows])


def attend_cache(
    q: Tensor, positions: Tensor, span: int, cache: LayerCache, sight: Sight, sinks: Tensor | None, *, value_dim: int = 0
) -> Tensor:
    """Queries at `positions` (B) over their caches, (B, H, d) -> (B, H, dv): our own kernels on a GPU, plain products elsewhere."""
    if not fused_on(q.device):
        return decode_attention(q, cache, positions, span, sight, sinks, value_dim=value_dim)
    from runner.kernels.decode_attention import decode_attention as fused

    return fused(
        q, cache.keys, cache.values, positions, span=span, scale=sight.scale, window=sight.window, chunked=sight.chunked,
        softcap=sight.softcap, sinks=sinks, value_dim=value_dim,
    )  # fmt: skip


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
