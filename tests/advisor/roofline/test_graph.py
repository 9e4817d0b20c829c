"""Sizes of one rank's step: shards add up, docs/physics.md's worked example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.catalog.calibrations import load_calibration
from advisor.catalog.devices import load_device
from advisor.catalog.engines import load_engine
from advisor.catalog.machines import load_cluster
from advisor.catalog.models import list_models, load_model
from advisor.roofline.attention import Batch, attention_work, projection_work
from advisor.roofline.graph import expert_work, step_work
from advisor.roofline.work import Collective, Experts, Gemm, IndexScores, StateScan, StateUpdate, Work
from advisor.specs.model import GroupedAttention, RecurrentMixer, count_equal
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload


def problem(model: str = "llama-3.1-70b", gpus: int = 8) -> Problem:
    return Problem(
        model=load_model(model, online=False).spec,
        cluster=load_cluster(gpu="h100-80g-sxm", gpus=gpus),
        workload=Workload(input_tokens=1024, output_tokens=1024, mode="closed_loop", users=8),
        engine=load_engine("vllm"),
    )


def stage_work(asked: Problem, plan: Plan, *, stage: int, phase: str, batch: float, new_tokens: float, context_tokens: float):
    if phase == "decode":
        return step_work(asked, plan, stage=stage, batch=Batch(decodes=batch, context=context_tokens))
    return step_work(asked, plan, stage=stage, batch=Batch(prefills=batch, new=new_tokens, past=context_tokens))


def works(plan: Plan, *, phase: str = "decode", batch: float = 1, model: str = "llama-3.1-70b", stage: int = 0):
    asked = problem(model)
    return stage_work(asked, plan, stage=stage, phase=phase, batch=batch, new_tokens=1024, context_tokens=1024)


def test_one_rank_alone_sends_nothing() -> None:
    assert not [w for w in works(Plan()) if isinstance(w, Collective)]


def test_tp_has_one_all_reduce_after_the_embedding_and_two_a_layer() -> None:
    reduces = sum(w.count for w in works(Plan(tp=8)) if isinstance(w, Collective) and w.op == "all_reduce")
    assert reduces == 1 + 2 * 80
    gathers = [w for w in works(Plan(tp=8)) if isinstance(w, Collective) and w.op == "all_gather"]
    assert [w.name for w in gathers] == ["logits_gather"]


@given(tp=st.sampled_from([1, 2, 4, 8]), batch=st.integers(1, 300))
def test_gemm_flop_of_the_shards_adds_up_to_the_model(tp: int, batch: int) -> None:
    def flop(plan: Plan) -> float:
        return sum(w.flop for w in works(plan, batch=batch) if isinstance(w, Gemm))

    # 128256 is a multiple of 64 * 8: no padding, so the shards are exact.
    assert tp * flop(Plan(tp=tp)) == pytest.approx(flop(Plan()), rel=1e-12)


def test_flop_of_a_token_is_two_per_weight() -> None:
    # Llama-3.1-70B: 70.55 B parameters less the 1.05 B of the table that is only looked up (and norms, which multiply nothing).
    flop = sum(w.flop for w in works(Plan()) if isinstance(w, Gemm))
    assert flop == pytest.approx(2 * (problem().model.params - 128256 * 8192), rel=1e-4)


def test_stages_carry_the_whole_model_once() -> None:
    plan = Plan(pp=3)
    staged = sum(
        w.flop for stage in range(3) for w in works(plan, stage=stage) if isinstance(w, Gemm)
    )  # fmt: skip
    assert staged == pytest.approx(sum(w.flop for w in works(Plan()) if isinstance(w, Gemm)))
    assert [w.op for w in works(plan, stage=0) if isinstance(w, Collective)] == ["p2p"]
    assert not [w for w in works(plan, stage=2) if isinstance(w, Collective)]


def test_kv_heads_are_replicated_beyond_their_number() -> None:
    asked = problem(gpus=8)
    wide = {w.name: w for w in stage_work(asked, Plan(tp=16), stage=0, phase="decode", batch=1, new_tokens=1, context_tokens=1024)}
    assert wide["qkv"].n == (64 / 16 + 2) * 128  # type: ignore[union-attr]


def test_experts_hit_are_those_that_draws_reach() -> None:
    # Mixtral: 8 experts, 2 a token. One token hits 2; sixteen hit 8 (1 - (3/4)^16) = 7.92 of an even draw, 7.75 of an uneven one.
    (one,) = [w for w in works(Plan(), model="mixtral-8x7b") if isinstance(w, Experts)]
    (many,) = [w for w in works(Plan(), model="mixtral-8x7b", batch=16) if isinstance(w, Experts)]
    assert one.hit == pytest.approx(2.0)
    assert many.hit == pytest.approx(7.75, abs=0.005)


def test_a_window_bounds_what_decode_reads() -> None:
    asked = problem("gpt-oss-120b")
    near = {w.hbm_bytes for w in stage_work(asked, Plan(), stage=0, phase="decode", batch=1, new_tokens=1, context_tokens=128)}
    far = {w.hbm_bytes for w in stage_work(asked, Plan(), stage=0, phase="decode", batch=1, new_tokens=1, context_tokens=65536)}
    assert near & far  # the windowed layers read the same at both


def test_expert_parallel_keeps_the_work_and_adds_the_exchange() -> None:
    split = works(Plan(tp=1, adp=8, ep=8), model="mixtral-8x7b", batch=4)
    ops = {w.op for w in split if isinstance(w, Collective)}
    assert ops == {"all_gather", "reduce_scatter"}
    (experts,) = [w for w in split if isinstance(w, Experts)]
    assert experts.local_experts == 1
    assert experts.tokens == 32


def test_calibrated_devices_have_kernels() -> None:
    assert load_calibration(load_device("h100-80g-sxm"), local=False).kernels
    assert replace(Plan(tp=2), dp=4).world == 8


def test_the_matrices_of_a_step_are_the_models_weights_for_every_model_of_the_catalogue() -> None:
    """Sum of n k over the GEMMs and experts of one rank of tp=1 == parameters that are not looked up, within 2% a layer's part."""
    engine, wrong = load_engine("vllm"), []
    for name in [summary.name for summary in list_models()]:
        model = load_model(name, online=False).spec
        asked = replace(problem(), model=model, engine=engine)
        work = stage_work(asked, Plan(), stage=0, phase="decode", batch=1, new_tokens=1, context_tokens=16)
        table = model.vocab_size * model.hidden_size
        looked_up = model.other_params + model.position_params + (0 if model.tied_embeddings else table)
        if matrix_params(work) != pytest.approx(model.params - looked_up, rel=0.005):
            wrong.append(f"{name}: {matrix_params(work) / (model.params - looked_up):.4f}")
        for layer, _ in count_equal(model.layers):
            if layer.mixer is not None:
                got = matrix_params(projection_work(layer.mixer, model.hidden_size, "bf16", 1, 1))
                if got != pytest.approx(layer.mixer.params(model.hidden_size), rel=0.005):
                    wrong.append(f"{name}: {type(layer.mixer).__name__} {got / layer.mixer.params(model.hidden_size):.4f}")
    assert not wrong


