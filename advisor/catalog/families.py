"""What each model family does that its config does not say: defaults of fields, biases, norms, positions, routing.

One row a family, read from the published modelling code of the family (Hugging Face transformers 5, or the code beside the
checkpoint for those that live only there). A trait given as text names the config field that decides, with `False` where absent
("!field": `True` where absent).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Trait = bool | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How a family routes tokens to experts, where the config is silent."""

    scoring: Literal["softmax", "sigmoid"] = "softmax"
    normalise: bool = True
    shared_gate: bool = False
    router_bias: bool = False
    correction: bool = False
    expert_bias: bool = False
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Traits of a family. `mixer` is the kind of its token mixing, `windows` the rule that says which layers see a window."""

    mixer: Literal["grouped", "latent", "v4", "delta", "kda", "pattern", "mamba", "mamba2", "jamba", "lightning"] = "grouped"
    windows: Literal["none", "all", "qwen", "alternate", "every", "chunk", "mimo"] = "none"
    window_every: int = 0
    global_nope: bool = False
    tied: bool = False
    qkv_bias: Trait = False
    output_bias: Trait = False
    ffn_bias: Trait = False
    head_bias: Trait = False
    qk_norm: Literal["none", "head", "full"] = "none"
    qk_norm_field: str = ""
    gated_attention: Trait = False
    gated: bool = True
    activation: str = "silu"
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = False
    norm_offset: float = 0.0
    norm_eps: float = 1e-6
    norms: int = 2
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"
    parallel: Trait = False
    position: Literal["rope", "learned", "alibi", "none"] = "rope"
    rope_fraction: float = 1.0
    rope_interleaved: bool = False
    embedding_norm: bool = False
    scaled_embedding: bool = False
    routing: Routing | None = None
    unsupported: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()


_LLAMA = Family(qkv_bias="attention_bias", output_bias="attention_bias", ffn_bias="mlp_bias")
_QWEN2 = Family(qkv_bias=True, windows="qwen")
_QWEN3 = Family(qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="head", windows="qwen")
_QWEN35 = Family(
    mixer="delta",
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    qk_norm="head",
    gated_attention="!attn_output_gate",
    norm_offset=1.0,
    rope_fraction=0.25,
)
_QWEN35_MOE = replace(_QWEN35, routing=Routing(shared_gate=True))
_GEMMA = Family(
    tied=True,
    activation="gelu_tanh",
    norm_offset=1.0,
    scaled_embedding=True,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
)
_GEMMA2 = replace(_GEMMA, norms=4, norm_placement="sandwich", windows="alternate")
_GEMMA3 = replace(_GEMMA2, qk_norm="head", windows="every", window_every=6)
_GEMMA4 = replace(_GEMMA3, norm_offset=0.0, routing=Routing(), unsupported=("Gemma 4 value norms, layer scalars and shared keys",))
_LAYER_NORM = Family(norm="layer", norm_bias=True, norm_eps=1e-5)
_GPT = replace(
    _LAYER_NORM,
    tied=True,
    qkv_bias=True,
    output_bias=True,
    ffn_bias=True,
    gated=False,
    activation="gelu_tanh",
    position="learned",
    unsupported=("learned positions",),
)
_ALIBI = ("ALiBi positions",)
_DEEPSEEK_V2 = Family(mixer="latent", qkv_bias="attention_bias", rope_interleaved=True, routing=Routing(normalise=False))
_DEEPSEEK_V3 = replace(_DEEPSEEK_V2, routing=Routing(scoring="sigmoid", correction=True))
_COHERE = Family(
    norm="layer",
    norms=1,
    parallel=True,
    tied=True,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    rope_interleaved=True,
    norm_eps=1e-5,
)
_GRANITE_MOE = replace(_LLAMA, routing=Routing())
_RECURRENT = ("recurrent layers",)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "yi": _LLAMA,
    "aquila": _LLAMA,
    "llama4_text": replace(
        _LLAMA,
        windows="chunk",
        window_every=4,
        global_nope=True,
        rope_interleaved=True,
        routing=Routing(scoring="sigmoid", normalise=False),
        unsupported=("Llama 4 attention temperature and expert input scaling",),
    ),
    "mistral": Family(windows="all"),
    "ministral": Family(windows="all"),
    "ministral3": Family(windows="all", unsupported=("Ministral 3 attention temperature",)),
    "mixtral": Family(windows="all", norm_eps=1e-5, routing=Routing()),
    "qwen": Family(qkv_bias=True, output_bias="!no_bias", ffn_bias="!no_bias"),
    "qwen2": _QWEN2,
    "qwen2_moe": replace(_QWEN2, routing=Routing(normalise=False, shared_gate=True)),
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_moe": replace(_QWEN3, routing=Routing(normalise=False)),
    "qwen3_vl_text": _QWEN3,
    "qwen3_vl_moe_text": replace(_QWEN3, routing=Routing()),
    "qwen3_next": _QWEN35_MOE,
    "qwen3_5_text": _QWEN35,
    "qwen3_5_moe_text": _QWEN35_MOE,
    "mimo": _QWEN2,
    "mimo_v2_flash": Family(
        qkv_bias="attention_bias",
        windows="mimo",
        norm_eps=1e-5,
        routing=Routing(scoring="sigmoid", correction=True),
        unsupported=("MiMo value scale",),
    ),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma4_text": _GEMMA4,
    "phi": replace(
        _LAYER_NORM,
        qkv_bias=True,
        output_bias=True,
        ffn_bias=True,
        head_bias=True,
        gated=False,
        activation="gelu_tanh",
        norms=1,
        parallel=True,
        rope_fraction=0.5,
    ),
    "phi3": Family(windows="all", norm_eps=1e-5),
    "phi4_multimodal": Family(windows="all", norm_eps=1e-5),
    "phimoe": replace(
        _LAYER_NORM,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        head_bias="lm_head_bias",
        windows="all",
        routing=Routing(),
        unsupported=("PhiMoE sparse mixer routing",),
    ),
    "deepseek": replace(_LLAMA, routing=Routing(normalise=False)),
    "deepseek_v2": _DEEPSEEK_V2,
    "deepseek_v3": _DEEPSEEK_V3,
    "kimi_k2": _DEEPSEEK_V3,
    "deepseek_v32": _DEEPSEEK_V3,
    "glm_moe_dsa": replace(_DEEPSEEK_V3, norm_eps=1e-5),
    "glm4_moe_lite": replace(_DEEPSEEK_V3, norm_eps=1e-5),
    "deepseek_v4": Family(
        mixer="v4",
        rope_interleaved=True,
        routing=Routing(scoring="sigmoid", correction=True, scale=1.5),
        unsupported=("compressed attention", "hyper-connections", "hash routing"),
        caveats=("compressed attention and hyper-connections are modelled in weights and cache; their time carries a wider error",),
    ),
    "kimi_linear": Family(
        mixer="kda",
        norm_eps=1e-5,
        routing=Routing(scoring="sigmoid", correction=True),
        unsupported=_RECURRENT,
    ),
    "glm": Family(qkv_bias="!attention_bias", rope_fraction=0.5, rope_interleaved=True),
    "glm4": Family(
        qkv_bias="!attention_bias", rope_fraction=0.5, rope_interleaved=True, norms=4, norm_placement="sandwich", norm_eps=1e-5
    ),
    "glm4_moe": Family(
        qkv_bias="attention_bias",
        qk_norm="head",
        qk_norm_field="use_qk_norm",
        rope_fraction=0.5,
        norm_eps=1e-5,
        routing=Routing(scoring="sigmoid", correction=True),
    ),
    "chatglm": Family(qkv_bias="add_qkv_bias", rope_fraction=0.5, rope_interleaved=True, norm_eps=1e-5),
    "minimax": Family(
        mixer="lightning",
        routing=Routing(),
        unsupported=(*_RECURRENT, "MiniMax post-norm residuals"),
    ),
    "minimax_m2": Family(qk_norm="full", qk_norm_field="!use_qk_norm", routing=Routing(scoring="sigmoid", correction=True)),
    "minimax_m3": Family(
        qk_norm="head",
        qk_norm_field="!use_qk_norm",
        norm_offset=1.0,
        routing=Routing(scoring="sigmoid", correction=True),
    ),
    "gpt_oss": Family(
        qkv_bias="!attention_bias",
        output_bias="!attention_bias",
        windows="alternate",
        norm_eps=1e-5,
        activation="swigluoai",
        routing=Routing(router_bias=True, expert_bias=True),
    ),
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "opt": replace(_GPT, activation="relu"),
    "bloom": replace(_GPT, position="alibi", embedding_norm=True, unsupported=_ALIBI),
    "mpt": Family(norm="layer", norm_eps=1e-5, tied=True, gated=False, activation="gelu", position="alibi", unsupported=_ALIBI),
    "gptj": replace(
        _GPT,
        tied=False,
        qkv_bias=False,
        output_bias=False,
        head_bias=True,
        norms=1,
        parallel=True,
        position="rope",
        rope_interleaved=True,
        unsupported=(),
    ),
    "gpt_neox": replace(
        _GPT,
        tied=False,
        qkv_bias="!attention_bias",
        output_bias="!attention_bias",
        parallel="!use_parallel_residual",
        activation="gelu",
        position="rope",
        rope_fraction=0.25,
        unsupported=(),
    ),
    "falcon": replace(
        _GPT,
        qkv_bias="bias",
        output_bias="bias",
        ffn_bias="bias",
        parallel="!parallel_attn",
        activation="gelu",
        position="rope",
        unsupported=(),
    ),
    "starcoder2": replace(
        _LAYER_NORM,
        tied=True,
        qkv_bias="!use_bias",
        output_bias="!use_bias",
        ffn_bias="!use_bias",
        gated=False,
        activation="gelu_tanh",
        windows="all",
    ),
    "internlm": Family(qkv_bias="bias", output_bias="bias"),
    "internlm2": Family(qkv_bias="bias", output_bias="bias"),
    "internlm3": Family(qkv_bias="qkv_bias", output_bias="bias", ffn_bias="bias"),
    "baichuan": Family(),
    "cohere": replace(_COHERE, qk_norm="full", qk_norm_field="use_qk_norm"),
    "cohere2": replace(_COHERE, windows="every", window_every=4, global_nope=True),
    "olmo": replace(_LLAMA, norm="layer", norms=0, norm_eps=1e-5, unsupported=("norms without weights",)),
    "olmo2": replace(_LLAMA, qk_norm="full", norm_placement="post", norm_eps=1e-5),
    "olmo3": replace(_LLAMA, qk_norm="full", norm_placement="post", norm_eps=1e-5, windows="every", window_every=4),
    "olmoe": replace(_LLAMA, qk_norm="full", norm_eps=1e-5, routing=Routing(normalise=False)),
    "granite": _LLAMA,
    "granitemoe": _GRANITE_MOE,
    "granitemoeshared": _GRANITE_MOE,
    "granitemoehybrid": replace(_GRANITE_MOE, mixer="mamba2", unsupported=_RECURRENT),
    "smollm3": replace(_LLAMA, tied=True),
    "seed_oss": Family(qkv_bias="attention_bias", output_bias="attention_out_bias", ffn_bias="mlp_bias"),
    "arcee": replace(_LLAMA, gated=False, activation="relu2", norm_eps=1e-5),
    "ernie4_5": Family(
        tied=True, qkv_bias="use_bias", output_bias="use_bias", ffn_bias="use_bias", norm_eps=1e-5, rope_interleaved=True
    ),
    "hunyuan_v1_dense": replace(_LLAMA, qk_norm="head", unsupported=("query norms after the rotation",)),
    "dots1": replace(_LLAMA, qk_norm="head", routing=Routing(scoring="sigmoid", correction=True)),
    "exaone4": Family(qk_norm="head", norm_placement="post", windows="every", window_every=4, global_nope=True, norm_eps=1e-5),
    "stablelm": replace(
        _LAYER_NORM,
        qkv_bias="use_qkv_bias",
        qk_norm="full",
        qk_norm_field="qk_layernorm",
        parallel="use_parallel_residual",
        rope_fraction=0.25,
    ),
    "dbrx": Family(norm="layer", norm_eps=1e-5, routing=Routing()),
    "nemotron": replace(
        _LAYER_NORM,
        norm_offset=1.0,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        ffn_bias="mlp_bias",
        gated=False,
        activation="relu2",
        rope_fraction=0.5,
    ),
    "nemotron_h": Family(
        mixer="pattern",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        ffn_bias="mlp_bias",
        gated=False,
        activation="relu2",
        position="none",
        norm_eps=1e-5,
        routing=Routing(scoring="sigmoid", correction=True),
        unsupported=_RECURRENT,
    ),
    "step3p5": Family(
        qk_norm="head",
        gated_attention=False,
        norm_offset=1.0,
        norm_eps=1e-5,
        routing=Routing(scoring="sigmoid", correction=True),
        unsupported=("Step-3.7 head gates",),
    ),
    "jamba": Family(mixer="jamba", routing=Routing(normalise=False), position="none", unsupported=_RECURRENT),
    "mamba": Family(mixer="mamba", tied=True, norms=1, norm_eps=1e-5, position="none", unsupported=_RECURRENT),
    "falcon_mamba": Family(mixer="mamba", tied=True, norms=1, norm_eps=1e-5, position="none", unsupported=_RECURRENT),
    "mamba2": Family(mixer="mamba2", norms=1, norm_eps=1e-5, position="none", unsupported=_RECURRENT),
}

# Other names under which configs give the same text architecture.
SAME_AS = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "minimax_m3_vl": "minimax_m3",
    "minimax_m3_vl_text": "minimax_m3",
    "minimax_text_01": "minimax",
    "minimax_m1": "minimax",
    "step3p7": "step3p5",
    "step3p7_text": "step3p5",
    "refinedweb": "falcon",
    "refinedwebmodel": "falcon",
    "gemma4_unified_text": "gemma4_text",
    "gemma4_unified": "gemma4_text",
}

# The class beside a checkpoint whose `model_type` is a private name.
ARCHITECTURES = {
    "DeepseekV4ForCausalLM": "deepseek_v4",
    "DeepseekV32ForCausalLM": "deepseek_v32",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
}


def find_family(model_type: str, architecture: str) -> tuple[str, Family] | None:
    """The family of a config by its `model_type`, else by its class; None where neither is known."""
    key = model_type.lower()
    key = SAME_AS.get(key, key)
    if key not in FAMILIES:
        key = ARCHITECTURES.get(architecture, "")
    return (key, FAMILIES[key]) if key in FAMILIES else None
