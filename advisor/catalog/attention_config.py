"""The token mixers a config describes, layer by layer: grouped, latent and compressed attention, and which layers see a window."""

from __future__ import annotations

from dataclasses import replace

from advisor.catalog.config_fields import MAX_CONTEXT, Fields
from advisor.catalog.families import Family, Trait
from advisor.catalog.recurrent_config import delta_mixer, kda_mixer, lightning_mixer, mamba2_mixer, mamba_mixer
from advisor.specs.model import GroupedAttention, LatentAttention, Mixer

_KINDS = {
    "full_attention": "full",
    "attention": "full",
    "deepseek_sparse_attention": "full",
    "minimax_m3_sparse": "full",
    "indexed_attention": "full",
    "hybrid": "full",
    "sliding_attention": "window",
    "chunked_attention": "chunk",
    "linear_attention": "linear",
    "mamba": "linear",
}
# DeepSeek-V4: tokens an entry of each layer type stands for (transformers, configuration_deepseek_v4.py).
_V4_RATIOS = {"sliding_attention": 0, "compressed_sparse_attention": 4, "heavily_compressed_attention": 128}


def trait(fields: Fields, value: Trait) -> bool:
    """A trait of the family: given, or what the config field it names says ("!field": true where absent)."""
    if isinstance(value, bool):
        return value
    return fields.flag(value.lstrip("!"), default=value.startswith("!"))


def mixers(fields: Fields, key: str, family: Family, *, hidden: int, layers: int) -> list[Mixer]:
    """One mixer a layer, in order. Equal layers share one object."""
    if family.mixer == "v4":
        return list(_compressed(fields, hidden, layers))
    kinds = layer_kinds(fields, family, layers)
    made: dict[tuple[str, int], Mixer] = {}
    found: list[Mixer] = []
    shared = shared_indexers(fields, layers)
    sparse = _block_sparse(fields, layers)
    reusing = layers - fields.integer("num_kv_shared_layers", default=0, low=0, high=layers)
    nope = _without_positions(fields, family, kinds)
    for index, kind in enumerate(kinds):
        variant = (kind, int(shared[index]) + 2 * int(sparse[index]) + 4 * int(index >= reusing) + 8 * int(nope[index]))
        if variant not in made:
            mixer = _mixer(fields, key, family, kind, hidden)
            if isinstance(mixer, LatentAttention) and shared[index]:
                mixer = replace(mixer, index_shared=True)
            if isinstance(mixer, GroupedAttention):
                mixer = _with_indexer(fields, mixer) if sparse[index] else mixer
                mixer = replace(mixer, shares_kv=True) if index >= reusing else mixer
            if nope[index] and isinstance(mixer, GroupedAttention):
                mixer = replace(mixer, rope="none")
            made[variant] = mixer
        found.append(made[variant])
    return found


def _mixer(fields: Fields, key: str, family: Family, kind: str, hidden: int) -> Mixer:
    if kind == "linear":
        if family.mixer == "delta":
            return delta_mixer(fields, hidden)
        if family.mixer == "kda":
            return kda_mixer(fields, hidden)
        if family.mixer == "lightning":
            return lightning_mixer(fields, hidden)
        if family.mixer in ("mamba2", "pattern"):
            return mamba2_mixer(fields, hidden)
        return mamba_mixer(fields, hidden, inner_norms=family.mixer == "jamba")
    if family.mixer in ("latent", "kda") and fields.has("kv_lora_rank"):
        return latent_mixer(fields, family)
    return grouped_mixer(fields, key, family, kind, hidden)


