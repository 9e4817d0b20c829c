"""Configs from strangers: whatever is in them, the answer is a model of finite positive size or one sentence."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advisor.catalog.huggingface import model_from_config
from advisor.errors import ProfileError
from advisor.specs.formats import FORMATS
from advisor.specs.model import ModelSpec
from advisor.untrusted import parse_json, parse_yaml

PROFILES = Path(__file__).parents[3] / "profiles" / "models"


def sheet_config(name: str) -> dict[str, Any]:
    return parse_yaml((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"), origin=name)["config"]  # type: ignore[no-any-return]


# One of each shape of config: flat, nested, hybrid, latent, compressed, patterned, old names, two ropes.
SEEDS = (
    "llama-3.1-70b",
    "mixtral-8x7b",
    "deepseek-v3",
    "deepseek-v4-pro",
    "qwen3.5-35b-a3b",
    "gemma-4-26b-a4b",
    "gemma-3-27b",
    "gpt-oss-20b",
    "kimi-k3",
    "nemotron-h-56b",
    "mimo-v2-flash",
    "minimax-m3",
    "falcon-180b",
    "jamba-v0.1",
    "dbrx",
    "phi-3.5-moe",
    "llama-4-maverick",
    "qwen2-vl-7b",
    "glm-5.2",
    "step-3.7-flash",
)
QUANTS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head", "gate"]},
    {"quant_method": "gptq", "bits": 4, "group_size": 128},
    {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": ["lm_head", "*self_attn*"],
    },
    {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
        "ignore": ["lm_head", r"re:.*mlp\.(gate|up)_proj.*"],
    },
)
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 10**9, 10**30, 2**5000, -(10**400), 0.5, -1.5, 1e308, math.inf,
    -math.inf, math.nan, "", "4096", "auto", "x" * 3000, "re:(a+)+$", [], [0], [1, 2, 3], [None], ["full_attention"],
    [-1] * 200, [1e308] * 3, {}, {"a": 1}, {"rope_type": "yarn"}, {"factor": 0}, [[[[]]]],
)  # fmt: skip


def paths_of(value: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [prefix] if prefix else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths_of(inner, (*prefix, key))
    return found


def mutate(config: dict[str, Any], path: tuple[str, ...], value: Any, *, drop: bool) -> None:
    at: Any = config
    for key in path[:-1]:
        at = at.get(key) if isinstance(at, dict) else None
    if isinstance(at, dict):
        if drop:
            at.pop(path[-1], None)
        else:
            at[path[-1]] = value


def assert_sane(spec: ModelSpec) -> None:
    assert 0 < spec.params < 1e15
    assert 0 < spec.active_params <= spec.params
    assert spec.other_params >= 0
    assert spec.layers
    assert spec.max_context_tokens > 0
    assert all(layer.params(spec.hidden_size) >= 0 for layer in set(spec.layers))
    assert all(m.cache_values_per_token() >= 0 for m in spec.attention_layers)
    assert all(math.isfinite(x) for x in (spec.numerics.norm_eps, spec.numerics.embedding_scale, spec.numerics.logit_scale))
    assert all(math.isfinite(rope.theta) and rope.theta > 0 for _, rope in spec.numerics.ropes)
    parts = (spec.formats.attention, spec.formats.ffn, spec.formats.experts, spec.formats.embedding, spec.formats.head)
    assert {*parts, spec.kv_format} <= set(FORMATS)
    hash(spec)


CONFIGS = {name: sheet_config(name) for name in SEEDS}
# Every field any seed has, so that a mutation also adds a field where it does not belong.
EXTRA = sorted(
    {path[-1] for config in CONFIGS.values() for path in paths_of(config)} | {"sliding_window", "layer_types", "n_group"}
)


@settings(max_examples=2500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_configs_load_or_are_refused_in_one_sentence(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(SEEDS))
    config = copy.deepcopy(CONFIGS[name])
    quant = copy.deepcopy(data.draw(st.sampled_from(QUANTS)))
    if quant is not None:
        config["quantization_config"] = quant
    known = paths_of(config)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(known) | st.sampled_from(EXTRA).map(lambda key: (key,)))
        mutate(config, path, copy.deepcopy(data.draw(st.sampled_from(HOSTILE))), drop=data.draw(st.booleans()))
    beside = {"quantization": quant} if quant is not None and data.draw(st.booleans()) else None
    try:
        spec = model_from_config(config, beside, name=name, source="test")
    except ProfileError as error:
        assert_one_sentence(str(error))
    else:
        assert_sane(spec)


def assert_one_sentence(text: str) -> None:
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text) < 600


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(config=st.dictionaries(st.sampled_from([*EXTRA, "model_type", "quantization_config"]), json_values, max_size=12))
def test_invented_configs_are_refused_in_one_sentence(config: dict[str, Any]) -> None:
    try:
        assert_sane(model_from_config(config, None, name="invented", source="test"))
    except ProfileError as error:
        assert_one_sentence(str(error))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": None}, "hidden_size or n_embd or d_model is missing"),
        ({"hidden_size": -4096}, "hidden_size must be between 1 and 1000000, not -4096"),
        ({"hidden_size": 10**7}, "hidden_size must be between 1 and 1000000"),
        ({"hidden_size": "4096"}, "hidden_size must be a whole number, not '4096'"),
        ({"hidden_size": 4096.5}, "hidden_size must be a whole number"),
        ({"hidden_size": True}, "hidden_size must be a whole number, not True"),
        ({"hidden_size": math.nan}, "hidden_size must be a whole number, not nan"),
        ({"num_hidden_layers": 2001}, "num_hidden_layers must be between 1 and 2000"),
        ({"vocab_size": math.inf}, "vocab_size must be a whole number, not inf"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps must be between 0 and 1, not nan"),
        ({"num_key_value_heads": 7}, "64 query heads do not share 7 key-value heads evenly"),
        ({"rope_scaling": [1]}, "rope_scaling must be a mapping"),
        ({"layer_types": ["full_attention"]}, "layer_types describes 1 layers, but the model has 80"),
        ({"layer_types": ["moon_attention"] * 80}, "layers of type 'moon_attention' are not modelled"),
        ({"model_type": "rwkv7"}, None),
        ({"model_type": "rwkv7", "architectures": ["RwkvForCausalLM"]}, "the architecture 'rwkv7' is not modelled"),
        ({"model_type": None, "architectures": []}, "model_type is missing, so this is not a model config"),
        ({"quantization_config": {"quant_method": "hqq"}}, "quantisation method 'hqq' is not modelled"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "config_groups is missing"),
        ({"torch_dtype": "float64"}, "weights stored as 'float64' are not modelled"),
        ({"intermediate_size": 10**7, "hidden_size": 10**6, "num_attention_heads": 64, "num_hidden_layers": 2000}, "add up to"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], said: str | None) -> None:
    config = {**CONFIGS["llama-3.1-70b"], **change}
    if said is None:  # the class of the checkpoint says what the private model_type does not
        assert model_from_config(config, None, name="m", source="test").params == 70_553_706_496
        return
    with pytest.raises(ProfileError, match=said.replace("(", r"\(")) as caught:
        model_from_config(config, None, name="m", source="test")
    assert_one_sentence(str(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 500_000 + "]" * 500_000,
        '{"a":' * 60 + "1" + "}" * 60,
        "not json",
        "[1, 2]",
        "",
        '{"hidden_size": 1e999}',
        "{'a': 1}",
        "\x00\x01",
    ],
    ids=["1MB-nested", "deep", "words", "list", "empty", "inf", "python", "binary"],
)
def test_texts_that_are_no_config(text: str) -> None:
    with pytest.raises(ProfileError) as caught:
        model_from_config(parse_json(text, origin="c.json"), None, name="m", source="test")
    assert_one_sentence(str(caught.value))


def test_a_list_of_a_million_excluded_names_is_read_quickly() -> None:
    config = {**CONFIGS["llama-3.1-70b"], "quantization_config": {"quant_method": "fp8", "ignored_layers": ["a.b"] * 100_000}}
    assert model_from_config(json.loads(json.dumps(config)), None, name="m", source="test").formats.ffn == "fp8"
