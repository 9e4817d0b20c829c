"""A Hugging Face config.json (and modelopt's hf_quant_config.json) -> ModelSpec.

The files are untrusted: every figure is checked, nothing of them is executed, and what cannot be modelled is
refused by a sentence that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advisor.catalog.attention_config import grouped_mixer, mixers, trait
from advisor.catalog.config_fields import MAX_CONTEXT, MAX_LAYERS, Fields
from advisor.catalog.families import FAMILIES, Family, find_family
from advisor.catalog.ffn_config import blocks, dense_block, has_experts, moe_block
from advisor.catalog.numerics_config import numerics
from advisor.catalog.quantisation import Formats, formats
from advisor.catalog.recurrent_config import mamba2_mixer
from advisor.catalog.vision_config import tower_params
from advisor.specs.model import DenseFfn, Ffn, GroupedAttention, LatentAttention, Layer, Mixer, ModelSpec, MoeFfn

MAX_HIDDEN = 10**6
MAX_PARAMS = 10**14
_TEXT_PARTS = ("text_config", "llm_config", "language_config")
_CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "model_max_length",
    "seq_length",
    "max_seq_len",
    "max_sequence_length",
    "n_ctx",
)
_HYBRID = "layers with a recurrent state are modelled in weights, state and bytes; their time carries a wider error"
_SPARSE = "sparse attention: the indexer's selection is modelled as its published number of tokens"


def model_from_config(
    config: Mapping[str, Any], quant: Mapping[str, Any] | None = None, *, name: str, source: str, repo: str = ""
) -> ModelSpec:
    """The architecture, formats and numerics that `config` (and `quant`, hf_quant_config.json) describe.

    The text part of vision-language models is taken; other towers are counted in `other_params`. Next-n (MTP) layers are left
    out. Raises ProfileError with one sentence when a figure is missing, of a wrong type or size, or not modelled.
    """
    fields = Fields(config, name)
    return read_fields(
        fields, Fields(quant, f"{name}, hf_quant_config.json") if quant is not None else None, source=source, repo=repo
    )


def read_fields(fields: Fields, quant: Fields | None, *, source: str, repo: str) -> ModelSpec:
    """`model_from_config` over readers that remember what was asked (a data sheet refuses unread figures)."""
    text, family_name, family, architecture = _language_part(fields)
    hidden = text.integer("hidden_size", "n_embd", "d_model", high=MAX_HIDDEN)
    vocab = text.integer("vocab_size", "padded_vocab_size")
    context = _context(text, family_name)
    layers, mixed = _layers(text, family_name, family, hidden)
    found = formats(fields, text, quant, key=family_name, layers=layers, hidden=hidden)
    default_tied = text.flag("tie_word_embeddings", default=fields.flag("tie_word_embeddings", default=family.tied))
    towers, tower_caveat = tower_params(fields, hidden)
    spec = ModelSpec(
        name=fields.origin,
        source=source,
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        max_context_tokens=context,
        formats=found.weights,
        kv_format=found.kv,
        tied_embeddings=default_tied,
        head_bias=trait(text, family.head_bias),
        position_params=_position_params(text, family_name, family, hidden, context),
        other_params=towers + _other_params(text, family_name, hidden, len(layers)),
        numerics=numerics(text, family_name, family, mixed, hidden=hidden, context=context),
        repo=repo,
        quantisation=found.label,
        architecture=architecture or family_name,
        caveats=_caveats(family, mixed, found, tower_caveat),
    )
    if spec.params > MAX_PARAMS:
        raise fields.refuse(f"the figures add up to {spec.params:.3g} parameters, which is not a model anybody has published.")
    return spec


def _language_part(fields: Fields) -> tuple[Fields, str, Family, str]:
    """The mapping that describes the text model, its family, and the class the checkpoint names."""
    names = fields.texts("architectures")
    architecture = names[0] if names else ""
    outer = fields.text("model_type")
    thinker = fields.child("thinker_config")
    text = next((x for x in ((thinker or fields).child(key) for key in _TEXT_PARTS) if x is not None), fields)
    inner = text.text("model_type", default=outer)
    found = find_family(inner, architecture) or find_family(outer, architecture)
    if found is None:
        what = inner or outer or architecture
        if not what:
            raise fields.refuse("model_type is missing, so this is not a model config.")
        raise fields.refuse(
            f"the architecture {what[:60]!r} is not modelled ({len(FAMILIES)} are); if it is built like one that is, "
            "say so as model_type in a copy of its config.json."
        )
    return text, found[0], found[1], architecture


def _context(text: Fields, key: str) -> int:
    """The longest context the model was made for, in tokens; state-space models and ALiBi have no hard limit."""
    if key in ("mamba", "mamba2", "falcon_mamba"):
        return text.integer(*_CONTEXT, default=2**20, high=MAX_CONTEXT)
    if key in ("bloom", "falcon"):
        return text.integer(*_CONTEXT, default=2048, high=MAX_CONTEXT)
    return text.integer(*_CONTEXT, high=MAX_CONTEXT)


def _layers(text: Fields, key: str, family: Family, hidden: int) -> tuple[tuple[Layer, ...], list[Mixer]]:
    """The decoder layers in order, and their mixers. Equal layers share one object."""
    if family.mixer == "pattern":
        return _pattern_layers(text, key, family, hidden)
    count = text.integer("num_hidden_layers", "n_layer", "n_layers", "num_layers", high=MAX_LAYERS)
    mixed = mixers(text, key, family, hidden=hidden, layers=count)
    if family.mixer in ("mamba", "mamba2") and key != "granitemoehybrid":
        feeds: Sequence[Ffn | None] = [None] * count
    else:
        feeds = blocks(text, key, family, hidden=hidden, layers=count)
    parallel = trait(text, family.parallel)
    norms = _norms(text, key, family, parallel=parallel)
    made: dict[tuple[int, int], Layer] = {}
    layers = []
    for mixer, feed in zip(mixed, feeds, strict=True):
        pair = (id(mixer), id(feed))
        if pair not in made:
            made[pair] = _layer(text, key, family, hidden, mixer, feed, norms=norms, parallel=parallel)
        layers.append(made[pair])
    return tuple(layers), mixed


def _layer(
    text: Fields, key: str, family: Family, hidden: int, mixer: Mixer, feed: Ffn | None, *, norms: int, parallel: bool
) -> Layer:
    extra, beside = 0, None
    if key == "gemma4_text":
        width = text.integer("hidden_size_per_layer_input", default=0, low=0)
        extra = (2 * width + 1) * hidden if width else 0
        if isinstance(feed, MoeFfn):  # a dense block beside the experts, three more norms, and a scaled router
            beside = dense_block(text, key, family, hidden)
            norms, extra = norms + 3, extra + hidden + feed.experts
        elif isinstance(feed, DenseFfn) and text.flag("use_double_wide_mlp") and getattr(mixer, "shares_kv", False):
            feed = DenseFfn(width=2 * feed.width, gated=feed.gated, activation=feed.activation)
    if key == "deepseek_v4":  # manifold-constrained hyper-connections: two mixing maps a layer over all residual streams
        streams = text.integer("hc_mult", default=4, high=64)
        extra = 2 * ((2 + streams) * streams * (streams * hidden + 1) + 3)
    if key == "kimi_linear" and isinstance(feed, MoeFfn) and text.flag("latent_moe_use_norm"):
        extra = feed.expert_hidden
    return Layer(
        mixer=mixer,
        ffn=feed,
        parallel_ffn=beside,
        norms=norms,
        norm_bias=family.norm_bias,
        parallel_residual=parallel,
        extra_params=extra,
    )


def _norms(text: Fields, key: str, family: Family, *, parallel: bool) -> int:
    """Norms of a layer. Falcon has one for both branches in its first design and one each in its second."""
    if key != "falcon":
        return 1 if key == "stablelm" and parallel else family.norms
    if text.flag("new_decoder_architecture"):
        return text.integer("num_ln_in_parallel_attn", default=2, high=2)
    return 1 if parallel else 2


def _pattern_layers(text: Fields, key: str, family: Family, hidden: int) -> tuple[tuple[Layer, ...], list[Mixer]]:
    """Nemotron-H: one block a layer (M Mamba-2, * attention, - feed-forward, E experts), one norm each."""
    letters = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "mlp": "-", "moe": "E"}
    names = text.texts("layers_block_type")
    pattern = "".join(letters.get(x, "?") for x in names) or text.text("hybrid_override_pattern")
    wrong = set(pattern) - set(letters.values())
    if wrong or not pattern:
        raise text.refuse("hybrid_override_pattern must say M, *, - or E for each layer.")
    if len(pattern) > MAX_LAYERS:
        raise text.refuse(f"hybrid_override_pattern describes more than {MAX_LAYERS} layers.")
    if text.has("num_hidden_layers"):
        count = text.integer("num_hidden_layers", high=MAX_LAYERS)
        pattern = "".join(text.per_layer("hybrid_override_pattern", count, list(pattern)))
    made: dict[str, Layer] = {}
    for letter in pattern:
        if letter in made:
            continue
        mixer: Mixer | None = None
        feed: Ffn | None = None
        if letter in "M*":
            mixer = _pattern_mixer(text, key, family, hidden, linear=letter == "M")
        elif letter == "E":
            if not has_experts(text, family):
                raise text.refuse("the pattern has expert layers, but the config names no experts.")
            feed = moe_block(text, key, family)
        else:
            feed = dense_block(text, key, family, hidden)
        made[letter] = Layer(mixer=mixer, ffn=feed, norms=1)
    layers = tuple(made[x] for x in pattern)
    return layers, [x.mixer for x in layers if x.mixer is not None]


def _pattern_mixer(text: Fields, key: str, family: Family, hidden: int, *, linear: bool) -> Mixer:
    """One mixer of a patterned model; its attention has no positions."""
    return mamba2_mixer(text, hidden) if linear else replace(grouped_mixer(text, key, family, "full", hidden), rope="none")


def _position_params(text: Fields, key: str, family: Family, hidden: int, context: int) -> int:
    """Learned positions, and the norm some models put behind the embedding."""
    learned = (context + (2 if key == "opt" else 0)) * hidden if family.position == "learned" else 0
    return learned + (2 * hidden if family.embedding_norm else 0)


def _other_params(text: Fields, key: str, hidden: int, layers: int) -> int:
    """Tables that a decode step reads one row of, and the last mixing map of hyper-connections."""
    if key == "gemma4_text" and text.integer("hidden_size_per_layer_input", default=0, low=0):
        width = text.integer("hidden_size_per_layer_input") * layers
        return text.integer("vocab_size_per_layer_input", default=262144) * width + hidden * width + width // layers
    if key == "deepseek_v4":
        streams = text.integer("hc_mult", default=4, high=64)
        return streams * streams * hidden + streams + 1
    return 0


def _caveats(family: Family, mixed: Sequence[Mixer], found: Formats, tower: str) -> tuple[str, ...]:
    said = [*family.caveats, *found.caveats]
    if any(not isinstance(m, GroupedAttention | LatentAttention) for m in mixed):
        said.append(_HYBRID)
    if any(m.index_heads for m in mixed if isinstance(m, GroupedAttention | LatentAttention)):
        said.append(_SPARSE)
    if tower:
        said.append(tower)
    return tuple(said)
