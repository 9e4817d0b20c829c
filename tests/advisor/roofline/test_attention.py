"""Mixers: sizes by hand."""

from __future__ import annotations

import pytest

from advisor.roofline.attention import Batch, attention_work, local_kv_heads, projection_work
from advisor.roofline.work import DecodeAttention, Gemm, LatentDecode, LatentPrefill, PrefillAttention, Stream
from advisor.specs.model import GroupedAttention, LatentAttention

LLAMA = GroupedAttention(heads=32, kv_heads=8, head_dim=128)  # Llama-3.1-8B
MLA = LatentAttention(heads=128, nope_dim=128, rope_dim=64, v_head_dim=128, kv_rank=512, q_rank=1536)  # DeepSeek-V3


@pytest.mark.parametrize(("tp", "heads"), [(1, 8), (2, 4), (8, 1), (16, 1), (3, 3)])
def test_key_value_heads_of_a_rank(tp: int, heads: int) -> None:
    """Eight heads: a share of them, and one whole head where there are more ranks than heads."""
    assert local_kv_heads(8, tp) == heads


def test_grouped_projections_of_one_rank() -> None:
    qkv, rope, out = projection_work(LLAMA, 4096, "bf16", 4, 10)
    assert isinstance(qkv, Gemm)
    assert (qkv.m, qkv.n, qkv.k) == (10, (8 + 2 + 2) * 128, 4096)
    assert isinstance(rope, Stream)
    assert rope.bytes_moved == 2 * 2 * 10 * 12 * 128  # read and written, two bytes a value
    assert isinstance(out, Gemm)
    assert (out.n, out.k) == (4096, 8 * 128)


def test_latent_projections_are_down_whole_and_up_by_head() -> None:
    works = {work.name: work for work in projection_work(MLA, 7168, "fp8", 8, 10)}
    sizes = {name: (work.n, work.k) for name, work in works.items() if isinstance(work, Gemm)}
    assert sizes["qkv_down"] == (1536 + 512 + 64, 7168)  # the latents are whole on every rank
    assert sizes["q_up"] == (16 * 192, 1536)
    assert sizes["kv_up"] == (16 * (128 + 128), 512)
    assert sizes["out"] == (7168, 16 * 128)


def test_a_step_of_both_phases_has_an_attention_of_each() -> None:
    batch = Batch(decodes=3, context=1000, prefills=1, new=64, past=16)
    assert (batch.tokens, batch.sequences) == (67, 4)
    prefill, decode = attention_work(LLAMA, 2, batch, "fp8", count=5)
    assert isinstance(prefill, PrefillAttention)
    assert (prefill.batch, prefill.new, prefill.past, prefill.heads, prefill.kv_heads) == (1, 64, 16, 16, 4)
    assert isinstance(decode, DecodeAttention)
    assert (decode.batch, decode.context, decode.heads, decode.cache, decode.count) == (3, 1000, 16, "fp8", 5)
    both = attention_work(MLA, 8, batch, "bf16")
    assert [type(work) for work in both] == [LatentPrefill, LatentDecode]
    assert [work.heads for work in both if isinstance(work, LatentPrefill | LatentDecode)] == [16, 16]


def test_chunked_attention_sees_half_a_chunk_on_average() -> None:
    chunked = GroupedAttention(heads=8, kv_heads=8, head_dim=64, window_tokens=512, chunked=True)
    contexts = [
        work.context
        for context in (100, 512, 513, 9000)
        for work in attention_work(chunked, 1, Batch(decodes=1, context=context), "bf16")
        if isinstance(work, DecodeAttention)
    ]
    assert contexts == [100, 512, 256, 256]
