"""Checkpoints that name what they quantise in their own ways: the bytes are right, or it is said that they are not."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.catalog.huggingface import model_from_config
from advisor.errors import ProfileError
from advisor.specs.model import ModelSpec

LAYERS = 4
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": LAYERS,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "torch_dtype": "bfloat16", "max_position_embeddings": 40960,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip


def mixed(*names: str) -> dict[str, Any]:
    """modelopt's hf_quant_config.json that lists each quantised module."""
    named = {f"model.layers.{i}.{name}": {"quant_algo": "NVFP4"} for i in range(LAYERS) for name in names}
    return {"quantization": {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": None, "quantized_layers": named}}


def model(quant: dict[str, Any] | None = None, **config: Any) -> ModelSpec:
    return model_from_config({**CONFIG, **config}, quant, name="m", source="test")


@pytest.mark.parametrize("name", ["mlp.experts", "mlp.experts.0.up_proj", "mlp.experts.gate_up_proj", "mlp"])
def test_experts_are_quantised_under_whatever_name_they_are_listed(name: str) -> None:
    """The NVFP4 experts of a MIXED_PRECISION checkpoint, named as a whole, one by one, or fused."""
    assert model(mixed(name)).formats.experts == "nvfp4"
    assert model(mixed(name)).formats.attention == "bf16"


def test_a_quantised_checkpoint_whose_largest_tensors_are_not_says_so() -> None:
    found = model(mixed("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"))
    assert found.formats.experts == "bf16"
    assert any("its largest tensors (experts) are not among those it names" in caveat for caveat in found.caveats)


def test_a_quantised_checkpoint_of_which_nothing_is_known_is_refused() -> None:
    with pytest.raises(ProfileError, match="names no module that this program knows"):
        model(mixed("something.of.its.own"))
    with pytest.raises(ProfileError, match="names no module that this program knows"):
        model(quantization_config={"quant_method": "fp8", "modules_to_not_convert": ["model.layers.*"]})
