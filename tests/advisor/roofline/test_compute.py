"""Kernel seconds: the worked numbers of docs/physics.md (K1-K6) and the laws that every calibration keeps."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import ProfileError
from advisor.roofline import compute
from advisor.roofline.compute import DeviceRates, nearest, peak_flop_per_s, reach_of
from advisor.roofline.work import (
    DecodeAttention,
    Experts,
    Gemm,
    IndexScores,
    Kernel,
    LatentDecode,
    LatentPrefill,
    PrefillAttention,
    StateScan,
    StateUpdate,
    Stream,
)
from advisor.specs.calibration import Calibration, Provenance, Reach
from advisor.specs.cluster import Device
from advisor.specs.formats import FORMATS
from advisor.specs.keys import KernelKey
from advisor.specs.wire import from_data

SHIPPED = sorted((Path(__file__).parents[3] / "profiles" / "calibration").glob("*.yaml"))
HAND = Provenance(source="by hand", closeness="device")
# The device of the worked examples: round figures.
DEVICE = Device(
    name="round", architecture="hopper", vendor="nvidia", compute_capability="9.0", memory_bytes=80e9, memory_bytes_per_s=2e12,
    peak_flop_per_s=(("bf16", 1e15),), sms=100, l2_bytes=50e6, link_kind="nvswitch", link_bytes_per_s=450e9,
    pcie_bytes_per_s=64e9, p2p=True, power_w=700,
)  # fmt: skip


def calibration(kind: str, launch_s: float, compute: float = 0.5, **shape: float) -> Calibration:
    reach = Reach(memory=0.8, compute=compute, launch_s=launch_s, sharpness=2.0, shape=tuple(shape.items()), provenance=HAND)
    return Calibration(
        name="hand", device="round", version=1, date="2026-11-21", kernels=((KernelKey.parse(kind), reach),), wires=()
    )


@cache
def shipped(path: Path) -> Calibration:
    return from_data(yaml.safe_load(path.read_text()), Calibration, origin=path.name)


def kernel_s(work: Kernel, device: Device, made: Calibration) -> float:
    return compute.kernel_s(work, DeviceRates(device, made))


def test_k2_gemm() -> None:
    work = Gemm(name="gemm", m=64, n=8192, k=8192, weights="bf16")
    assert kernel_s(work, DEVICE, calibration("gemm/bf16", 4e-6)) == pytest.approx(90.9e-6, rel=1e-3)


def test_k2_a_long_k_cannot_be_hurried() -> None:
    work = Gemm(name="gemm", m=1, n=1024, k=8192, weights="bf16")
    assert kernel_s(work, DEVICE, calibration("gemm/bf16", 3e-6, chain_s=3.4e-6)) == pytest.approx(15.5e-6, rel=2e-3)


def test_k3_experts() -> None:
    work = Experts(
        name="experts", tokens=64, top_k=8, experts=128, local_experts=128, hidden=4096, width=1536, matrices=3, weights="bf16"
    )
    assert kernel_s(work, DEVICE, calibration("experts/bf16", 30e-6, passes=1.0)) == pytest.approx(2862e-6, rel=1e-3)
    without = kernel_s(work, DEVICE, calibration("experts/bf16", 30e-6))
    assert kernel_s(work, DEVICE, calibration("experts/bf16", 30e-6, passes=1.0)) - without == pytest.approx(6.55e-6, rel=1e-2)


def test_k4_prefill() -> None:
    work = PrefillAttention(name="attention", batch=1, new=1024, past=0, heads=8, kv_heads=8, head_dim=128, value_dim=128)
    made = calibration("attention_prefill/bf16", 10e-6, chain=1.0, softmax=100.0)
    assert kernel_s(work, DEVICE, made) == pytest.approx(20.3e-6, rel=3e-3)


def test_k5_decode() -> None:
    work = DecodeAttention(name="attention", batch=64, context=2048, heads=32, kv_heads=8, head_dim=128, value_dim=128)
    made = calibration("attention_decode/bf16", 10e-6, compute=0.1, queue_s=2e-6, chain_s=2e-6)
    assert kernel_s(work, DEVICE, made) == pytest.approx(347.1e-6, rel=1e-3)


def test_k6_stream() -> None:
    work = Stream(name="norm", bytes_moved=16e6, kernels=3)
    assert kernel_s(work, DEVICE, calibration("stream", 1.5e-6)) == pytest.approx(14.5e-6)


def test_k7_state_update() -> None:
    work = StateUpdate(name="state", batch=64, heads=32, head_values=128 * 128)
    made = calibration("state_update/gated-delta", 4e-6, queue_s=1e-6)
    assert kernel_s(work, DEVICE, made) == pytest.approx(174.3e-6, rel=1e-3)


def test_k8_state_scan() -> None:
    work = StateScan(name="state", batch=1, new=4096, heads=32, head_values=128 * 128)
    made = calibration("state_scan/gated-delta", 20e-6, queue_s=1e-6, chain_s=2e-6)
    assert kernel_s(work, DEVICE, made) == pytest.approx(307.0e-6, rel=1e-3)


def test_k9_index_scores() -> None:
    work = IndexScores(name="index", queries=16, pairs=16 * 32768, keys=16 * 32768, heads=64, head_dim=128)
    made = calibration("index_scores/fp8", 20e-6, chain_s=2e-7)
    assert kernel_s(work, DEVICE, made) == pytest.approx(69.4e-6, rel=1e-3)


def test_an_engine_runs_its_own_kernels_where_they_were_measured() -> None:
    work = Experts(
        name="experts", tokens=1, top_k=8, experts=128, local_experts=128, hidden=4096, width=1536, matrices=3, weights="bf16"
    )
    both = calibration("experts/bf16", 30e-6)
    both = replace(both, kernels=(*both.kernels, *calibration("experts/bf16/vllm", 90e-6).kernels))
    best, vllm, sglang = (compute.kernel_s(work, DeviceRates(DEVICE, both, engine)) for engine in ("", "vllm", "sglang"))
    assert vllm - best == pytest.approx(60e-6)
    assert sglang == best


def test_mxfp4_has_two_computations() -> None:
    assert nearest("mxfp4")[:2] == ("mxfp4", "int4")
    assert nearest("mxfp4-mxfp8")[:2] == ("mxfp4-mxfp8", "nvfp4")
    assert peak_flop_per_s(FULL, "mxfp4-mxfp8") == 2 * peak_flop_per_s(FULL, "mxfp4")


def test_a_rule_without_kernels_of_its_own_takes_the_delta_rules() -> None:
    found = calibration("state_update/gated-delta", 1e-6).kernels
    assert reach_of(dict(found), "state_update", "mamba2", "x") is found[0][1]


def test_repeats_cost_the_same_each() -> None:
    once = DecodeAttention(name="attention", batch=3, context=700, heads=8, kv_heads=2, head_dim=128, value_dim=128)
    made = calibration("attention_decode/bf16", 10e-6, queue_s=2e-6, chain_s=2e-6)
    assert kernel_s(replace(once, count=80), DEVICE, made) == pytest.approx(80 * kernel_s(once, DEVICE, made))


def test_nothing_to_do_takes_no_time() -> None:
    work = DecodeAttention(name="attention", batch=0, context=100, heads=8, kv_heads=8, head_dim=128, value_dim=128)
    assert kernel_s(work, DEVICE, calibration("attention_decode/bf16", 10e-6, queue_s=1e-6)) == 0.0


def test_a_format_without_coefficients_takes_the_nearest_ones() -> None:
    plain, block = (Reach(memory=m, compute=0.5, launch_s=1e-6, sharpness=2, provenance=HAND) for m in (0.8, 0.9))
    reaches = {KernelKey("gemm", "bf16"): plain, KernelKey("gemm", "fp8-block"): block}
    assert reach_of(reaches, "gemm", "fp8", "x") is block
    assert reach_of(reaches, "gemm", "fp16", "x") is plain
    with pytest.raises(ProfileError, match="no coefficients for experts/bf16"):
        reach_of(reaches, "experts", "bf16", "x")


def test_missing_tensor_core_format_is_widened_to_16_bits() -> None:
    assert peak_flop_per_s(DEVICE, "fp8") == 1e15
    assert peak_flop_per_s(replace(DEVICE, peak_flop_per_s=(("fp16", 65e12),)), "bf16") == 65e12
    with pytest.raises(ProfileError, match="states no peak"):
        peak_flop_per_s(replace(DEVICE, peak_flop_per_s=()), "bf16")


def kernels(sizes: tuple[float, ...], number_format: str) -> list[Kernel]:
    """One kernel of each kind whose sizes all grow with the four numbers."""
    a, b, c, d = sizes
    cache = number_format if number_format in ("bf16", "fp8") else "bf16"
    return [
        Gemm(name="k", m=a, n=64 * b, k=64 * c, weights=number_format),
        Experts(
            name="k", tokens=a, top_k=4, experts=64, local_experts=32, hidden=int(64 * b), width=64 * c, matrices=3,
            weights=number_format,
        ),
        PrefillAttention(name="k", batch=a, new=16 * b, past=16 * c, heads=d, kv_heads=d, head_dim=128, value_dim=128, cache=cache),
        DecodeAttention(name="k", batch=a, context=16 * b, heads=4 * d, kv_heads=d, head_dim=128, value_dim=128, cache=cache),
        LatentPrefill(
            name="k", batch=a, new=16 * b, past=16 * c, heads=d, head_dim=192, value_dim=128, kv_rank=512, rope_dim=64, cache=cache
        ),
        LatentDecode(name="k", batch=a, context=16 * b, heads=d, kv_rank=512, rope_dim=64, cache=cache),
        StateUpdate(name="k", batch=a, heads=b, head_values=64 * c),
        StateScan(name="k", batch=a, new=16 * b, heads=c, head_values=64 * d),
        IndexScores(name="k", queries=a, pairs=16 * a * b, keys=16 * b, heads=int(c), head_dim=128),
        Stream(name="k", bytes_moved=1e4 * a, kernels=1),
    ]  # fmt: skip


paths = st.sampled_from(SHIPPED)
sizes = st.tuples(*[st.integers(1, 512).map(float)] * 4)
formats = st.sampled_from(sorted(FORMATS))
# Tensor cores of every format, so that a law does not hang on a fallback.
FULL = replace(DEVICE, peak_flop_per_s=(("bf16", 1e15), ("fp8", 2e15), ("int8", 2e15), ("nvfp4", 4e15), ("fp32", 5e14)))


@given(paths, sizes, st.integers(0, 3), st.floats(1.0, 8.0), formats)
def test_more_work_never_takes_less_time(
    path: Path, base: tuple[float, ...], grown: int, factor: float, number_format: str
) -> None:
    more = tuple(float(math.ceil(x * factor)) if i == grown else x for i, x in enumerate(base))
    for small, large in zip(kernels(base, number_format), kernels(more, number_format), strict=True):
        assert kernel_s(small, FULL, shipped(path)) <= kernel_s(large, FULL, shipped(path)) * (1 + 1e-9)


@given(paths, sizes, st.floats(1.0, 4.0), formats)
def test_a_better_device_never_takes_longer(path: Path, base: tuple[float, ...], factor: float, number_format: str) -> None:
    faster = replace(
        FULL,
        memory_bytes_per_s=FULL.memory_bytes_per_s * factor,
        peak_flop_per_s=tuple((name, rate * factor) for name, rate in FULL.peak_flop_per_s),
    )
    for work in kernels(base, number_format):
        assert kernel_s(work, faster, shipped(path)) <= kernel_s(work, FULL, shipped(path)) * (1 + 1e-9)


@given(paths, sizes, formats)
def test_no_kernel_beats_the_data_sheet(path: Path, base: tuple[float, ...], number_format: str) -> None:
    for work in kernels(base, number_format):
        ideal = work.hbm_bytes / FULL.memory_bytes_per_s
        if isinstance(work, (Gemm, Experts)):
            ideal = max(ideal, work.flop / peak_flop_per_s(FULL, work.weights))
        assert kernel_s(work, FULL, shipped(path)) >= ideal


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_coefficients_are_possible(path: Path) -> None:
    made = shipped(path)
    assert made.name == path.stem
    kinds = {key.kind for key, _ in made.kernels}
    assert kinds == {
        "gemm", "experts", "attention_prefill", "attention_decode", "mla_prefill", "mla_decode", "state_update", "state_scan",
        "index_scores", "stream",
    }  # fmt: skip
    for key, reach in made.kernels:
        assert 0 < reach.memory <= 1, key
        assert 0 < reach.compute <= (1.0 if key.kind in ("gemm", "experts", "stream") else 1.5), key
        assert 1e-6 <= reach.launch_s < 100e-6, key
        assert reach.provenance.source, key
        assert reach.provenance.closeness in ("device", "family", "default"), key


def test_gpt_fast_follows_from_kernels_alone(h100: Device) -> None:
    """PHYSICS anchors (gpt-fast, A100 80G, batch 1, bf16): Llama-2-7B 104.9 and Llama-2-70B TP=8 62.5 tokens/s, within 8%."""
    a100 = replace(
        h100, name="a100-80g-sxm", memory_bytes_per_s=2.039e12, peak_flop_per_s=(("bf16", 312e12),), sms=108, link_bytes_per_s=300e9
    )
    made = shipped(next(p for p in SHIPPED if p.stem == "a100-80g-sxm"))

    def token_s(layers: int, D: int, heads: int, kv: int, width: int, tp: int) -> float:
        step: list[Kernel] = [
            Gemm(name="qkv", m=1, n=(heads + 2 * kv) * 128 / tp, k=D, weights="bf16", count=layers),
            DecodeAttention(
                name="attention", batch=1, context=200, heads=heads / tp, kv_heads=kv / tp, head_dim=128, value_dim=128,
                count=layers,
            ),
            Gemm(name="out", m=1, n=D, k=heads * 128 / tp, weights="bf16", count=layers),
            Gemm(name="gate_up", m=1, n=2 * width / tp, k=D, weights="bf16", count=layers),
            Gemm(name="down", m=1, n=D, k=width / tp, weights="bf16", count=layers),
            Stream(name="norms", bytes_moved=D * 24, kernels=4, count=layers),
            Gemm(name="lm_head", m=1, n=32000, k=D, weights="bf16"),
        ]  # fmt: skip
        return sum(kernel_s(work, a100, made) for work in step)

    assert 1 / token_s(32, 4096, 32, 32, 11008, 1) == pytest.approx(104.9, rel=0.08)
    wire_s = 160 * 6.3e-6  # two all-reduces of 16 KiB a layer, PHYSICS: 6 us on A100 at 8 GPUs
    assert 1 / (token_s(80, 8192, 64, 8, 28672, 8) + wire_s) == pytest.approx(62.5, rel=0.08)


def test_k4_what_mla_prefill_asks_of_a_device() -> None:
    """1,024 new tokens, 16 heads of 192 and 128: half a square of pairs and half a tile of 128 more for each query."""
    work = LatentPrefill(
        name="a", batch=2, new=1024, past=0, heads=16, head_dim=192, value_dim=128, kv_rank=512, rope_dim=64, count=3
    )
    moved, flop, scores, queue, chain, passes = compute.demand(work, 100)
    assert scores == 2 * 16 * (work.pairs + 1024 * 64) * 3
    assert work.pairs == pytest.approx(1024 * 1024 / 2, rel=2e-3)
    assert flop == 2 * scores * 320
    assert chain == 2 * 128 * 1024 * 320 * 100 * 3  # one tile of queries walks through all it sees, alone on its SM
    assert (moved, queue, passes) == (work.hbm_bytes, 0.0, 0.0)


def test_k4_a_window_ends_the_walk_of_a_thread_block() -> None:
    long = PrefillAttention(name="a", batch=1, new=1000, past=9000, heads=8, kv_heads=8, head_dim=64, value_dim=64)
    short = replace(long, window=512)
    assert compute.demand(long, 10)[4] == 2 * 128 * 10_000 * 128 * 10
    assert compute.demand(short, 10)[4] == 2 * 128 * (512 + 128) * 128 * 10
    few = replace(long, new=32, past=0)  # a tile is no longer than the prompt
    assert compute.demand(few, 10)[4] == 2 * 32 * 32 * 128 * 10


def test_k5_what_decode_asks_of_a_device() -> None:
    """64 sequences of 4,096 tokens and 8 KV heads on 128 SMs: four blocks an SM; a chain of twice the unit."""
    grouped = DecodeAttention(name="a", batch=64, context=4096, heads=32, kv_heads=8, head_dim=128, value_dim=128, count=2)
    _, flop, scores, queue, chain, passes = compute.demand(grouped, 128)
    assert (flop, scores, queue, chain, passes) == (grouped.flop, 0.0, 64 * 8 / 128 * 2, 2.0 * 2, 0.0)
    latent = LatentDecode(name="a", batch=64, context=4096, heads=16, kv_rank=512, rope_dim=64, count=2)
    assert compute.demand(latent, 128)[3:5] == (64 / 128 * 2, 2.0 * 2)


def test_k2_and_k3_what_products_ask_of_a_device() -> None:
    gemm = Gemm(name="g", m=3, n=5, k=8192, weights="bf16", count=4)
    assert compute.demand(gemm, 1) == (gemm.hbm_bytes, gemm.flop, 0.0, 0.0, 2.0 * 4, 0.0)
    experts = Experts(
        name="e", tokens=10, top_k=2, experts=8, local_experts=4, hidden=100, width=64, matrices=3, weights="bf16", count=4
    )
    *_, chain, passes = compute.demand(experts, 1)
    assert (chain, passes) == (0.0, 2 * 10 * 2 * (2 * 100 + 3 * 64) * 4)  # two bytes, all draws, in and out of each buffer
