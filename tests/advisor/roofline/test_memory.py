"""Memory of a rank: the worked example of docs/physics.md, and what engines print when they start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.engines import load_engine
from advisor.catalog.machines import load_cluster
from advisor.catalog.models import list_models, load_model, requantise
from advisor.roofline.memory import (
    activation_bytes,
    context_shortfall,
    default_settings,
    largest_context,
    layer_weight_bytes,
    rank_memory,
    sequence_cache_bytes,
    stage_weight_bytes,
    static_fraction,
)
from advisor.specs.cluster import Cluster
from advisor.specs.formats import FORMATS
from advisor.specs.model import WeightFormats
from advisor.specs.plan import Plan, Settings
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

GIB = 2**30


def problem(model: str, *, dtype: str | None = None, gpu: str = "h100-80g-sxm", tokens: int = 2048) -> Problem:
    spec = load_model(model, online=False).spec
    return Problem(
        model=requantise(spec, dtype=dtype, kv_dtype=None) if dtype else spec,
        cluster=load_cluster(gpu=gpu, gpus=8),
        workload=Workload(input_tokens=tokens - 1, output_tokens=1, mode="closed_loop", users=1),
        engine=load_engine("vllm"),
    )


def test_the_worked_example_of_the_physics() -> None:
    asked = problem("llama-3.1-70b")
    plan = Plan(tp=8)
    assert layer_weight_bytes(asked.model.layers[0], asked.model, plan) == 213_942_272
    assert stage_weight_bytes(asked.model, plan, asked.engine, 0) == 17_640_718_336
    assert pytest.approx(5.27e-3, rel=1e-3) == 17_640_718_336 / 3.35e12
    assert sequence_cache_bytes(asked.model, plan, asked.engine, 0, 1, in_flight=1) == 40_960


def test_sglang_keeps_memory_for_the_tokens_of_all_attention_groups_together() -> None:
    asked = replace(problem("deepseek-r1", gpu="h200-141g-sxm"), engine=load_engine("sglang"))
    settings = default_settings(asked, Plan(adp=8, ep=8))
    assert settings.token_budget == 1_024  # 8,192 of all eight: what the worked example of the physics says
    assert settings.memory_fraction == 0.884
    assert default_settings(asked, Plan(tp=8)).token_budget == 8_192
    # Four times the tokens need 36 GiB more: 0.5 + 48 + 1.25 + 1 + 1.5 = 52.25 of 139.72 GiB.
    assert static_fraction(asked, Plan(adp=8, ep=8), 32_768) == 0.626


def on(cluster: Cluster, total_gib: float) -> Cluster:
    device = replace(cluster.device, memory_bytes=total_gib * GIB)
    return replace(cluster, node=replace(cluster.node, devices=(device,) * len(cluster.node.devices)))


@pytest.mark.parametrize(
    ("model", "dtype", "tp", "kv_gib"),
    [
        # vLLM 0.11.0 on an H100 of 79.18 GiB at utilisation 0.9, max_model_len 16000: what it printed as KV cache a GPU.
        ("qwen3-0.6b", None, 1, 64.45),
        ("qwen3-32b", None, 2, 34.49),
        ("llama-3.1-70b", "fp8", 2, 32.0),
        ("gpt-oss-20b", None, 1, 50.28),
    ],
)
def test_kv_cache_that_vllm_prints_at_start(model: str, dtype: str | None, tp: int, kv_gib: float) -> None:
    asked = problem(model, dtype=dtype, tokens=16000)
    asked = replace(asked, cluster=on(asked.cluster, 79.18))
    settings = Settings(max_sequences=1024, token_budget=8192, max_context_tokens=16000, memory_fraction=0.9)
    memory = rank_memory(asked, Plan(tp=tp, settings=settings))
    assert memory.kv_bytes / GIB == pytest.approx(kv_gib, rel=0.05)


@given(tp=st.sampled_from([1, 2, 4, 8]), pp=st.sampled_from([1, 2, 4]))
def test_a_rank_never_holds_more_than_its_device(tp: int, pp: int) -> None:
    asked = problem("llama-3.1-8b")
    memory = rank_memory(asked, Plan(tp=tp, pp=pp))
    held = memory.weights_bytes + memory.activations_bytes + memory.other_bytes + memory.kv_bytes
    assert held <= memory.device_bytes * (1 + 1e-12)
    assert memory.shortfall_bytes == 0


def test_twice_the_tokens_are_twice_the_bytes() -> None:
    asked = problem("llama-3.1-8b")
    one = sequence_cache_bytes(asked.model, Plan(), asked.engine, 0, 1000, in_flight=8)
    assert sequence_cache_bytes(asked.model, Plan(), asked.engine, 0, 2000, in_flight=8) == 2 * one


def test_capacity_stops_growing_beyond_the_key_value_heads() -> None:
    asked = problem("llama-3.1-70b")
    each = [sequence_cache_bytes(asked.model, Plan(tp=tp), asked.engine, 0, 1, in_flight=1) for tp in (4, 8, 16)]
    assert each[0] == 2 * each[1]
    assert each[1] == each[2]


def test_latent_attention_is_whole_on_every_rank() -> None:
    asked = problem("deepseek-v3", gpu="h200")
    each = [sequence_cache_bytes(asked.model, Plan(tp=tp), asked.engine, 0, 1, in_flight=1) for tp in (1, 8)]
    assert each[0] == each[1]
    # DeepSeek-V3 report: 512 + 64 values a layer, 61 layers, 2 bytes.
    assert each[0] == 61 * 576 * 2


def test_windows_bound_the_cache_of_long_contexts() -> None:
    asked = problem("gpt-oss-120b")
    long = sequence_cache_bytes(asked.model, Plan(), asked.engine, 0, 100_000, in_flight=8)
    # Half of the 36 layers see 128 tokens: little more than half the bytes of a model that sees everything.
    everything = 36 * 100_000 * 2 * 8 * 64 * 2
    assert 0.5 * everything < long < 0.51 * everything


def test_the_field_s_rules_of_thumb_on_80_gb_a100s() -> None:
    # The smallest tp that holds the weights and a cache for eight requests of 4k: 7B and 13B 1, 34B 2, 70B 4 (2 quantised to
    # 8 bits), 180B 8, 405B more than 8. In 4 bits 70B leaves 30 GiB of cache on one card, so 1 is enough for this load.
    def smallest(model: str, dtype: str | None = None) -> int:
        asked = problem(model, dtype=dtype, gpu="a100-80g-sxm", tokens=4096)
        return next(tp for tp in (1, 2, 4, 8, 16) if rank_memory(asked, Plan(tp=tp)).kv_tokens >= 8 * 4096)

    assert smallest("llama-2-7b") == 1
    assert smallest("llama-2-13b") == 1
    assert smallest("llama-3.1-70b") == 4
    assert smallest("yi-34b") == 2
    assert smallest("llama-3.1-70b", "int8") == 2
    assert smallest("llama-3.1-70b", "int4") == 1
    assert smallest("falcon-180b") == 8
    short = rank_memory(problem("llama-3.1-405b", gpu="a100-80g-sxm"), Plan(tp=8))
    assert short.shortfall_bytes > 20 * GIB


def test_memory_taken_by_others_counts() -> None:
    asked = problem("llama-3.1-8b")
    node = replace(asked.cluster.node, free_bytes=(30.0 * GIB,) * 8)
    less = rank_memory(replace(asked, cluster=replace(asked.cluster, node=node)), Plan())
    assert less.kv_bytes < rank_memory(asked, Plan()).kv_bytes - 30 * GIB


def test_compressed_latents_keep_an_entry_for_so_many_tokens_and_a_window_whole() -> None:
    asked = problem("deepseek-v4-flash-fp8", gpu="h200")
    tokens = 100_000
    held = sequence_cache_bytes(asked.model, Plan(tp=8), asked.engine, 0, tokens, in_flight=8)
    # 43 layers (config.json, compress_ratios): 2 with the window only, 21 with an entry of 512 values and an index key of 128
    # for 4 tokens, 20 with an entry for 128. Every layer keeps 128 - 1 + 8 + 16 whole tokens.
    entries = 21 * tokens * (512 + 128) // 4 + 20 * tokens * 512 // 128
    assert held == (entries + 43 * (127 + 8 + 16) * 512) * FORMATS[asked.model.kv_format].bytes_per_value


def test_one_rank_holds_the_model_for_every_model_of_the_catalogue() -> None:
    asked, wrong = problem("llama-3.1-8b"), []
    for summary in list_models():
        model = replace(load_model(summary.name, online=False).spec, formats=WeightFormats())
        held = stage_weight_bytes(model, Plan(), asked.engine, 0) / 2
        if held != pytest.approx(model.params, rel=0.005):
            wrong.append(f"{summary.name}: {held / model.params:.4f}")
    assert not wrong


def test_the_longest_request_is_a_question_of_its_own() -> None:
    short = problem("llama-3.1-8b", tokens=1536)
    memory = rank_memory(short, Plan())
    assert largest_context(short, Plan(), replace(memory, kv_tokens=400_000)) == 65_536  # a quarter, as a power of two
    assert largest_context(short, Plan(), replace(memory, kv_tokens=4_000_000)) == 131_072  # the model's own limit
    assert largest_context(short, Plan(), replace(memory, kv_tokens=2_000)) == 1536  # never below the request itself
    asked = replace(short, workload=replace(short.workload, max_context_tokens=100_000))
    assert largest_context(asked, Plan(), replace(memory, kv_tokens=400_000)) == 100_000
    assert context_shortfall(asked, Plan(), replace(memory, kv_tokens=100_000)) == ""
    assert "one request may have 100,000" in context_shortfall(asked, Plan(), replace(memory, kv_tokens=99_999))


def test_activations_by_hand() -> None:
    """Llama-3.1-8B at tp=2, 8,192 tokens, 256 sequences, one copy of the logits and two of the hidden rows."""
    asked = problem("llama-3.1-8b")
    rule = replace(asked.engine.memory, logit_copies=1.0, hidden_copies=2.0)
    asked = replace(asked, engine=replace(asked.engine, memory=rule))
    settings = Settings(max_sequences=256, token_budget=8192, max_context_tokens=2048, memory_fraction=0.9)
    logits, inner = 256 * 128_256 * 4, 3 * 14_336 / 2
    assert activation_bytes(asked, Plan(tp=2), settings) == logits + 2 * 8192 * (inner + 2 * 4096)
    few = replace(settings, token_budget=128)  # a step of 128 tokens has logits of no more
    assert activation_bytes(asked, Plan(tp=2), few) == 128 * 128_256 * 4 + 2 * 128 * (inner + 2 * 4096)


def test_activations_of_experts_by_hand() -> None:
    """Mixtral at tp=4, ep=2: two experts a token, each split over two ranks, half of them on this one."""
    asked = problem("mixtral-8x7b")
    rule = replace(asked.engine.memory, logit_copies=0.0, hidden_copies=0.0)
    asked = replace(asked, engine=replace(asked.engine, memory=rule))
    settings = Settings(max_sequences=256, token_budget=1000, max_context_tokens=2048, memory_fraction=0.9)
    assert activation_bytes(asked, Plan(tp=4, ep=2), settings) == 2 * 1000 * 2 * (2 * 14_336 / 2 + 4096) / 2


@pytest.mark.parametrize("of", ["total", "free", "static"])
def test_what_each_engine_s_rule_leaves_for_the_cache(of: str) -> None:
    asked = problem("llama-3.1-8b")
    rule = replace(
        asked.engine.memory, of=of, fraction=0.9, context_bytes=1.0 * GIB, graph_bytes=2.0 * GIB, collective_bytes=0.5 * GIB
    )  # type: ignore[arg-type]
    asked = replace(asked, engine=replace(asked.engine, memory=rule))
    settings = Settings(max_sequences=64, token_budget=2048, max_context_tokens=2048, memory_fraction=0.9)
    plan = Plan(tp=2, settings=settings)
    found = rank_memory(asked, plan)
    total, weights = asked.cluster.device.memory_bytes, stage_weight_bytes(asked.model, plan, asked.engine, 0)
    rest = activation_bytes(asked, plan, settings) + 3.5 * GIB
    left = {
        "total": total * 0.9 - weights - rest, "free": (total - weights - rest) * 0.9, "static": total * 0.9 - weights,
    }[of]  # fmt: skip
    if of == "static":
        left = min(left, total - rest - weights)
    assert found.kv_bytes == pytest.approx(left)
    assert found.reserved_bytes == pytest.approx(total - weights - rest - left, abs=1)
    each = found.kv_bytes_per_token
    assert found.kv_tokens == pytest.approx(left / each, abs=asked.engine.page_tokens)
    assert found.shortfall_bytes == 0.0


def test_equal_stages_are_looked_at_once_and_the_fullest_binds() -> None:
    """The first stage of a 70B carries the embedding, the last the head: the cache is what they leave."""
    asked = problem("llama-3.1-70b")
    whole = min(
        rank_memory(replace(asked, cluster=replace(asked.cluster, node=node)), Plan(pp=8)).kv_tokens
        for node in (asked.cluster.node, replace(asked.cluster.node, free_bytes=(1e12,) * 8))
    )
    assert rank_memory(asked, Plan(pp=8)).kv_tokens == whole
