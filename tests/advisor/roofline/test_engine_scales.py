"""Scales of an engine: all that match multiply."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.catalog.calibrations import load_calibration
from advisor.catalog.devices import load_device
from advisor.catalog.engines import load_engine
from advisor.catalog.models import load_model, requantise
from advisor.roofline.engine_scales import EngineScales, as_computed, memory_share, scale_scopes
from advisor.roofline.work import Experts, Gemm, PrefillAttention
from advisor.specs.keys import ScaleKey
from advisor.specs.model import ModelSpec

H100 = load_device("h100-80g-sxm")
SCALES = (
    (ScaleKey("prefill"), 2.0), (ScaleKey("prefill", "hopper"), 3.0), (ScaleKey("prefill", "hopper", "fp8"), 5.0),
    (ScaleKey("prefill", "h100-80g-sxm"), 7.0), (ScaleKey("prefill", "blackwell"), 11.0), (ScaleKey("decode"), 4.0),
    (ScaleKey("experts"), 1.5),
)  # fmt: skip


@pytest.fixture
def llama() -> ModelSpec:
    return load_model("llama-3.1-8b", online=False).spec


def scales(model: ModelSpec, **corrections: float) -> EngineScales:
    calibration = replace(load_calibration(H100, local=False), scales=tuple(corrections.items()))
    return EngineScales(replace(load_engine("vllm"), scales=SCALES), calibration, H100, model)


def test_s1_all_scales_that_match_multiply(llama: ModelSpec) -> None:
    assert scales(llama).prefill == 2.0 * 3.0 * 7.0 == 42.0
    assert scales(requantise(llama, dtype="fp8", kv_dtype=None)).prefill == 2.0 * 3.0 * 5.0 * 7.0 == 210.0
    assert scales(llama).host == 1.0


def test_the_correction_of_own_runs_multiplies_too(llama: ModelSpec) -> None:
    corrected = scales(llama, decode=1.25, prefill=0.5, host=3.0, collective=2.0)
    assert (corrected.decode, corrected.prefill, corrected.host, corrected.collective) == (5.0, 21.0, 3.0, 2.0)


def test_a_product_is_scaled_by_what_binds_it(llama: ModelSpec) -> None:
    """A GEMM of one token reads; of a million tokens it multiplies; attention of a prompt always does."""
    found = scales(llama)
    small = Gemm(name="g", m=1, n=8192, k=8192, weights="bf16")
    large = replace(small, m=1e6, k=1_000_000, n=1_000_000)
    assert memory_share(small, H100) > 0.99
    assert found.of(small) == pytest.approx(4.0, rel=0.03)
    assert found.of(large) == pytest.approx(42.0, rel=0.1)
    prompt = PrefillAttention(name="p", batch=1, new=64, past=0, heads=8, kv_heads=8, head_dim=128, value_dim=128)
    assert found.of(prompt) == 42.0


def test_experts_have_a_scale_of_their_own(llama: ModelSpec) -> None:
    experts = Experts(
        name="e", tokens=1, experts=8, local_experts=8, top_k=2, hidden=4096, width=14336, matrices=3, weights="bf16"
    )  # fmt: skip
    share = memory_share(experts, H100)
    assert scales(llama).of(experts) == pytest.approx(4.0**share * 42.0 ** (1 - share) * 1.5)


def test_an_engine_computes_mxfp4_its_own_way_on_the_devices_it_names() -> None:
    spec = load_model("gpt-oss-120b", online=False).spec
    trtllm, vllm = load_engine("trtllm", "1.2.0"), load_engine("vllm", "0.15.1")
    b200, hopper = load_device("b200-180g"), load_device("h100-80g-sxm")
    assert as_computed(spec, trtllm, b200).formats.experts == "mxfp4-mxfp8"
    assert as_computed(spec, trtllm, hopper) is spec
    assert as_computed(spec, vllm, b200) is spec
    assert scale_scopes(spec, trtllm, b200)[1] == ("blackwell", "mxfp4-mxfp8")
