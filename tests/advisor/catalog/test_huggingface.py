"""Published configs -> models: sizes by hand, attention kinds, formats, numerics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from advisor.catalog.huggingface import model_from_config
from advisor.specs.model import DenseFfn, GroupedAttention, LatentAttention, ModelSpec, MoeFfn, RecurrentMixer
from advisor.untrusted import parse_yaml

ROOT = Path(__file__).parents[3]
PROFILES = ROOT / "profiles" / "models"
PUBLISHED = ROOT.parent / "shared" / "model_configs"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="../shared/model_configs is not beside this checkout")


def sheet(name: str, **change: Any) -> ModelSpec:
    config = parse_yaml((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"), origin=name)["config"]
    return model_from_config({**config, **change}, None, name=name, source="test")


def published(stem: str) -> ModelSpec:
    beside = PUBLISHED / f"{stem}_hf_quant_config.json"
    quant = json.loads(beside.read_text()) if beside.is_file() else None
    config = json.loads((PUBLISHED / f"{stem}_config.json").read_text())
    return model_from_config(config, quant, name=stem, source="test")


@needs_published
def test_all_published_configs_load() -> None:
    files = sorted(PUBLISHED.glob("*.json"))
    stems = sorted({x.name.replace("_hf_quant_config.json", "").replace("_config.json", "") for x in files})
    assert len(files) == 92
    for stem in stems:
        spec = published(stem)
        assert spec.params > 5e8
        assert spec.max_context_tokens >= 8192


def test_llama_70b_by_hand() -> None:
    # D 8192, 80 layers, H 64, K 8, head 128, F 28672, V 128256 (its config.json).
    attention = 8192 * 128 * (64 + 8 + 8) + 64 * 128 * 8192
    ffn = 3 * 8192 * 28672
    by_hand = 80 * (attention + ffn + 2 * 8192) + 2 * 128256 * 8192 + 8192
    spec = sheet("llama-3.1-70b")
    assert spec.params == by_hand == 70_553_706_496
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, GroupedAttention)
    assert mixer.cache_values_per_token() == 2 * 8 * 128
    assert spec.numerics.norm_eps == 1e-5
    rope = dict(spec.numerics.ropes)["default"]
    assert (rope.kind, rope.factor, rope.original_context, rope.theta) == ("llama3", 8.0, 8192, 500000.0)
    assert spec.numerics.unsupported == ()


def test_deepseek_v3_has_latent_attention_and_dense_first_layers() -> None:
    spec = sheet("deepseek-v3")
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, LatentAttention)
    assert mixer.cache_values_per_token() == 512 + 64  # DeepSeek-V2 paper, section 2.1: the latent and one rotary key
    assert [type(x.ffn) for x in spec.layers[:4]] == [DenseFfn, DenseFfn, DenseFfn, MoeFfn]
    ffn = spec.layers[3].ffn
    assert isinstance(ffn, MoeFfn)
    assert (ffn.experts, ffn.top_k, ffn.groups, ffn.groups_kept, ffn.scoring, ffn.correction_bias) == (
        256,
        8,
        8,
        4,
        "sigmoid",
        True,
    )
    assert spec.params == pytest.approx(671e9, rel=0.001)  # DeepSeek-V3 report, abstract: 671B, 37B activated
    assert spec.active_params == pytest.approx(37e9, rel=0.02)
    # softmax scale: 192^-0.5 times mscale squared, mscale = 0.1 ln 40 + 1 (modelling code of the checkpoint)
    assert spec.numerics.attention_scale == pytest.approx(192**-0.5 * (0.1 * math.log(40) + 1) ** 2)
    assert dict(spec.numerics.ropes)["default"].attention_factor == 1.0
    assert dict(spec.numerics.ropes)["default"].interleaved


def test_gpt_oss_alternates_windows_with_sinks() -> None:
    spec = sheet("gpt-oss-120b")
    windows = [m.window_tokens for m in spec.attention_layers if isinstance(m, GroupedAttention)]
    assert windows == [128, None] * 18
    mixer, ffn = spec.layers[0].mixer, spec.layers[0].ffn
    assert isinstance(mixer, GroupedAttention)
    assert mixer.sinks
    assert mixer.qkv_bias
    assert mixer.output_bias
    assert isinstance(ffn, MoeFfn)
    assert (ffn.activation, ffn.router_bias, ffn.expert_bias) == ("swigluoai", True, True)
    rope = dict(spec.numerics.ropes)["default"]
    assert not rope.truncate
    assert rope.attention_factor == pytest.approx(0.1 * math.log(32) + 1)
    assert spec.numerics.unsupported == ()
    assert spec.params == pytest.approx(116.8e9, rel=0.001)  # gpt-oss model card: 116.8B total, 5.1B active
    assert spec.active_params == pytest.approx(5.1e9, rel=0.01)


def test_gemma_3_has_two_ropes_and_five_windows_to_one_global_layer() -> None:
    spec = sheet("gemma-3-27b")
    kinds = [m.rope for m in spec.attention_layers]
    assert kinds[:7] == ["sliding"] * 5 + ["full", "sliding"]
    ropes = dict(spec.numerics.ropes)
    assert (ropes["full"].theta, ropes["full"].kind, ropes["full"].factor) == (1e6, "linear", 8.0)
    assert (ropes["sliding"].theta, ropes["sliding"].kind) == (1e4, "default")
    n = spec.numerics
    assert (n.norm_offset, n.norm_placement, n.embedding_scale) == (1.0, "sandwich", pytest.approx(math.sqrt(5376)))
    assert n.attention_scale == pytest.approx(168**-0.5)
    assert spec.tied_embeddings


def test_gemma_2_caps_its_logits() -> None:
    n = sheet("gemma-2-9b").numerics
    assert (n.attention_softcap, n.logit_softcap) == (50.0, 30.0)


def test_gemma_4_global_layers_share_keys_and_values() -> None:
    spec = sheet("gemma-4-26b-a4b")
    local, whole = spec.layers[0].mixer, spec.layers[5].mixer
    assert isinstance(local, GroupedAttention)
    assert isinstance(whole, GroupedAttention)
    assert (local.kv_heads, local.head_dim, local.window_tokens, local.k_is_v) == (8, 256, 1024, False)
    assert (whole.kv_heads, whole.head_dim, whole.window_tokens, whole.k_is_v) == (2, 512, None, True)
    assert isinstance(spec.layers[0].parallel_ffn, DenseFfn)


def test_llama_4_chunks_three_layers_of_four_and_alternates_experts() -> None:
    spec = sheet("llama-4-maverick")
    chunks = [(m.window_tokens, m.chunked, m.rope) for m in spec.attention_layers if isinstance(m, GroupedAttention)]
    assert chunks[:4] == [(8192, True, "default")] * 3 + [(None, False, "none")]
    assert [isinstance(x.ffn, MoeFfn) for x in spec.layers[:4]] == [False, True, False, True]


def test_mistral_v01_slides_over_all_layers_and_v03_over_none() -> None:
    assert {m.window_tokens for m in sheet("mistral-7b").attention_layers if isinstance(m, GroupedAttention)} == {4096}
    assert {m.window_tokens for m in sheet("mistral-7b-v0.3").attention_layers if isinstance(m, GroupedAttention)} == {None}


def test_qwen_35_is_three_parts_recurrent() -> None:
    spec = sheet("qwen3.5-27b")
    kinds = [isinstance(x.mixer, RecurrentMixer) for x in spec.layers[:4]]
    assert kinds == [True, True, True, False]
    assert len(spec.attention_layers) == 16
    assert any("recurrent" in caveat for caveat in spec.caveats)
    assert 4e8 < spec.other_params < 6e8  # its vision tower


def test_deepseek_v4_keeps_one_entry_for_4_or_128_tokens() -> None:
    spec = sheet("deepseek-v4-pro")
    kept = [m.cache_values_per_token() for m in spec.attention_layers]
    assert kept[:4] == [512 // 128, 512 // 128, (512 + 128) // 4, 512 // 128]


def test_glm_52_shares_the_indexer_in_three_layers_of_four() -> None:
    mixers = [m for m in sheet("glm-5.2").attention_layers if isinstance(m, LatentAttention)]
    assert [m.index_shared for m in mixers[:8]] == [False, False, False, True, True, True, False, True]
    assert sum(not m.index_shared for m in mixers) == 21


@pytest.mark.parametrize(
    ("name", "billions"),
    [  # as the model cards and papers state them
        ("llama-2-7b", 6.74),
        ("falcon-7b", 6.92),
        ("gpt-j-6b", 6.05),
        ("gpt-neox-20b", 20.55),
        ("bloom-176b", 176.25),
        ("opt-66b", 65.72),
        ("mixtral-8x22b", 140.6),
        ("qwen2.5-72b", 72.7),
        ("deepseek-v2", 235.7),
        ("gemma-2-27b", 27.23),
        ("jamba-v0.1", 51.6),
        ("dbrx", 131.6),
        ("mamba-2.8b", 2.77),
        ("command-r-plus-104b", 103.8),
        ("nemotron-4-340b", 341.0),
        ("starcoder2-15b", 15.96),
        ("internlm2-20b", 19.86),
        ("minimax-text-01", 456.1),
        ("kimi-linear-48b-a3b", 49.1),
    ],
)
def test_sizes_agree_with_the_model_cards(name: str, billions: float) -> None:
    assert sheet(name).params == pytest.approx(billions * 1e9, rel=0.003)


FP8_BLOCK = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}


@pytest.mark.parametrize(
    ("quant", "ffn", "head"),
    [
        (FP8_BLOCK, "fp8-block", "bf16"),
        ({"quant_method": "fp8"}, "fp8", "bf16"),
        ({"quant_method": "fbgemm_fp8"}, "fp8", "bf16"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4", "bf16"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8-wo", "bf16"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "int4-g32", "bf16"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4", "bf16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}, "nvfp4", "bf16"),
        ({"quant_algo": "W4A16_AWQ", "exclude_modules": ["lm_head"]}, "int4", "bf16"),
        (
            {
                "quant_method": "compressed-tensors",
                "ignore": ["lm_head"],
                "config_groups": {
                    "g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int"}, "input_activations": {"num_bits": 8}}
                },
            },
            "int8",
            "bf16",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "ignore": ["re:.*self_attn.*"],
                "config_groups": {"g": {"targets": ["Linear", "lm_head"], "weights": {"num_bits": 4, "type": "int"}}},
            },
            "int4",
            "bf16",
        ),
    ],
)
def test_quantisation_configs(quant: dict[str, Any], ffn: str, head: str) -> None:
    spec = sheet("llama-3.1-70b", quantization_config=quant)
    assert (spec.formats.ffn, spec.formats.head, spec.formats.embedding) == (ffn, head, "bf16")
    assert spec.kv_format == "bf16"


def test_an_excluded_attention_stays_in_16_bits() -> None:
    quant = {
        "quantization": {
            "quant_algo": "NVFP4",
            "kv_cache_quant_algo": "FP8",
            "exclude_modules": ["lm_head", "model.layers.*.self_attn*"],
        }
    }
    config = parse_yaml((PROFILES / "mixtral-8x7b.yaml").read_text(), origin="x")["config"]
    spec = model_from_config(config, quant, name="m", source="test")
    f = spec.formats
    assert (f.attention, f.experts, f.head, spec.kv_format) == ("bf16", "nvfp4", "bf16", "fp8")


def test_float16_checkpoints_keep_their_cache_in_float16() -> None:
    spec = sheet("llama-2-7b", torch_dtype="float16")
    assert (spec.formats.attention, spec.kv_format) == ("fp16", "fp16")


@needs_published
@pytest.mark.parametrize(
    ("stem", "attention", "ffn", "experts", "head", "kv"),
    [
        ("moonshotai--Kimi-K2.5", "bf16", "bf16", "int4-g32", "bf16", "bf16"),
        ("openai--gpt-oss-120b", "bf16", "mxfp4", "mxfp4", "bf16", "bf16"),
        ("nvidia--Gemma-4-26B-A4B-NVFP4", "bf16", "bf16", "nvfp4", "bf16", "fp8"),
        ("nvidia--Qwen3.6-27B-NVFP4", "fp8", "nvfp4-wo", "nvfp4-wo", "nvfp4-wo", "fp8"),
        ("deepseek-ai--DeepSeek-V4-Pro", "fp8-block", "fp8-block", "mxfp4", "bf16", "bf16"),
        ("nvidia--Llama-3.1-70B-Instruct-FP8", "fp8", "fp8", "fp8", "bf16", "fp8"),
        ("nvidia--GLM-5.2-NVFP4", "bf16", "bf16", "nvfp4", "bf16", "fp8"),
    ],
)
def test_published_checkpoints_by_part(stem: str, attention: str, ffn: str, experts: str, head: str, kv: str) -> None:
    spec = published(stem)
    f = spec.formats
    assert (f.attention, f.ffn, f.experts, f.head, spec.kv_format) == (attention, ffn, experts, head, kv)
