"""The feed-forward blocks a config describes, layer by layer: dense, mixture of experts, or both."""

from __future__ import annotations

from advisor.catalog.attention_config import trait
from advisor.catalog.config_fields import Fields
from advisor.catalog.families import Family, Routing
from advisor.specs.model import DenseFfn, Ffn, MoeFfn

MAX_EXPERTS = 100_000
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_k", "moe_top_k")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "swiglu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "swigluoai": "swigluoai",
}


def activation(fields: Fields, family: Family) -> str:
    """The activation under one name; as given where it is not a known one."""
    if family.activation == "swigluoai":  # gpt-oss writes silu and clamps
        return family.activation
    keys = ("hidden_activation", "hidden_act", "mlp_hidden_act", "activation_function", "activation")
    name = fields.text(*keys, default=family.activation)
    return _ACTIVATIONS.get(name.lower(), name)


def knows_activation(name: str) -> bool:
    """Whether `activation` returned one of the common names."""
    return name in _ACTIVATIONS.values()


def dense_block(fields: Fields, key: str, family: Family, hidden: int) -> DenseFfn:
    """The block of a layer without experts."""
    names: tuple[str, ...] = (
        "dense_intermediate_size",
        "intermediate_size_mlp",
        "intermediate_size",
        "ffn_hidden_size",
        "n_inner",
        "ffn_dim",
    )
    if key == "granitemoehybrid":
        names = ("shared_intermediate_size", *names)
    default = fields.integer("expansion_ratio", default=4) * hidden
    plain = key in ("gpt2", "gpt_bigcode", "gptj", "falcon", "bloom", "mpt")  # these fall back to four times the hidden size
    width = fields.integer(*names, default=default) if plain else fields.integer(*names)
    if key == "qwen":  # Qwen 1 counts gate and up together
        width //= 2
    return DenseFfn(width=width, gated=family.gated, activation=activation(fields, family), bias=trait(fields, family.ffn_bias))


def blocks(fields: Fields, key: str, family: Family, *, hidden: int, layers: int) -> list[Ffn]:
    """One block a layer, in order. Equal layers share one object."""
    if not has_experts(fields, family):
        return [dense_block(fields, key, family, hidden)] * layers
    moe = moe_block(fields, key, family)
    sparse = sparse_layers(fields, layers)
    if all(sparse):
        return [moe] * layers
    dense = dense_block(fields, key, family, hidden)
    return [moe if x else dense for x in sparse]


def has_experts(fields: Fields, family: Family) -> bool:
    """Whether the model routes at all: the family can, and the config names experts."""
    if family.routing is None or (fields.has("enable_moe_block") and not fields.flag("enable_moe_block")):
        return False
    nested = fields.child("ffn_config")
    return fields.integer(*_EXPERTS, default=0, low=0, high=MAX_EXPERTS) > 1 or (
        nested is not None and nested.has("moe_num_experts")
    )


def sparse_layers(fields: Fields, layers: int) -> list[bool]:
    """Which layers have experts, by whichever of the published ways the config says it."""
    if fields.has("mlp_layer_types"):
        return [x != "dense" for x in fields.per_layer("mlp_layer_types", layers, fields.texts("mlp_layer_types"))]
    if fields.is_list("moe_layer_freq"):
        return [bool(x) for x in fields.per_layer("moe_layer_freq", layers, fields.integers("moe_layer_freq", high=1))]
    if fields.is_list("moe_layers"):
        chosen = set(fields.integers("moe_layers"))
        return [i in chosen for i in range(layers)]
    if fields.has("moe_layers_enum"):
        numbers = fields.text("moe_layers_enum").split(",")
        return [str(i) in {x.strip() for x in numbers} for i in range(layers)]
    if fields.has("interleave_moe_layer_step"):
        step = fields.integer("interleave_moe_layer_step")
        return [(i + 1) % step == 0 for i in range(layers)]
    if fields.has("expert_layer_period"):
        period, offset = fields.integer("expert_layer_period"), fields.integer("expert_layer_offset", default=0, low=0)
        return [i % period == offset for i in range(layers)]
    if fields.has("moe_layer_start_index"):  # ERNIE 4.5
        first = fields.integer("moe_layer_start_index", low=0)
        last = fields.integer("moe_layer_end_index", default=-1, low=-1)
        every = fields.integer("moe_layer_interval", default=1)
        last = layers - 1 if last < 0 else last
        return [first <= i <= last and (i + 1) % every == 0 for i in range(layers)]
    dense = set(fields.integers("mlp_only_layers"))
    first = fields.integer("first_k_dense_replace", default=0, low=0)
    step = fields.integer("decoder_sparse_step", default=1)
    every = fields.integer("moe_layer_freq", default=1)
    return [i >= first and i not in dense and (i + 1) % step == 0 and i % every == 0 for i in range(layers)]


def moe_block(fields: Fields, key: str, family: Family) -> MoeFfn:
    """The block of a layer with experts."""
    routing = family.routing or Routing()
    nested = fields.child("ffn_config") or fields
    experts = nested.integer(*_EXPERTS, high=MAX_EXPERTS)
    top_k = nested.integer(*_TOP_K, high=MAX_EXPERTS)
    if top_k > experts:
        raise fields.refuse(f"{top_k} experts a token are more than the {experts} there are.")
    width = nested.integer("moe_intermediate_size", "ffn_hidden_size", "intermediate_size")
    scoring = fields.text("scoring_func", "score_function", "moe_router_activation_func", default=routing.scoring)
    grouped = fields.text("topk_method", default="noaux_tc") != "greedy"
    groups = fields.integer("n_group", "num_expert_group", default=1, high=MAX_EXPERTS) if grouped else 1
    kept = fields.integer("topk_group", default=1, high=MAX_EXPERTS) if grouped else 1
    if experts % groups or kept > groups:
        raise fields.refuse(f"{experts} experts in {groups} groups of which {kept} are kept do not divide.")
    corrected = routing.correction or fields.text("topk_method") == "noaux_tc" or fields.flag("use_routing_bias")
    return MoeFfn(
        experts=experts,
        top_k=top_k,
        expert_width=width,
        shared_width=_shared_width(fields, key, width),
        gated=family.gated,
        activation=activation(fields, family),
        expert_bias=routing.expert_bias,
        router_bias=routing.router_bias,
        correction_bias=corrected or fields.flag("use_moe_router_bias"),
        shared_gate=routing.shared_gate,
        expert_hidden=fields.integer("moe_latent_size", "routed_expert_hidden_size", default=0, low=0),
        scoring="softmax" if scoring == "softmax" else "sigmoid",
        normalise=fields.flag("norm_topk_prob", "moe_renormalize", default=routing.normalise),
        routed_scale=fields.number("routed_scaling_factor", "moe_router_scaling_factor", default=routing.scale),
        groups=groups,
        groups_kept=kept,
    )


def _shared_width(fields: Fields, key: str, width: int) -> int:
    """Width of what every token uses beside its experts: given as a width, else as a number of experts."""
    if key == "llama4_text":
        return width
    named = (
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "share_expert_dim",
        "shared_intermediate_size",
    )
    if fields.has(*named):
        return fields.integer(*named, low=0)
    return fields.integer(*_SHARED, default=0, low=0, high=MAX_EXPERTS) * width
