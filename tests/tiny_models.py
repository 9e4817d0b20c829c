"""Tiny configs of the families the runner computes, as Hugging Face transformers takes them."""

from __future__ import annotations

from typing import Any

_BASE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 151,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_MLA = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
}
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}


def _config(model_type: str, **values: Any) -> dict[str, Any]:
    return {"model_type": model_type, **_BASE, **values}


CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _config("llama"),
    "llama tied, biased": _config("llama", tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    "llama linear": _config("llama", rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
    "llama dynamic": _config(
        "llama", max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    ),
    "llama 3": _config(
        "llama",
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "llama yarn": _config("llama", rope_parameters=_YARN),
    "qwen2": _config("qwen2"),
    "qwen2 window": _config("qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen3": _config("qwen3", head_dim=16),
    "qwen2 moe": _config("qwen2_moe", **_MOE, shared_expert_intermediate_size=36),
    "qwen3 moe": _config("qwen3_moe", **_MOE, head_dim=8, norm_topk_prob=True, mlp_only_layers=[1]),
    "mistral": _config("mistral", sliding_window=7),
    "mixtral": _config("mixtral", num_local_experts=6, num_experts_per_tok=2),
    "gemma": _config("gemma", head_dim=16, hidden_activation="gelu_pytorch_tanh"),
    "gemma 2": _config(
        "gemma2", head_dim=16, sliding_window=7, query_pre_attn_scalar=24, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "gemma 3": _config("gemma3_text", head_dim=16, sliding_window=7, sliding_window_pattern=2, query_pre_attn_scalar=24),
    "deepseek v2": _config(
        "deepseek_v2", **_MLA, q_lora_rank=None, norm_topk_prob=False, n_shared_experts=2, topk_method="group_limited_greedy"
    ),
    "deepseek v3": _config(
        "deepseek_v3",
        **_MLA,
        q_lora_rank=24,
        norm_topk_prob=True,
        n_shared_experts=1,
        rope_parameters={**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    ),
    "gpt-oss": _config(
        "gpt_oss",
        head_dim=16,
        sliding_window=7,
        num_local_experts=6,
        num_experts_per_tok=2,
        rope_parameters={**_YARN, "truncate": False},
    ),
    "phi 3": _config(
        "phi3",
        original_max_position_embeddings=16,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 2.0, 3.0, 4.0],
        },
    ),
    "glm 4": _config("glm4", head_dim=16),
    "olmo 2": _config("olmo2"),
    "cohere": _config("cohere"),
    "cohere 2": _config("cohere2", sliding_window=7, layer_types=["sliding_attention", "sliding_attention", "full_attention"]),
    "granite": _config("granite", residual_multiplier=0.5, embedding_multiplier=3.0, logits_scaling=2.0, attention_multiplier=0.2),
    "phi": _config("phi", num_key_value_heads=6),
    "starcoder 2": _config("starcoder2", sliding_window=7),
    "nemotron": _config("nemotron", head_dim=8),
}
