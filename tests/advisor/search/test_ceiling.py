"""The batch ceiling goes with the load, because the launch line sets it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import advisor
from advisor.api.question import question
from advisor.roofline.memory import default_settings, rank_memory
from advisor.search.ceiling import MOST, with_ceiling
from advisor.specs.plan import Plan, Settings


def settings_of(plan: Plan) -> Settings:
    assert plan.settings is not None
    return plan.settings


def test_a_small_gpu_is_not_held_at_the_engines_default() -> None:
    asked = question(model="mistral-7b", gpu="a100-80g-sxm", preset="batch", input_tokens=512, output_tokens=256)
    assert default_settings(asked.problem, Plan()).max_sequences == 256
    plan = with_ceiling(asked.problem, Plan())
    memory = rank_memory(asked.problem, plan)
    held = memory.kv_tokens / asked.problem.workload.context_tokens
    assert 256 < settings_of(plan).max_sequences <= MOST
    assert settings_of(plan).max_sequences == pytest.approx(held, rel=0.1)
    found = advisor.recommend("mistral-7b", gpu="a100-80g-sxm", preset="batch", input_tokens=512, output_tokens=256).choices[0]
    assert found.sequences > 256


def test_a_ceiling_above_what_the_cache_holds_is_lowered_and_leaves_it_more() -> None:
    problem = question(model="70b", gpu="h100", gpus=8).problem
    plan = Plan(tp=2, dp=4)
    before = rank_memory(problem, replace(plan, settings=default_settings(problem, plan))).kv_tokens
    assert rank_memory(problem, with_ceiling(problem, plan)).kv_tokens > 2 * before


def test_a_stated_load_sets_the_ceiling_of_its_share() -> None:
    problem = question(model="8b", gpu="h100", gpus=4, users=100).problem
    assert settings_of(with_ceiling(problem, Plan(dp=4))).max_sequences == 32  # 25 users a replica, in steps of 8
    assert settings_of(with_ceiling(problem, Plan(tp=4))).max_sequences == 104
    many = question(model="70b", gpu="h100", gpus=8, users=1000).problem
    plan = with_ceiling(many, Plan(pp=2, dp=4))  # logits of 250 sequences leave no room for even one; the cache holds fewer
    assert rank_memory(many, plan).shortfall_bytes <= 0


def test_sglang_takes_the_memory_that_activations_do_not_need() -> None:
    found = advisor.recommend("qwen2.5-14b", gpu="rtx3090", gpus=2, engine="sglang", users=8)
    assert found.choices
    assert found.choices[0].plan.tp == 2
    tight = question(model="8b", gpu="rtx3090", engine="sglang", users=1, input_tokens=38_000, output_tokens=512)
    plan = with_ceiling(tight.problem, Plan())
    assert settings_of(plan).memory_fraction > default_settings(tight.problem, Plan()).memory_fraction
    assert rank_memory(tight.problem, plan).shortfall_bytes <= 0


def test_more_users_than_memory_has_graphs_for_leave_room_for_the_cache() -> None:
    """20,000 users on one replica of 12 GPUs: logits and graphs of so large a batch need more than the weights leave."""
    asked = question(model="deepseek-r1", gpu="h100-80g-sxm", gpus=8, nodes=12, users=20_000)
    plan = with_ceiling(asked.problem, Plan(pp=12))
    assert rank_memory(asked.problem, plan).shortfall_bytes == 0
    assert settings_of(plan).max_sequences < MOST


def test_the_longest_request_that_is_asked_for_goes_before_a_large_batch() -> None:
    advice = advisor.recommend("qwen2.5-7b", gpu="rtx4090", gpus=2, context=32_768)
    assert advice.choices
    assert all(settings_of(p.plan).max_context_tokens == 32_768 for p in advice.choices)
    assert all(p.kv_tokens / p.plan.dp >= 32_768 for p in advice.choices)
