"""What one pass of a rank has to do, by formula: FLOP of its matrix products, and bytes it must read.

A measured run is never counted by a dispatch mode: a first call under one makes torch.compile skip that code for ever, and torch's
counter has no grouped-query attention. Tests compare the two.

Legend: `N` rows of the pass, `B` decodes, `S` context of each, `T` new tokens of a prompt, `p` cached tokens before them, `H` query
heads of this rank, `d`, `dv` widths of a key and a value, `E` experts, `k` chosen a token.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from runner.attention import GroupedAttentionShard, LatentAttentionShard
from runner.ffn import MoeShard
from runner.kv_cache import KvCache
from runner.parallel import Sharded
from runner.quantised import Matrix
from runner.transformer import Transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSize:
    """`decodes` sequences of one token over `contexts` each, and `prompts` of `chunk` tokens after `past`."""

    contexts: tuple[int, ...] = ()
    prompts: int = 0
    chunk: int = 0
    past: int = 0

    @property
    def rows(self) -> int:
        """Tokens that pass the layers."""
        return len(self.contexts) + self.prompts * self.chunk


def pass_flop(model: Transformer, size: PassSize) -> float:
    """2 for each multiply-add of the rank's matrix products: 2 N (rows x columns) of every weight, and scores and values.

    A latent's expansion counts the cached tokens too. Of the routed experts' N adp k pairs a rank has 1 / ep. Element-wise work is
    left out.
    """
    total = 0.0
    for block in model.decoder():
        if isinstance(block.ffn, MoeShard):
            total += _moe_flop(block.ffn, size.rows)
        total += _matrix_flop(block, size) + _attention_flop(block.attention, size)
    if model.mesh.is_last_stage:
        head = model.head
        rows, columns = head.tied.shape if head.tied is not None else (head.matrix.rows, head.matrix.columns)
        total += 2.0 * (len(size.contexts) + size.prompts) * rows * columns
    return total


def _matrix_flop(block: nn.Module, size: PassSize) -> float:
    """Every linear of the layer over all rows; router and expansion have counts of their own."""
    total = 0.0
    for name, module in block.named_modules():
        if isinstance(module, Matrix):
            rows = size.rows
            if ".kv_up." in f".{name}.":
                rows += size.prompts * size.past
            total += 2.0 * rows * module.rows * module.columns
    return total


def _moe_flop(module: MoeShard, rows: int) -> float:
    """The pairs that meet this rank's experts, and the router for the tokens of the other groups, where they are gathered."""
    plan = module.mesh.plan
    experts = module.experts
    each = experts.gate_up[0].numel() + experts.down[0].numel()
    pairs = rows * plan.adp * module.ffn.top_k / plan.ep
    router = module.router.matrix
    others = rows * (plan.adp - 1) if module.exchange == "all_gather" else 0
    return 2.0 * pairs * each + 2.0 * others * router.rows * router.columns


def _attention_flop(attention: GroupedAttentionShard | LatentAttentionShard, size: PassSize) -> float:
    """2 H (d + dv) for each pair of a query and a key that it sees; a latent's decode reads it as it is."""
    sight = attention.sight
    decoded = sum(seen(sight.window, sight.chunked, context) for context in size.contexts)
    prompted = size.prompts * sum_seen(sight.window, sight.chunked, size.past, size.chunk)
    if isinstance(attention, LatentAttentionShard):
        latent = attention.mixer
        wide = 2 * latent.kv_rank + latent.rope_dim
        return 2.0 * attention.heads * (decoded * wide + prompted * (latent.head_dim + latent.v_head_dim))
    return 2.0 * attention.heads * (attention.mixer.head_dim + attention.mixer.value_dim) * (decoded + prompted)


def seen(window: int, chunked: bool, context: int) -> int:
    """Keys that the last of `context` tokens sees, itself among them."""
    if not window:
        return context
    return (context - 1) % window + 1 if chunked else min(context, window)


def sum_seen(window: int, chunked: bool, past: int, chunk: int) -> int:
    """The same summed over the `chunk` tokens after `past`: T p + T (T + 1) / 2 without a window."""
    if not window:
        return chunk * past + chunk * (chunk + 1) // 2
    return sum(seen(window, chunked, past + token + 1) for token in range(chunk))


def read_bytes(model: Transformer, cache: KvCache, size: PassSize) -> float:
    """Bytes that one pass must read on this rank: weights that are used, and of the cache what the decodes see.

    The embedding is looked up, not read. Of E experts those that no token of an even draw reaches are left out:
    E (1 - k / E)^(N adp), the tokens of all attention groups.
    """
    total = float(model.weight_bytes)
    embedding = model.embedding
    tied = model.mesh.is_last_stage and model.head.tied is not None
    if embedding is not None and not tied:
        total -= embedding.weight.numel() * embedding.weight.element_size()
    for module in model.modules():
        if isinstance(module, MoeShard):
            total -= _idle_bytes(module, size.rows)
    for block, layer in zip(model.decoder(), cache.layers, strict=True):
        sight = block.attention.sight
        tokens = sum(seen(sight.window, sight.chunked, context) for context in size.contexts) + size.prompts * size.past
        for part in (layer.keys, layer.values):
            if part is not None:
                total += tokens * part.shape[1] * part.shape[3] * part.element_size()
    return total


def _idle_bytes(module: MoeShard, rows: int) -> float:
    ffn = module.ffn
    idle = (1.0 - ffn.top_k / ffn.experts) ** (rows * module.mesh.plan.adp)
    return idle * _held_bytes(module.experts)


def _held_bytes(module: Sharded) -> float:
    return float(sum(t.numel() * t.element_size() for t in module.buffers()))
