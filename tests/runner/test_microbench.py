"""The micro-benchmarks in their tiny form, alone and on two ranks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("torch")

from advisor.measure.ranks import Ranks, run_ranks
from advisor.specs import wire
from advisor.specs.benchmark import BenchJob, Benchmarks

JOB = BenchJob(device="cpu", formats=("fp32", "fp8"), tiny=True, time_limit_s=40, stall_limit_s=60)


def run(ranks: int) -> Benchmarks:
    environment = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    start = Ranks(module="runner.microbench", here=ranks, environment=environment)
    outcome = run_ranks(start, wire.to_json(JOB), time_limit_s=90, progress=lambda _: None)
    assert outcome.reason == ""
    assert outcome.text is not None
    return wire.from_json(outcome.text, Benchmarks, origin="bench")


def test_alone_it_times_kernels_that_are_possible() -> None:
    found = run(0)
    kinds = {kernel.kind for kernel in found.kernels}
    assert kinds == {"copy", "launch", "host_launch", "gemm", "attention_prefill", "attention_decode"}
    assert {k.format for k in found.kernels if k.kind == "gemm"} == {"fp32"}  # a CPU has no fp8 to time
    assert found.wires == ()
    for kernel in found.kernels:
        assert 0 < kernel.low_s <= kernel.median_s <= kernel.high_s < 10
    most = (os.cpu_count() or 1) * 400e9  # AVX-512: 32 fp32 multiply-adds a cycle at 5 GHz, and some
    for kernel in found.kernels:
        if kernel.kind == "gemm":
            assert 2 * kernel.size("m") * kernel.size("n") * kernel.size("k") / kernel.median_s < most
    largest = [k.median_s for k in found.kernels if k.kind == "gemm" and dict(k.sizes) == {"m": 256.0, "n": 1024.0, "k": 1024.0}]
    smallest = [k.median_s for k in found.kernels if k.kind == "gemm" and dict(k.sizes) == {"m": 1.0, "n": 256.0, "k": 256.0}]
    assert largest[0] > 10 * smallest[0]  # 4096 times the work


def test_two_ranks_time_messages_too() -> None:
    found = run(2)
    assert {(wire_time.op, wire_time.ranks, wire_time.nodes) for wire_time in found.wires} == {
        (op, 2, 1) for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p")
    }  # fmt: skip
    assert all(0 < wire_time.median_s < 1 for wire_time in found.wires)
    assert len({wire_time.payload_bytes for wire_time in found.wires}) >= 5