def grouped_mixer(fields: Fields, key: str, family: Family, kind: str, hidden: int) -> GroupedAttention:
    """Multi-head, grouped-query or multi-query attention of one layer kind ("full", "window" or "chunk")."""
    sliding = kind == "window"
    heads, kv_heads = _heads(fields, key, sliding=sliding)
    head_dim = fields.integer("head_dim", "attention_head_dim", "kv_channels", default=0, low=0)
    if not head_dim:
        if hidden % heads:
            raise fields.refuse(f"head_dim is missing and {heads} heads do not divide the hidden size of {hidden}.")
        head_dim = hidden // heads
    value_dim = fields.integer("v_head_dim", default=head_dim) if family.mixer == "grouped" else head_dim
    k_is_v = False
    if sliding:
        head_dim = fields.integer("swa_head_dim", default=head_dim)
        value_dim = fields.integer("swa_v_head_dim", default=value_dim)
    elif key == "gemma4_text":
        k_is_v = fields.flag("attention_k_eq_v")
        head_dim = value_dim = fields.integer("global_head_dim", default=512)
        kv_heads = fields.integer("num_global_key_value_heads", default=kv_heads) if k_is_v else kv_heads
    if heads % kv_heads:
        raise fields.refuse(f"{heads} query heads do not share {kv_heads} key-value heads evenly.")
    window = None
    if kind != "full":
        names = ("sliding_window", "sliding_window_size") if sliding else ("attention_chunk_size",)
        window = fields.integer(*names, high=MAX_CONTEXT)
    normed = trait(fields, family.qk_norm_field) if family.qk_norm_field else family.qk_norm != "none"
    return GroupedAttention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=None if value_dim == head_dim else value_dim,
        window_tokens=window,
        chunked=kind == "chunk",
        qkv_bias=trait(fields, family.qkv_bias),
        output_bias=trait(fields, family.output_bias),
        qk_norm=family.qk_norm if normed else "none",
        gated=trait(fields, family.gated_attention),
        head_gate=key == "step3p5",
        sinks=key == "gpt_oss" or (sliding and fields.flag("add_swa_attention_sink_bias")),
        k_is_v=k_is_v,
        rope=_rope_name(fields, key, kind),
    )


def _heads(fields: Fields, key: str, *, sliding: bool) -> tuple[int, int]:
    """Query and key-value heads: H, K."""
    heads = fields.integer("num_attention_heads", "n_head", "n_heads")
    nested = fields.child("attn_config")
    if sliding:
        other = fields.child("attention_other_setting")
        heads = fields.integer("num_sliding_attention_heads", "swa_num_attention_heads", default=heads)
        heads = other.integer("num_attention_heads", default=heads) if other else heads
        if fields.has("swa_num_key_value_heads"):
            return heads, fields.integer("swa_num_key_value_heads")
    if key == "falcon" and not fields.flag("new_decoder_architecture"):
        return heads, 1 if fields.flag("multi_query", default=True) else heads
    if key == "gpt_bigcode":
        return heads, 1 if fields.flag("multi_query", default=True) else heads
    if nested is not None and nested.has("kv_n_heads"):
        return heads, nested.integer("kv_n_heads")
    if key == "chatglm" and not fields.flag("multi_query_attention"):
        return heads, heads
    return heads, fields.integer("num_key_value_heads", "num_kv_heads", "multi_query_group_num", default=heads)


def _rope_name(fields: Fields, key: str, kind: str) -> str:
    """The entry of `Numerics.ropes` of a layer: two where windows turn at another base."""
    return ("sliding" if kind == "window" else "full") if two_ropes(fields, key) else "default"


def two_ropes(fields: Fields, key: str) -> bool:
    """Whether windowed layers have a rotary embedding of their own."""
    nested = fields.child("rope_parameters")
    split = nested is not None and nested.child("sliding_attention") is not None
    return split or key in ("gemma3_text", "gemma4_text", "mimo_v2_flash", "olmo3")


def latent_mixer(fields: Fields, family: Family) -> LatentAttention:
    """Multi-head latent attention, with the sparse indexer where the config has one."""
    return LatentAttention(
        heads=fields.integer("num_attention_heads"),
        q_rank=fields.integer("q_lora_rank", default=0, low=0),
        kv_rank=fields.integer("kv_lora_rank"),
        nope_dim=fields.integer("qk_nope_head_dim"),
        rope_dim=fields.integer("qk_rope_head_dim"),
        v_head_dim=fields.integer("v_head_dim"),
        index_heads=fields.integer("index_n_heads", default=0, low=0),
        index_head_dim=fields.integer("index_head_dim", default=0, low=0),
        index_topk=fields.integer("index_topk", default=0, low=0),
        gated=fields.flag("mla_use_output_gate"),
        rope="none" if family.mixer == "kda" and fields.flag("mla_use_nope", default=True) else "default",
    )