def matrix_params(works: Iterable[Work]) -> float:
    gemms = sum(w.n * w.k * w.count for w in works if isinstance(w, Gemm))
    return gemms + sum(w.local_experts * w.matrices * w.hidden * w.width * w.count for w in works if isinstance(w, Experts))


def test_a_recurrent_layer_updates_states_in_decode_and_scans_prompts() -> None:
    mixer = next(x.mixer for x in load_model("qwen3.5-397b-a17b", online=False).spec.layers if isinstance(x.mixer, RecurrentMixer))
    decode = attention_work(mixer, 8, Batch(decodes=16, context=4096), "bf16")
    assert [type(work) for work in decode] == [StateUpdate]
    assert decode[0].hbm_bytes == pytest.approx(16 * 2 * 4 * mixer.state_values / 8, rel=0.02)  # context plays no part
    prompt = attention_work(mixer, 8, Batch(prefills=1, new=4096, past=1000), "bf16")
    assert [type(work) for work in prompt] == [StateScan]
    assert sum(w.weight_bytes for w in projection_work(mixer, 4096, "bf16", 8, 1) if isinstance(w, Gemm)) == pytest.approx(
        2 * mixer.weights / 8, rel=1e-6
    )


def test_norms_over_whole_rows_ask_the_other_ranks() -> None:
    mixer = GroupedAttention(heads=48, kv_heads=8, head_dim=128, qk_norm="full")
    sent = [w for w in projection_work(mixer, 3072, "bf16", 4, 64) if isinstance(w, Collective)]
    assert [(w.op, w.axis, w.payload_bytes) for w in sent] == [("all_reduce", "tp", 64 * 2 * 4)]
    assert not [w for w in projection_work(mixer, 3072, "bf16", 1, 64) if isinstance(w, Collective)]
    heads = replace(mixer, qk_norm="head")
    assert not [w for w in projection_work(heads, 3072, "bf16", 4, 64) if isinstance(w, Collective)]


def test_an_indexer_scores_what_prompts_and_decodes_see() -> None:
    mixer = next(x.mixer for x in load_model("deepseek-v3.2", online=False).spec.layers)
    batch = Batch(decodes=4, context=8192, prefills=1, new=1000, past=2000)
    found = [w for w in attention_work(mixer, 8, batch, "bf16") if isinstance(w, IndexScores)]
    assert [w.pairs for w in found] == [4 * 8192, 1000 * 2000 + 1000 * 1001 / 2]


def test_wide_expert_groups_send_a_token_to_the_ranks_of_its_experts_alone() -> None:
    """Within a board everything is gathered; beyond it (G2) holds: 64 x 7.18 x 7168 bytes of fp8 there, twice that back."""
    model = load_model("deepseek-r1", online=False).spec
    layers = [(model.layers[-1], 1)]

    def exchanged(ranks: int) -> dict[str, tuple[str, float]]:
        works = expert_work(model, Plan(adp=ranks, ep=ranks), layers, 64)
        return {work.name: (work.op, work.payload_bytes) for work in works if isinstance(work, Collective)}

    assert {name: op for name, (op, _) in exchanged(8).items()} == {"dispatch": "all_gather", "combine": "reduce_scatter"}
    wide = exchanged(32)
    assert wide["dispatch"] == ("all_to_all", pytest.approx(3.29e6, rel=0.01))
    assert wide["combine"] == ("all_to_all", pytest.approx(2 * 3.29e6, rel=0.01))


def test_a_sparse_prompt_beyond_its_top_k_attends_in_latent_space() -> None:
    mixer = next(x.mixer for x in load_model("deepseek-v3.2", online=False).spec.layers)
    short, long = (attention_work(mixer, 8, Batch(prefills=1, new=new), "bf16")[0] for new in (2048, 4096))
    assert (short.head_dim, short.value_dim) == (192, 128)
    assert (long.head_dim, long.value_dim) == (576, 512)
