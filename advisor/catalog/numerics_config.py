"""The `Numerics` of a config: norms, scales, caps and rotary embeddings, as Hugging Face transformers 5 computes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from advisor.catalog.attention_config import trait, two_ropes
from advisor.catalog.config_fields import MAX_CONTEXT, Fields
from advisor.catalog.families import Family
from advisor.catalog.ffn_config import activation, knows_activation
from advisor.specs.model import GroupedAttention, LatentAttention, Mixer, Numerics, Rope

_EPS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_epsilon", "norm_eps")
_KINDS = {"su": "longrope", "mrope": "default", "": "default"}
_KNOWN = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")


def numerics(fields: Fields, key: str, family: Family, mixers: Sequence[Mixer], *, hidden: int, context: int) -> Numerics:
    """Everything that changes the function but not its size; `unsupported` names what a plain transformer does not compute."""
    ropes = _ropes(fields, key, family, hidden, context) if family.position == "rope" else ()
    fields.number("attention_value_scale", default=1.0)
    scale = fields.number("embedding_multiplier", "scale_emb", default=math.sqrt(hidden) if family.scaled_embedding else 1.0)
    return Numerics(
        norm=family.norm,
        norm_eps=fields.number(*_EPS, default=family.norm_eps, high=1.0),
        norm_offset=family.norm_offset,
        norm_placement=family.norm_placement,
        embedding_scale=scale,
        attention_scale=_attention_scale(fields, key, mixers, ropes),
        attention_softcap=fields.number("attn_logit_softcapping", default=0.0) if family.windows == "alternate" else 0.0,
        logit_softcap=fields.number("final_logit_softcapping", default=0.0) if family.scaled_embedding else 0.0,
        logit_scale=_logit_scale(fields, key),
        residual_scale=fields.number("residual_multiplier", default=1.0),
        position=family.position,
        ropes=ropes,
        unsupported=_unsupported(fields, key, family, mixers, ropes),
    )


def _logit_scale(fields: Fields, key: str) -> float:
    if key in ("cohere", "cohere2"):
        return fields.number("logit_scale", default=0.0625)
    return 1.0 / fields.number("logits_scaling", default=1.0, low=1e-9)


def _attention_scale(fields: Fields, key: str, mixers: Sequence[Mixer], ropes: Sequence[tuple[str, Rope]]) -> float | None:
    """The softmax scale where it is not head_dim^-0.5: a scalar of the config, or yarn's mscale squared (DeepSeek-V3)."""
    if key == "gemma4_text":
        return 1.0
    if fields.has("attention_multiplier"):
        return fields.number("attention_multiplier")
    if fields.has("query_pre_attn_scalar"):
        return float(fields.number("query_pre_attn_scalar", low=1e-9) ** -0.5)
    latent = next((m for m in mixers if isinstance(m, LatentAttention)), None)
    if latent is not None and ropes and ropes[0][1].kind == "yarn" and ropes[0][1].mscale_all_dim:
        rope = ropes[0][1]
        return float(latent.head_dim**-0.5 * _mscale(rope.factor, rope.mscale_all_dim) ** 2)
    return None