def _compressed(fields: Fields, hidden: int, layers: int) -> list[LatentAttention]:
    """DeepSeek-V4: one shared latent head, a window, and entries that stand for several tokens."""
    ratios = fields.integers("compress_ratios", high=4096)
    if not ratios:
        types = fields.texts("layer_types")
        unknown = sorted(set(types) - set(_V4_RATIOS))
        if unknown:
            raise fields.refuse(f"layers of type {unknown[0]!r} are not modelled.")
        ratios = [_V4_RATIOS[x] for x in types] or [128, 128] + [4 if i % 2 else 128 for i in range(layers - 2)]
    ratios = fields.per_layer("compress_ratios", layers, ratios)
    width, rope = fields.integer("head_dim"), fields.integer("qk_rope_head_dim", default=64)
    if rope >= width:
        raise fields.refuse(f"qk_rope_head_dim {rope} leaves nothing of head_dim {width}.")
    index_dim = fields.integer("index_head_dim")
    plain = LatentAttention(
        heads=fields.integer("num_attention_heads"),
        q_rank=fields.integer("q_lora_rank"),
        kv_rank=width - rope,
        nope_dim=width - rope,
        rope_dim=rope,
        v_head_dim=width,
        absorbed=True,
        window_tokens=fields.integer("sliding_window", high=MAX_CONTEXT),
        output_rank=fields.integer("o_lora_rank"),
        output_groups=fields.integer("o_groups"),
        sinks=True,
    )
    index_heads, topk = fields.integer("index_n_heads"), fields.integer("index_topk")
    if plain.heads % plain.output_groups:
        raise fields.refuse(f"{plain.heads} heads do not split into o_groups {plain.output_groups}.")
    made = {}
    for ratio in set(ratios):
        indexed = 0 < ratio < 128  # heavily compressed layers read all their entries
        made[ratio] = replace(
            plain,
            compress_tokens=ratio,
            index_heads=index_heads if indexed else 0,
            index_head_dim=index_dim if indexed else 0,
            index_topk=topk if indexed else 0,
        )
    return [made[ratio] for ratio in ratios]


def layer_kinds(fields: Fields, family: Family, layers: int) -> list[str]:
    """ "full", "window", "chunk" or "linear" for each layer: as the config lists them, else by the family's rule."""
    if fields.has("layer_types") and family.mixer != "v4":
        names = fields.texts("layer_types")
        unknown = sorted(set(names) - set(_KINDS))
        if unknown:
            raise fields.refuse(f"layers of type {unknown[0]!r} are not modelled.")
        return fields.per_layer("layer_types", layers, [_KINDS[name] for name in names])
    if family.mixer == "delta":
        every = fields.integer("full_attention_interval", default=4)
        return ["linear" if (i + 1) % every else "full" for i in range(layers)]
    if family.mixer == "kda":
        nested = fields.child("linear_attn_config")
        if nested is None:
            raise fields.refuse("linear_attn_config is missing, and the size of the model depends on it.")
        full = set(nested.integers("full_attn_layers", low=1))
        nested.integers("kda_layers", low=1)
        return ["full" if i + 1 in full else "linear" for i in range(layers)]
    if family.mixer == "lightning":
        types = fields.integers("attn_type_list", "layer_types", high=1)
        return ["full" if x else "linear" for x in fields.per_layer("attn_type_list", layers, types)]
    if family.mixer == "jamba":
        every, first = fields.integer("attn_layer_period", default=8), fields.integer("attn_layer_offset", default=4, low=0)
        return ["full" if i % every == first else "linear" for i in range(layers)]
    if family.mixer in ("mamba", "mamba2"):
        return ["linear"] * layers
    return _windows(fields, family, layers)


