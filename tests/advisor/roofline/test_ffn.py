"""Feed-forward blocks: sizes by hand."""

from __future__ import annotations

import pytest

from advisor.roofline.ffn import dense_work, moe_work
from advisor.roofline.work import Experts, Gemm, Stream
from advisor.specs.model import DenseFfn, MoeFfn
from advisor.specs.plan import Plan


def test_a_gated_block_has_gate_and_up_in_one_product_and_a_third_of_the_width_a_rank() -> None:
    up, activation, down = dense_work(DenseFfn(width=300, gated=True), 100, "fp8", 3, 7, count=2)
    assert isinstance(up, Gemm)
    assert (up.m, up.n, up.k, up.weights, up.count) == (7, 200, 100, "fp8", 2)
    assert isinstance(activation, Stream)
    assert activation.bytes_moved == 2 * 7 * 100 * 3  # gate and up in, their product out, two bytes a value
    assert isinstance(down, Gemm)
    assert (down.m, down.n, down.k) == (7, 100, 100)


def test_a_plain_block_has_one_matrix_up() -> None:
    up, activation, _ = dense_work(DenseFfn(width=300, gated=False), 100, "bf16", 1, 7)
    assert isinstance(up, Gemm)
    assert up.n == 300
    assert isinstance(activation, Stream)
    assert activation.bytes_moved == 2 * 7 * 300 * 2


def test_experts_meet_the_tokens_of_all_attention_groups_and_are_split_by_ep() -> None:
    """8 experts of width 64 on adp=2, ep=2, tp=2: four a rank, each split over the two ranks that share it."""
    ffn = MoeFfn(experts=8, top_k=2, expert_width=64, shared_width=32, gated=True)
    works = moe_work(ffn, 100, "fp8", "bf16", Plan(tp=2, adp=2, ep=2), 5)
    assert [work.name for work in works] == ["router", "route", "gate_up", "activation", "down", "experts"]
    router, route, shared_up, *_, experts = works
    assert isinstance(router, Gemm)
    assert (router.m, router.n, router.k, router.weights) == (5, 8, 100, "bf16")
    assert isinstance(route, Stream)
    assert route.bytes_moved == 2 * 2 * 5 * 108
    assert isinstance(shared_up, Gemm)
    assert (shared_up.n, shared_up.weights) == (32, "bf16")  # 2 x 32 over tp = 2
    assert isinstance(experts, Experts)
    assert (experts.tokens, experts.local_experts, experts.width, experts.weights) == (10, 4, 32, "fp8")
    assert experts.flop == pytest.approx(2 * (10 * 2 / 2) * 3 * 100 * 32)