def _mscale(factor: float, mscale: float) -> float:
    """0.1 m ln(s) + 1 (yarn paper, section 3.4)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _ropes(fields: Fields, key: str, family: Family, hidden: int, context: int) -> tuple[tuple[str, Rope], ...]:
    """Named rotary embeddings: "default" alone, or "full" and "sliding" where windowed layers turn at another base."""
    fraction = _fraction(fields, key, family, hidden)
    theta = 10000.0
    thetas = fields.numbers("rope_theta") if fields.is_list("rope_theta") else ()
    theta = fields.number("rope_theta", "rotary_emb_base", "rope_base", default=theta, low=1e-3) if not thetas else thetas[0]
    if theta <= 0:
        raise fields.refuse(f"rope_theta must be positive, not {theta:g}.")
    nested = fields.child("rope_parameters") or fields.child("rope_scaling")
    if not two_ropes(fields, key):
        return (("default", _rope(fields, nested, family, theta, fraction, context)),)
    by_kind = nested.child("full_attention") if nested is not None else None
    if nested is not None and by_kind is not None:
        slow = nested.child("sliding_attention")
        full = _rope(fields, by_kind, family, theta, fraction, context)
        return (("full", full), ("sliding", _rope(fields, slow, family, 10000.0, fraction, context)))
    full = _rope(fields, nested, family, theta, fraction, context)
    local = fields.number("rope_local_base_freq", "swa_rope_theta", default=theta if key == "olmo3" else 10000.0, low=1e-3)
    return (("full", full), ("sliding", Rope(theta=local, fraction=fraction, interleaved=family.rope_interleaved)))


def _fraction(fields: Fields, key: str, family: Family, hidden: int) -> float:
    """The part of the head that turns."""
    if fields.has("rotary_dim"):
        heads = fields.integer("num_attention_heads", "n_head")
        head_dim = fields.integer("head_dim", default=max(1, hidden // heads))
        return min(1.0, fields.integer("rotary_dim") / head_dim)
    if family.mixer in ("latent", "v4"):
        return 1.0
    factors = fields.numbers("partial_rotary_factors")
    default = factors[0] if factors else family.rope_fraction
    return fields.number("partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent", default=default, high=1.0)


def _rope(fields: Fields, nested: Fields | None, family: Family, theta: float, fraction: float, context: int) -> Rope:
    """One embedding from its mapping (`rope_parameters` or `rope_scaling`), or the plain one."""
    interleaved = fields.flag("rope_interleave", default=family.rope_interleaved)
    if nested is None:
        return Rope(theta=theta, fraction=fraction, interleaved=interleaved)
    name = nested.text("rope_type", "type", default="default").lower()
    kind = _KINDS.get(name, name)
    factor = nested.number("factor", default=1.0, low=1e-6, high=1e9)
    original = nested.integer("original_max_position_embeddings", default=0, low=0, high=MAX_CONTEXT)
    original = original or fields.integer("original_max_position_embeddings", default=0, low=0, high=MAX_CONTEXT)
    mscale, all_dim = nested.number("mscale", default=0.0), nested.number("mscale_all_dim", default=0.0)
    if kind == "longrope":
        original = original or context
        factor = context / original if context > original else factor
    for unused in ("mrope_section", "mrope_interleaved"):  # three position ids that are equal for text
        nested.has(unused)
    return Rope(
        theta=nested.number("rope_theta", default=theta, low=1e-3),
        fraction=nested.number("partial_rotary_factor", default=fraction, high=1.0),
        kind=kind,
        factor=factor,
        original_context=original or (context if kind != "default" else 0),
        low_freq_factor=nested.number("low_freq_factor", default=1.0, low=1e-6),
        high_freq_factor=nested.number("high_freq_factor", default=4.0, low=1e-6),
        beta_fast=nested.number("beta_fast", default=32.0, low=1e-6),
        beta_slow=nested.number("beta_slow", default=1.0, low=1e-6),
        mscale=mscale,
        mscale_all_dim=all_dim,
        attention_factor=_attention_factor(nested, kind, factor, original, mscale, all_dim),
        short_factor=nested.numbers("short_factor"),
        long_factor=nested.numbers("long_factor"),
        truncate=nested.flag("truncate", default=True),
        interleaved=interleaved,
    )


def _attention_factor(nested: Fields, kind: str, factor: float, original: int, mscale: float, all_dim: float) -> float:
    """What cosine and sine are multiplied with: yarn's ratio of mscales, longrope's sqrt(1 + ln s / ln L)."""
    if nested.has("attention_factor"):
        return nested.number("attention_factor")
    if kind == "yarn":
        return _mscale(factor, mscale) / _mscale(factor, all_dim) if mscale and all_dim else _mscale(factor, 1.0)
    if kind == "longrope" and factor > 1 and original > 1:
        return math.sqrt(1 + math.log(factor) / math.log(original))
    return 1.0


def _unsupported(
    fields: Fields, key: str, family: Family, mixers: Sequence[Mixer], ropes: Sequence[tuple[str, Rope]]
) -> tuple[str, ...]:
    found = list(family.unsupported)
    name = activation(fields, family)
    if not knows_activation(name):
        found.append(f"activation {name[:40]!r}")
    found += [f"rotary embedding {rope.kind[:40]!r}" for _, rope in ropes if rope.kind not in _KNOWN]
    if any(m.index_heads for m in mixers if isinstance(m, GroupedAttention | LatentAttention)):
        found.append("sparse attention indexer")
    if fields.number("clip_qkv", default=0.0):
        found.append("clipped queries, keys and values")
    if fields.number("swiglu_limit", default=0.0) and key != "gpt_oss":
        found.append("clamped SwiGLU")
    if family.qk_norm == "full" and family.norm == "layer" and trait(fields, family.qk_norm_field or False):
        found.append("layer norms of queries and keys")
    if fields.flag("attention_output_gate") or fields.flag("mla_use_output_gate"):
        found.append("attention output gate")
    if fields.text("scoring_func", default="softmax") not in ("softmax", "sigmoid"):
        found.append("square-root softplus routing")
    return tuple(dict.fromkeys(found))