def _windows(fields: Fields, family: Family, layers: int) -> list[str]:
    rule = family.windows
    if rule == "chunk":
        every = fields.integer("no_rope_layer_interval", default=family.window_every)
        turned = fields.integers("no_rope_layers", high=1) or [int((i + 1) % every != 0) for i in range(layers)]
        chunked = fields.has("attention_chunk_size")
        return ["chunk" if x and chunked else "full" for x in fields.per_layer("no_rope_layers", layers, turned)]
    if rule == "mimo":
        pattern = fields.integers("hybrid_layer_pattern", high=1)
        return ["window" if x else "full" for x in fields.per_layer("hybrid_layer_pattern", layers, pattern)]
    if rule == "none" or not fields.has("sliding_window"):
        return ["full"] * layers
    if rule == "qwen":
        first = fields.integer("max_window_layers", default=layers, low=0)
        used = fields.flag("use_sliding_window")
        return ["window" if used and i >= first else "full" for i in range(layers)]
    if rule == "alternate":
        return ["full" if i % 2 else "window" for i in range(layers)]
    if rule == "every":
        every = family.window_every
        if not fields.is_text("sliding_window_pattern"):  # EXAONE 4 writes "LLLG"
            every = fields.integer("sliding_window_pattern", "_sliding_window_pattern", default=every)
        kinds = ["window" if (i + 1) % every else "full" for i in range(layers)]
        if family.norm_offset == 0.0 and family.scaled_embedding:  # Gemma 4 ends on a global layer whatever the pattern
            kinds[-1] = "full"
        return kinds
    return ["window"] * layers


def _without_positions(fields: Fields, family: Family, kinds: list[str]) -> list[bool]:
    """Layers whose attention has no rotary embedding."""
    layers = len(kinds)
    if family.windows == "chunk":
        every = fields.integer("no_rope_layer_interval", default=family.window_every)
        turned = fields.integers("no_rope_layers", high=1) or [int((i + 1) % every != 0) for i in range(layers)]
        return [not x for x in fields.per_layer("no_rope_layers", layers, turned)]
    if family.global_nope:
        windowed = "window" in kinds
        return [windowed and kind == "full" for kind in kinds]
    if fields.has("no_rope_layers", "no_rope_layer_interval"):
        every = fields.integer("no_rope_layer_interval", default=4)
        turned = fields.integers("no_rope_layers", high=1) or [int((i + 1) % every != 0) for i in range(layers)]
        return [not x for x in fields.per_layer("no_rope_layers", layers, turned)]
    return [family.position != "rope"] * layers


def shared_indexers(fields: Fields, layers: int) -> list[bool]:
    """Layers of GLM-5.2 that reuse an earlier layer's selection: listed, or all but every so many from an offset."""
    if not fields.has("index_n_heads"):
        return [False] * layers
    names = fields.texts("indexer_types")
    if names:
        return [x == "shared" for x in fields.per_layer("indexer_types", layers, names)]
    every = fields.integer("index_topk_freq", default=1)
    offset = fields.integer("index_skip_topk_offset", default=2, low=0)
    return [max(i - offset + 1, 0) % every != 0 for i in range(layers)]


def _block_sparse(fields: Fields, layers: int) -> list[bool]:
    """Layers of MiniMax-M3 whose queries read selected blocks only."""
    nested = fields.child("sparse_attention_config")
    if nested is None:
        return [False] * layers
    return [bool(x) for x in nested.per_layer("sparse_attention_freq", layers, nested.integers("sparse_attention_freq", high=1))]


def _with_indexer(fields: Fields, mixer: GroupedAttention) -> GroupedAttention:
    nested = fields.child("sparse_attention_config")
    assert nested is not None
    return replace(
        mixer,
        index_heads=nested.integer("sparse_num_index_heads"),
        index_head_dim=nested.integer("sparse_index_dim"),
        index_topk=nested.integer("sparse_topk_blocks") * nested.integer("sparse_block_size"),
    )
