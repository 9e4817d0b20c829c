"""Which plans are looked at, and why the others cannot run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.engines import load_engine
from advisor.roofline.memory import rank_memory
from advisor.search.legal import block_refusal, expert_degrees, refusal
from advisor.search.space import SMALL, legal_plans, replica_counts
from advisor.specs.cluster import Cluster, Device
from advisor.specs.model import DenseFfn, LatentAttention, Layer, ModelSpec, WeightFormats
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.workload import Mode, Workload

Box = Callable[..., Cluster]


def ask(
    model: ModelSpec, cluster: Cluster, *, engine: str = "vllm", mode: Mode = "capacity", users: int = 0, tokens: int = 1024
) -> Problem:
    workload = Workload(input_tokens=tokens, output_tokens=512, mode=mode, users=users)
    return Problem(model=model, cluster=cluster, workload=workload, engine=load_engine(engine))


def labels(problem: Problem) -> set[str]:
    return {plan.label for plan in legal_plans(problem).plans}


def test_every_degree_that_the_heads_allow_on_8_gpus(llama_8b: ModelSpec, box: Box) -> None:
    plans = legal_plans(ask(llama_8b, box(8))).plans
    expected = {(tp, pp, dp) for tp in (1, 2, 4, 8) for pp in range(1, 9) for dp in range(1, 9) if tp * pp * dp <= 8}
    assert {(p.tp, p.pp, p.dp) for p in plans} == expected


@pytest.mark.parametrize(("gpus", "tensor"), [(3, {1, 2}), (6, {1, 2, 4}), (7, {1, 2, 4})])
def test_odd_numbers_of_gpus(llama_8b: ModelSpec, box: Box, gpus: int, tensor: set[int]) -> None:
    space = legal_plans(ask(llama_8b, box(gpus)))
    assert {p.tp for p in space.plans} == tensor
    assert {p.pp for p in space.plans} == set(range(1, gpus + 1))
    assert any("32 query heads do not divide by 3; use 1, 2, 4, 8, 16 or 32" in r.reason for r in space.rejected)


def test_a_model_with_three_heads_a_group_splits_three_ways(llama_8b: ModelSpec, box: Box) -> None:
    mixer = replace(llama_8b.layers[0].mixer, heads=24, kv_heads=6)  # type: ignore[arg-type]
    model = replace(llama_8b, layers=(Layer(mixer=mixer, ffn=DenseFfn(width=12288)),) * 32)
    assert {p.tp for p in legal_plans(ask(model, box(6))).plans} == {1, 2, 3, 6}
    assert refusal(ask(model, box(8)), Plan(tp=4)) == (
        "tp=4 cannot split llama-3.1-8b: 6 key-value heads neither divide by 4 nor divide it; use 1, 2, 3, 6, 12 or 24"
    )


def test_a_plan_that_misses_memory_says_by_how_much(llama_70b: ModelSpec, box: Box) -> None:
    space = legal_plans(ask(llama_70b, box(8)))
    single = next(r for r in space.rejected if r.plan == Plan())
    assert single.short_bytes > 50 * 2**30
    assert single.reason.endswith("of 80 GiB")
    assert single.reason.startswith("needs 1")
    assert all(rank_memory(ask(llama_70b, box(8)), p).shortfall_bytes <= 0 for p in space.plans)


def test_experts_are_all_or_nothing_in_vllm_and_any_divisor_elsewhere(mixtral: ModelSpec) -> None:
    assert expert_degrees(load_engine("vllm"), mixtral, tp=4, adp=1) == [1, 4]
    assert expert_degrees(load_engine("sglang"), mixtral, tp=4, adp=1) == [1, 2, 4]
    assert expert_degrees(load_engine("trtllm"), mixtral, tp=6, adp=1) == [1, 2]


def test_attention_dp_is_for_latent_attention_and_experts(llama_8b: ModelSpec, mixtral: ModelSpec, box: Box) -> None:
    assert all(p.adp == 1 for p in legal_plans(ask(llama_8b, box(8))).plans)
    assert any(p.adp > 1 for p in legal_plans(ask(mixtral, box(8))).plans)
    assert "use dp=2" in refusal(ask(llama_8b, box(8)), Plan(adp=2))
    assert "is dense" in refusal(ask(llama_8b, box(8)), Plan(tp=2, ep=2))


def test_scale_blocks_stay_whole(mixtral: ModelSpec, box: Box) -> None:
    # vllm issue 54178: experts of width 1536 in blocks of 128 do not split 8 ways (192), but expert parallelism keeps them whole.
    ffn = replace(mixtral.layers[0].ffn, expert_width=1536)  # type: ignore[arg-type]
    layer = replace(mixtral.layers[0], ffn=ffn)
    model = replace(mixtral, layers=(layer,) * 32, formats=WeightFormats(experts="fp8-block"))
    problem = ask(model, box(8))
    assert "1536 / 8 = 192 cuts fp8-block blocks of 128" in block_refusal(problem, Plan(tp=8))
    assert block_refusal(problem, Plan(tp=4)) == ""
    assert block_refusal(problem, Plan(tp=8, ep=8)) == ""
    space = legal_plans(problem)
    assert Plan(tp=8) in [r.plan for r in space.rejected]
    assert Plan(tp=8, ep=8) in [replace(plan, settings=None) for plan in space.plans]


def test_tensor_parallelism_leaves_the_node_where_the_network_is_stated(llama_70b: ModelSpec, box: Box) -> None:
    assert {p.tp for p in legal_plans(ask(llama_70b, box(8, nodes=4))).plans if p.tp > 8} == {16, 32}
    assert {p.tp for p in legal_plans(ask(llama_70b, box(1, nodes=4))).plans} == {1, 2, 4}  # one GPU a node


def test_a_plan_that_cannot_be_started_is_rejected_with_the_reason(llama_8b: ModelSpec, box: Box) -> None:
    problem = ask(llama_8b, box(4))
    space = legal_plans(problem, lambda plan: "no command starts stages" if plan.pp > 1 else "")
    assert {plan.pp for plan in space.plans} == {1}
    assert {r.reason for r in space.rejected if r.plan.pp > 1} == {"no command starts stages"}
    assert legal_plans(problem, lambda plan: "nothing starts").plans == legal_plans(problem).plans


def test_tensor_parallelism_leaves_the_node_only_where_nothing_else_fits(llama_70b: ModelSpec, box: Box, h100: Device) -> None:
    unstated = box(8, nodes=2)
    unstated = replace(unstated, network=replace(unstated.network, assumed=True))  # type: ignore[type-var]
    assert max(p.tp for p in legal_plans(ask(llama_70b, unstated)).plans) == 8
    # One layer, so that stages cannot help: only a tp across both nodes holds it.
    wide = replace(llama_70b, layers=(replace(llama_70b.layers[0], ffn=DenseFfn(width=28672 * 60)),))
    small = replace(h100, memory_bytes=h100.memory_bytes / 5.5)
    space = legal_plans(ask(wide, box(8, nodes=2, device=small)))
    assert {p.tp for p in space.plans} == {16}


def test_groups_do_not_straddle_nodes(llama_8b: ModelSpec, box: Box) -> None:
    assert "straddle nodes of 6" in refusal(ask(llama_8b, box(6, nodes=2)), Plan(tp=4))
    assert refusal(ask(llama_8b, box(6, nodes=2)), Plan(tp=2, pp=3)) == ""


def test_latent_attention_splits_its_heads(llama_8b: ModelSpec, box: Box) -> None:
    mixer = LatentAttention(heads=128, q_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, v_head_dim=128)
    model = replace(llama_8b, layers=(Layer(mixer=mixer, ffn=DenseFfn(width=18432)),) * 4)
    assert refusal(ask(model, box(8)), Plan(tp=8)) == ""
    assert "128 query heads do not divide by 3" in refusal(ask(model, box(8)), Plan(tp=3))


@given(
    st.integers(1, 4096), st.integers(1, 64), st.sampled_from(["capacity", "closed_loop", "open_loop", "offline", "single_stream"])
)
def test_counts_of_replicas_are_possible_and_few(gpus: int, each: int, mode: Mode) -> None:
    if each > gpus:
        return
    workload = Workload(input_tokens=8, output_tokens=8, mode=mode, users=40, rate_per_s=1.0)
    counts = replica_counts(workload, gpus, each)
    assert counts
    assert counts == sorted(set(counts))
    assert counts[0] >= 1
    assert counts[-1] * each <= gpus
    assert len(counts) <= max(SMALL, 13)
    if mode == "closed_loop":
        assert counts[-1] <= 40


def test_the_number_of_plans_grows_with_replica_shapes_not_with_gpus(llama_70b: ModelSpec, box: Box) -> None:
    small = len(legal_plans(ask(llama_70b, box(8, nodes=128))).plans)
    large = len(legal_plans(ask(llama_70b, box(8, nodes=2048))).plans)
    assert large <= small + 8
    assert large < 200
