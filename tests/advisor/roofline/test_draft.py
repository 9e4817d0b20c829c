"""The drafter: its work and memory by hand, and what must hold whatever the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from advisor.catalog.engines import load_engine
from advisor.roofline.attention import Batch
from advisor.roofline.draft import draft_layer, draft_prefill_work, draft_step_work
from advisor.roofline.graph import head_work, sequence_work
from advisor.roofline.memory import drafter_bytes
from advisor.roofline.work import Gemm
from advisor.specs.cluster import Cluster
from advisor.specs.model import DenseFfn, GroupedAttention, ModelSpec, count_equal
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.speculation import Method, Speculation
from advisor.specs.workload import Workload


def drafts(method: Method, number: int = 3) -> Speculation:
    return Speculation(method=method, drafts=number, length=2.0, length_low=2.0, length_high=2.0, source="test")


def test_an_eagle_head_by_hand(llama_70b: ModelSpec) -> None:
    # docs/physics.md (D3): D = 8192, width 28672, 64 heads and 8 key-value heads of 128, as the published head of Llama-3-70B.
    layer = draft_layer(llama_70b, drafts("eagle3"))
    assert layer is not None
    assert layer.mixer == GroupedAttention(heads=64, kv_heads=8, head_dim=128)
    assert layer.ffn == DenseFfn(width=28672)


def test_an_eagle_head_in_memory_by_hand(llama_70b: ModelSpec, box: Callable[..., Cluster]) -> None:
    # 8192 x (8192 + 2 x 1024 + 8192) + 3 x 8192 x 28672 of the layer, 2 norms, 3 x 8192^2 joined, 32000 x 8192 vocabulary, 2 bytes
    # each; its cache is 2 x 1024 values of 2 bytes a token.
    workload = Workload(input_tokens=900, output_tokens=100)
    problem = Problem(
        model=llama_70b, cluster=box(8), workload=workload, engine=load_engine("vllm", ""), speculation=drafts("eagle3")
    )
    weights, cache = drafter_bytes(problem, Plan(tp=1), 1000, in_flight=0)
    layer = 8192 * (8192 + 2 * 1024 + 8192) + 3 * 8192 * 28672
    assert weights == pytest.approx(2 * (layer + 2 * 8192 + 3 * 8192**2 + 32000 * 8192))
    assert cache == 1000 * 2 * 1024 * 2
    quarter, _ = drafter_bytes(problem, Plan(tp=4), 1000, in_flight=0)
    assert quarter == pytest.approx(weights / 4, rel=1e-4)


def test_an_ngram_drafts_for_nothing(llama_70b: ModelSpec, box: Callable[..., Cluster]) -> None:
    assert draft_layer(llama_70b, drafts("ngram")) is None
    assert draft_step_work(llama_70b, Plan(tp=2), drafts("ngram"), sequences=4, context=1000) == []
    assert draft_prefill_work(llama_70b, Plan(tp=2), drafts("ngram"), new=100, past=0) == []
    workload = Workload(input_tokens=900, output_tokens=100)
    problem = Problem(
        model=llama_70b, cluster=box(8), workload=workload, engine=load_engine("vllm", ""), speculation=drafts("ngram")
    )
    assert drafter_bytes(problem, Plan(tp=1), 1000, in_flight=0) == (0.0, 0.0)


@pytest.mark.parametrize("method", ["mtp", "eagle3"])
def test_the_first_pass_reads_what_was_verified_and_the_others_a_token(llama_70b: ModelSpec, method: Method) -> None:
    works = draft_step_work(llama_70b, Plan(tp=8), drafts(method, 3), sequences=5, context=1000)
    rows = {(work.m, work.count) for work in works if isinstance(work, Gemm) and work.name == "qkv"}
    assert rows == {(5 * 4, 1), (5, 2)}
    heads = [work for work in works if isinstance(work, Gemm) and work.name == "draft_head"]
    assert [(work.m, work.count) for work in heads] == [(5, 3)]


def test_a_smaller_vocabulary_is_read_by_eagle(llama_70b: ModelSpec) -> None:
    def width(method: Method) -> float:
        works = draft_step_work(llama_70b, Plan(tp=8), drafts(method), sequences=1, context=10)
        return next(work.n for work in works if isinstance(work, Gemm) and work.name == "draft_head")

    assert width("eagle3") == 4000
    head = head_work(llama_70b, Plan(tp=8), 1)[0]
    assert isinstance(head, Gemm)
    assert width("mtp") == head.n


def test_a_quantised_target_keeps_its_eagle_head_in_16_bits(llama_70b: ModelSpec) -> None:
    small = replace(llama_70b, formats=replace(llama_70b.formats, attention="fp8", ffn="fp8"))
    works = draft_step_work(small, Plan(tp=1), drafts("eagle3"), sequences=1, context=10)
    assert {work.weights for work in works if isinstance(work, Gemm) and work.name in ("qkv", "gate_up")} == {"bf16"}
    works = draft_step_work(small, Plan(tp=1), drafts("mtp"), sequences=1, context=10)
    assert {work.weights for work in works if isinstance(work, Gemm) and work.name in ("qkv", "gate_up")} == {"fp8"}


def test_verifying_reads_the_cache_once_and_multiplies_every_token(llama_70b: ModelSpec) -> None:
    layers = count_equal(llama_70b.layers)
    one = sequence_work(llama_70b, Plan(tp=1), layers, Batch(decodes=8, context=4096))[0]
    four = sequence_work(llama_70b, Plan(tp=1), layers, Batch(decodes=8, context=4096, queries=4))[0]
    assert four.flop == 4 * one.flop
    assert four.hbm_bytes - one.hbm_bytes == 80 * 8 * 3 * 2 * 64 * 256  # queries and outputs of three more tokens
