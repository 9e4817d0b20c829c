"""Host time and the engine's scales of a step, and how wide its error is, against figures by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.catalog.calibrations import load_calibration
from advisor.catalog.engines import load_engine
from advisor.catalog.machines import load_cluster, load_device
from advisor.catalog.models import load_model
from advisor.roofline.step import StepModel
from advisor.serving.familiarity import closeness, spread_for
from advisor.serving.predict import Predictor
from advisor.specs.calibration import Spread
from advisor.specs.engine import Engine, HostTime
from advisor.specs.keys import ScaleKey
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.speculation import Method, Speculation
from advisor.specs.workload import Workload


@pytest.fixture
def vllm() -> Engine:
    return load_engine("vllm", "2025")


def model_of(engine: Engine, *, gpu: str = "h100-80g-sxm", tp: int = 2) -> StepModel:
    cluster = load_cluster(gpu=gpu, gpus=tp)
    spec = load_model("meta-llama/Llama-3.1-8B", online=False).spec
    load = Workload(input_tokens=512, output_tokens=128, mode="closed_loop", users=8)
    problem = Problem(model=spec, cluster=cluster, workload=load, engine=engine)
    return Predictor(problem, load_calibration(cluster.device, local=False)).step_model(Plan(tp=tp))


def test_host_time_by_hand(vllm: Engine) -> None:
    host = HostTime(
        step_s=1e-3, sequence_s=1e-5, request_s=0.0, overlap=0.0, kernel_s=1e-6, prefill_s=2e-4, context_s=1e-8, ranks_s=5e-4
    )
    engine = replace(vllm, host=host, scales=())
    # 1 ms + 64 * 10 us + 64,000 * 10 ns + 0.5 ms between two ranks = 2.78 ms; a chunk adds 0.2 ms.
    assert model_of(engine).host_s(64, 0, 64_000) == pytest.approx(2.78e-3)
    assert model_of(engine).host_s(64, 1, 64_000) == pytest.approx(2.98e-3)
    assert model_of(engine, tp=1).host_s(64, 0, 64_000) == pytest.approx(2.28e-3)


def test_a_scale_with_a_device_s_name_is_that_device_s_alone(vllm: Engine) -> None:
    plain = replace(vllm, scales=())
    slowed = replace(vllm, scales=((ScaleKey("host", "h200-141g-sxm"), 3.0), (ScaleKey("prefill", "h200-141g-sxm"), 2.0)))
    for gpu, factor in (("h100-80g-sxm", 1.0), ("h200-141g-sxm", 2.0)):
        before, after = model_of(plain, gpu=gpu, tp=1), model_of(slowed, gpu=gpu, tp=1)
        assert after.prefill_attention_s(0, 4096, 0) == pytest.approx(factor * before.prefill_attention_s(0, 4096, 0))
    assert model_of(slowed, gpu="h200-141g-sxm").host_s(1, 0, 0) == pytest.approx(
        3 * model_of(plain, gpu="h200-141g-sxm").host_s(1, 0, 0)
    )


def test_paged_kernels_read_the_cache_once_a_query_head(vllm: Engine) -> None:
    """Llama-3.1-8B shares a KV head among 4 query heads: 4 times the bytes; beyond 512 (sequence, head) pairs no split besides."""
    paged = replace(vllm, paged_kernels_on=("cdna3",), scales=((ScaleKey("attention", "unsplit"), 1.5),))
    packed = replace(vllm, scales=())
    for sequences, slower in ((16, 1.0), (64, 1.5)):  # 512 and 2048 pairs
        here, there = (model_of(e, gpu="mi300x", tp=1).decode_attention_s(0, sequences, 8192) for e in (paged, packed))
        assert here == pytest.approx(4 * slower * there, rel=0.1)
    h100 = [model_of(e, tp=1).decode_attention_s(0, 64, 8192) for e in (paged, packed)]
    assert h100[0] == h100[1]


def test_the_error_is_that_of_what_is_known(vllm: Engine) -> None:
    def width(shared: float) -> Spread:
        return Spread(shared=shared, independent=0.1, points=20)

    spreads = tuple((f"tpot/{near}", width(w)) for near, w in (("default", 0.9), ("device", 0.2), ("family", 0.5), ("fitted", 0.1)))
    engine = replace(vllm, spreads=spreads, fitted_on=("h100-80g-sxm", "mi300x"))
    known = {
        gpu: spread_for(
            engine, load_calibration(load_device(gpu), local=False), "tpot", load_model("llama-3.1-8b", online=False).spec
        ).shared
        for gpu in ("h100-80g-sxm", "h200-141g-sxm", "h20-96g", "mi325x", "mi300x")
    }
    assert known == {"h100-80g-sxm": 0.1, "h200-141g-sxm": 0.2, "h20-96g": 0.5, "mi325x": 0.9, "mi300x": 0.5}


def test_closeness_is_that_of_what_tables_measure() -> None:
    found = {gpu: closeness(load_calibration(load_device(gpu), local=False)) for gpu in ("h100-80g-sxm", "rtx4090", "mi300x")}
    assert found == {"h100-80g-sxm": "device", "rtx4090": "family", "mi300x": "default"}


def test_kernels_of_a_layer_by_hand(vllm: Engine) -> None:
    # qkv, rope, attention, out, two norms, gate and up, activation, down: 9 a layer; embedding, vocabulary, four of sampling.
    assert model_of(vllm, tp=1).kernels(0) == 32 * 9 + 1 + 1 + 4
    cluster = load_cluster(gpu="h200-141g-sxm", gpus=8)
    load = Workload(input_tokens=512, output_tokens=128, mode="closed_loop", users=8)
    r1 = Problem(model=load_model("deepseek-ai/DeepSeek-R1", online=False).spec, cluster=cluster, workload=load, engine=vllm)
    model = Predictor(r1, load_calibration(cluster.device, local=False)).step_model(Plan(tp=8))
    assert 40 < model.kernels(0) / 61 < 43


def speculating(method: Method, drafts: int = 3, *, tp: int = 2, model: str = "meta-llama/Llama-3.1-8B") -> StepModel:
    cluster = load_cluster(gpu="h100-80g-sxm", gpus=tp)
    load = Workload(input_tokens=512, output_tokens=128, mode="closed_loop", users=8)
    drawn = Speculation(method=method, drafts=drafts, length=2.5, length_low=2.5, length_high=2.5, source="test")
    spec = load_model(model, online=False).spec
    problem = Problem(model=spec, cluster=cluster, workload=load, engine=load_engine("vllm", "2025"), speculation=drawn)
    return Predictor(problem, load_calibration(cluster.device, local=False)).step_model(Plan(tp=tp))


def test_a_verify_step_costs_a_single_user_little_and_a_full_batch_much(vllm: Engine) -> None:
    plain, verify = model_of(vllm), speculating("ngram")
    assert 1.0 < verify.decode_s(1, 1000) / plain.decode_s(1, 1000) < 1.15
    assert verify.decode_s(512, 1000) / plain.decode_s(512, 1000) > 1.5
    assert verify.decode_s(512, 1000) == pytest.approx(plain.decode_s(2048, 250), rel=0.35)


def test_drafting_pays_a_single_user_and_stops_under_load(vllm: Engine) -> None:
    """Weights and cache are read once for all verified tokens, products are not: with long contexts drafting pays for longer."""
    plain, eagle = model_of(vllm), speculating("eagle3")

    def gain(users: int, context: int) -> float:
        return plain.decode_s(users, context) / (eagle.decode_s(users, context) / eagle.tokens_per_step)

    gains = [gain(users, 64) for users in (1, 16, 64, 256, 1024)]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 1.7
    assert gains[-1] < 1.1
    assert gain(1024, 4096) > gain(1024, 64) + 0.1


def test_more_drafts_take_longer_and_a_drafter_longer_than_a_look_up() -> None:
    times = [speculating("eagle3", drafts).decode_s(8, 1000) for drafts in (2, 3, 5)]
    assert times == sorted(times)
    assert speculating("ngram").decode_s(8, 1000) < speculating("eagle3").decode_s(8, 1000)
    assert speculating("eagle3").mixed_s(0, 0, [(512, 0)]) > speculating("ngram").mixed_s(0, 0, [(512, 0)])


def test_more_tokens_draw_more_experts() -> None:
    """A verify step of a mixture reads the experts that all its tokens draw: drafting costs more there than in a dense model."""
    mixtral = "mistralai/Mixtral-8x7B-v0.1"
    few, many = speculating("ngram", 2, model=mixtral), speculating("ngram", 7, model=mixtral)
    dense = speculating("ngram", 7).decode_s(1, 1000) / speculating("ngram", 2).decode_s(1, 1000)
    assert many.decode_s(1, 1000) / few.decode_s(1, 1000) > 1.2 * dense
