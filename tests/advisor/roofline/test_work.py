"""Sizes of ops: counted by hand for small cases, and the laws of shards, windows and repeats."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.roofline.work import (
    Collective,
    DecodeAttention,
    Experts,
    Gemm,
    LatentDecode,
    LatentPrefill,
    PrefillAttention,
    Stream,
    drawn_share,
    ranks_reached,
)


def pairs_by_hand(new: int, past: int, window: int) -> int:
    """Query-key pairs that a causal mask leaves, one by one."""
    return sum(min(past + i + 1, window) if window else past + i + 1 for i in range(new))


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 70))
def test_causal_pairs_are_those_of_the_mask(new: int, past: int, window: int) -> None:
    work = PrefillAttention(name="a", batch=1, new=new, past=past, heads=1, kv_heads=1, head_dim=1, value_dim=1, window=window)
    assert work.pairs == pytest.approx(pairs_by_hand(new, past, window))


def test_gemm_by_hand() -> None:
    work = Gemm(name="g", m=2, n=3, k=5, weights="bf16")
    assert work.flop == 60
    assert work.hbm_bytes == 2 * 15 + 2 * (6 + 10)
    assert Gemm(name="g", m=0, n=3, k=5, weights="nvfp4").hbm_bytes == 15 * 4.5 / 8


def test_experts_hit() -> None:
    work = Experts(name="e", tokens=1, top_k=2, experts=8, local_experts=8, hidden=4, width=4, matrices=3, weights="bf16")
    assert work.hit == pytest.approx(2)  # one token draws two different experts
    assert replace(work, tokens=1e6).hit == pytest.approx(8)
    assert replace(work, local_experts=4).routed_rows == 1
    assert work.flop == 2 * 2 * 3 * 16


def test_uneven_draws_hit_fewer_experts() -> None:
    even, uneven, in_turn = ([256 * drawn_share(256, 8, float(t), skew) for t in (1, 16, 64, 4096)] for skew in (0.0, 0.6, None))
    assert even == pytest.approx([256 * (1 - (1 - 1 / 32) ** t) for t in (1, 16, 64, 4096)])
    assert uneven == pytest.approx([8, 89, 195, 256], abs=0.6)
    assert in_turn == [8, 128, 256, 256]


@given(st.integers(1, 64), st.integers(1, 64), st.floats(0, 3), st.floats(0.01, 1e5))
def test_a_draw_hits_no_more_than_there_are_and_one_token_just_its_own(
    experts: int, top_k: int, skew: float, tokens: float
) -> None:
    top_k = min(top_k, experts)
    assert experts * drawn_share(experts, top_k, 1.0, skew) == pytest.approx(top_k)
    assert 0 <= drawn_share(experts, top_k, tokens, skew) <= 1 + 1e-9
    assert drawn_share(experts, top_k, tokens, skew) <= drawn_share(experts, top_k, tokens + 1, skew) + 1e-12


@given(st.integers(1, 500), st.sampled_from([1, 2, 4, 8]))
def test_experts_of_all_ranks_add_up(tokens: int, ep: int) -> None:
    whole = Experts(name="e", tokens=tokens, top_k=4, experts=64, local_experts=64, hidden=32, width=16, matrices=3, weights="bf16")
    part = replace(whole, local_experts=64 / ep)
    assert part.flop * ep == pytest.approx(whole.flop)
    assert part.hit * ep == pytest.approx(whole.hit)
    assert part.hbm_bytes * ep == pytest.approx(whole.hbm_bytes)


@given(st.integers(1, 500), st.sampled_from([1, 2, 4, 8]))
def test_shards_of_a_gemm_add_up(m: int, tp: int) -> None:
    whole = Gemm(name="g", m=m, n=64, k=32, weights="fp8")
    assert replace(whole, n=64 / tp).flop * tp == pytest.approx(whole.flop)
    assert replace(whole, k=32 / tp).flop * tp == pytest.approx(whole.flop)


@given(st.integers(1, 300), st.integers(1, 4000), st.integers(1, 8))
def test_decode_reads_the_cache_once_a_group(batch: int, context: int, group: int) -> None:
    work = DecodeAttention(name="a", batch=batch, context=context, heads=4 * group, kv_heads=4, head_dim=16, value_dim=16)
    cache = batch * context * 4 * 32 * 2
    assert work.hbm_bytes - cache == 2 * batch * 4 * group * 32
    assert replace(work, batch=2 * batch).hbm_bytes == 2 * work.hbm_bytes
    assert replace(work, cache="fp8").hbm_bytes < work.hbm_bytes


def test_a_window_bounds_what_is_read() -> None:
    work = DecodeAttention(name="a", batch=1, context=5000, heads=4, kv_heads=4, head_dim=16, value_dim=16, window=1024)
    assert work.seen == 1024
    assert replace(work, context=100).seen == 100
    long, short = (
        PrefillAttention(name="a", batch=1, new=8, past=past, heads=1, kv_heads=1, head_dim=8, value_dim=8, window=128).hbm_bytes
        for past in (10_000, 128)
    )
    assert long == short


def test_latent_cache_is_one_head_whatever_the_split() -> None:
    work = LatentDecode(name="a", batch=1, context=1000, heads=128, kv_rank=512, rope_dim=64)
    queries = 2 * 128 * (2 * 512 + 64)
    assert work.hbm_bytes == 1000 * 576 * 2 + queries
    assert work.flop == 2 * 1000 * 128 * (2 * 512 + 64)
    assert replace(work, heads=16).hbm_bytes > 1000 * 576 * 2
    assert replace(work, topk=200).seen == 200
    # DeepSeek-V4: 1000 / 4 entries, 200 of them chosen, and 128 tokens whole; without entries the window only.
    assert replace(work, compress=4, window=128).seen == 250 + 128
    assert replace(work, compress=4, topk=200, window=128).seen == 200 + 128
    assert replace(work, compress=0, window=128).seen == 128


def test_latent_prefill_uses_expanded_heads() -> None:
    work = LatentPrefill(name="a", batch=1, new=4, past=0, heads=2, head_dim=192, value_dim=128, kv_rank=512, rope_dim=64)
    assert work.pairs == 10
    assert work.flop == 2 * 10 * 2 * 320
    assert replace(work, topk=1).pairs == 4
    assert replace(work, compress=2, window=1).pairs == 10 / 2 + 4


@given(st.floats(0, 100))
def test_repeats_count_everything(count: float) -> None:
    for once in (
        Gemm(name="w", m=2, n=3, k=4, weights="bf16"),
        Stream(name="w", bytes_moved=100, kernels=2),
        LatentDecode(name="w", batch=1, context=10, heads=2, kv_rank=8, rope_dim=4),
    ):
        many = replace(once, count=count)
        assert many.flop == pytest.approx(once.flop * count)
        assert many.hbm_bytes == pytest.approx(once.hbm_bytes * count)


def test_collective_carries_its_payload() -> None:
    work = Collective(name="c", op="all_reduce", axis="tp", payload_bytes=100, count=3)
    assert work.wire_bytes == 300
    assert work.flop == work.hbm_bytes == 0


def test_the_ranks_that_a_token_reaches_by_hand() -> None:
    # docs/physics.md (G2): 32 ranks, 8 draws.
    assert ranks_reached(32, 8) == pytest.approx(7.18, abs=0.01)
    assert ranks_reached(1, 8) == 1
    assert ranks_reached(1000, 2) == pytest.approx(2, abs=0.002)
