"""What the clock says of a job's cells on one rank of a CPU: counts that can be done by hand, and files that are whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.errors import MachineError  # noqa: E402
from advisor.specs import wire  # noqa: E402
from advisor.specs.experiment import Cell, Job, Measurement, Timing  # noqa: E402
from advisor.specs.plan import Plan  # noqa: E402
from runner import clocks  # noqa: E402
from runner.clock import Clock, spread_of  # noqa: E402
from runner.failure import FULL_DISK, exit_code, sentence  # noqa: E402
from runner.measure import Bench, scaled, slowest  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.session import depths, measure_job  # noqa: E402

SPEC = model_from_config(
    {**CONFIGS["llama"], "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16}, None, name="t", source="t"
)
DECODE, PREFILL = Cell(phase="decode", batch=2, context_tokens=16), Cell(phase="prefill", batch=1, context_tokens=8)


def job(**changes: object) -> Job:
    base = Job(id="j", model=SPEC, plan=Plan(), cells=(DECODE, PREFILL), device="cpu", warmup=1, repeats=3)
    return replace(base, **changes)  # type: ignore[arg-type]


def bench(asked: Job, mesh: Mesh | None = None) -> Bench:
    return Bench(asked, mesh or Mesh.single(), torch.device("cpu"), layers=0, beat=lambda _: None)


def test_flop_and_bytes_of_a_decode_are_those_counted_by_hand() -> None:
    """Llama of 3 layers, D 64, H 4, K 2, d 16, F 96, V 151 (head padded to 192), fp32, B 2, S 16."""
    timing = bench(job()).time(DECODE, most_s=5)
    assert timing is not None
    assert timing.repeats >= 3
    assert 0 < timing.low_s <= timing.median_s <= timing.high_s
    layer = 64 * (4 + 2 + 2) * 16 + 64 * 64 + 3 * 64 * 96
    linear = 2 * 2 * (3 * layer + 192 * 64)
    attention = 3 * 2 * 2 * 4 * 16 * 16 * 2  # layers, 2 flop, B, H, S, d, scores and values
    assert timing.achieved_flop_per_s * timing.median_s == pytest.approx(linear + attention, rel=0.02)
    norms = (2 * 3 + 1) * 64
    cache = 2 * 3 * 2 * 16 * 16 * 2  # B, layers, K, S, d, keys and values
    read = 4 * (3 * layer + 192 * 64 + norms + cache)
    assert timing.achieved_bytes_per_s * timing.median_s == pytest.approx(read, rel=0.02)


def test_a_job_alone_leaves_a_whole_measurement(tmp_path: Path) -> None:
    beats: list[str] = []
    measure_job(job(), tmp_path / "out.json", 0, beats.append)
    found = wire.from_json((tmp_path / "out.json").read_bytes(), Measurement, origin="out")
    assert found.status == "ok"
    assert found.reason == ""
    assert {t.cell for t in found.timings} == {DECODE, PREFILL}
    assert found.weights_bytes > 0
    assert found.device_name == "cpu"
    assert found.software.startswith("torch ")
    assert any("decode of 2 x 16" in beat for beat in beats)
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_shard_alone_measures_one_rank_of_eight(tmp_path: Path) -> None:
    """tp=2 of the same model: half the heads, half the feed-forward, half the vocabulary, nobody to talk to."""
    whole = bench(job()).time(DECODE, most_s=5)
    shard = job(plan=Plan(tp=2, pp=1), shard=True)
    half = bench(shard, Mesh.shard(shard.plan, 0)).time(DECODE, most_s=5)
    assert whole is not None
    assert half is not None
    ratio = (half.achieved_flop_per_s * half.median_s) / (whole.achieved_flop_per_s * whole.median_s)
    assert ratio == pytest.approx(0.5, rel=0.05)
    measure_job(shard, tmp_path / "out.json", 0, lambda _: None)
    assert json.loads((tmp_path / "out.json").read_text())["status"] == "ok"


def test_a_stage_alone_without_embedding_or_head_runs_too(tmp_path: Path) -> None:
    measure_job(job(plan=Plan(pp=3), shard=True, shard_rank=1), tmp_path / "out.json", 0, lambda _: None)
    found = wire.from_json((tmp_path / "out.json").read_bytes(), Measurement, origin="out")
    assert found.status == "ok"
    assert len(found.timings) == 2


def test_layers_are_scaled_from_two_depths(tmp_path: Path) -> None:
    def timing(median_s: float) -> Timing:
        return Timing(
            cell=DECODE, median_s=median_s, low_s=median_s * 0.99, high_s=median_s * 1.01, repeats=5, achieved_flop_per_s=1,
            achieved_bytes_per_s=1,
        )  # fmt: skip

    # 1 ms apart from the layers and 0.5 ms each: 2 layers 2 ms, 4 layers 3 ms, 80 layers 41 ms.
    found = scaled(timing(2e-3), timing(3e-3), fewer=2, more=4, layers=80)
    assert found.median_s == pytest.approx(41e-3)
    assert found.high_s - found.low_s > 0.02 * 3e-3 * 38  # the spread grows with what was not measured
    assert "80 layers scaled from 2 and 4: 0.5 ms a layer, 1 ms apart" in found.notes
    assert depths(job(layers=8, plan=Plan(pp=2))) == (4, 8)
    assert depths(job(layers=1, plan=Plan(pp=2))) == (2, 4)
    measure_job(job(layers=2), tmp_path / "out.json", 0, lambda _: None)
    assert "3 layers scaled from 1 and 2" in (tmp_path / "out.json").read_text()


def test_time_that_is_up_leaves_the_rest_out(tmp_path: Path) -> None:
    measure_job(job(time_limit_s=0.0), tmp_path / "out.json", 0, lambda _: None)
    found = wire.from_json((tmp_path / "out.json").read_bytes(), Measurement, origin="out")
    assert found.status == "failed"
    assert found.timings == ()
    assert "2 cells were left out: the time was up" in found.notes


def test_medians_and_the_middle_of_the_samples() -> None:
    found = spread_of([5.0, 1.0, 3.0, 2.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    assert (found.low_s, found.median_s, found.high_s) == (2.0, 6.0, 10.0)


def test_repeats_shrink_to_the_time_there_is_but_never_below_three() -> None:
    import time

    clock = Clock(torch.device("cpu"), alone=True)
    found = clock.spread(lambda: time.sleep(0.02), warmup=1, repeats=50, most_s=0.1)
    assert 3 <= found.repeats <= 6


def test_clocks_held_down_and_others_on_the_gpu_are_noticed() -> None:
    calm = clocks.Reading(sm_mhz=1900, most_mhz=1980, throttled=(), others_bytes=0)
    hot = clocks.Reading(sm_mhz=1200, most_mhz=1980, throttled=("heat",), others_bytes=0)
    busy = clocks.Reading(sm_mhz=1900, most_mhz=1980, throttled=(), others_bytes=9 * 2**30)
    assert clocks.notes(calm, calm) == ()
    assert clocks.notes(None, None) == ()
    assert clocks.notes(calm, hot) == ("clocks were held down (heat): 1200 of 1980 MHz",)
    assert "another process holds 9.0 GiB" in clocks.notes(busy, calm)[0]


def test_nvml_is_read_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types
    from types import SimpleNamespace

    class NVMLError(Exception):
        pass

    nvml = types.ModuleType("pynvml")
    refused = {"nvmlDeviceGetComputeRunningProcesses"}

    def answer(name: str, value: object) -> None:
        def call(*_: object) -> object:
            if name in refused:
                raise NVMLError(name)
            return value

        setattr(nvml, name, call)

    nvml.NVMLError, nvml.NVML_CLOCK_SM = NVMLError, 1  # type: ignore[attr-defined]
    for name, value in (
        ("nvmlInit", None), ("nvmlDeviceGetHandleByUUID", "gpu"), ("nvmlDeviceGetClockInfo", 1000),
        ("nvmlDeviceGetMaxClockInfo", 1980),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", 0x4 | 0x40), ("nvmlSystemGetDriverVersion", "570.1"),
        ("nvmlDeviceGetComputeRunningProcesses", [SimpleNamespace(pid=1, usedGpuMemory=2**30)]),
    ):  # fmt: skip
        answer(name, value)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    gpu = clocks.Gpu("abc")
    reading = gpu.read()
    assert reading == clocks.Reading(sm_mhz=1000, most_mhz=1980, throttled=("power cap", "heat"), others_bytes=0)
    refused.clear()
    assert gpu.read() == replace(reading, others_bytes=float(2**30))
    assert gpu.driver() == "570.1"
    refused.add("nvmlInit")
    assert clocks.Gpu("abc").read() is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), "ran out of memory: CUDA out of memory."),
        (RuntimeError("CUDA error: unspecified launch failure"), "lost its GPU"),
        (RuntimeError("The server socket has failed to bind: EADDRINUSE"), "found its port in use"),
        (OSError(28, "No space left on device", "/tmp/x"), "could not write"),
        (MachineError("the ranks did not find each other: x"), "the ranks did not find each other: x"),
        (ValueError(""), "failed: ValueError: ValueError"),
    ],
)
def test_a_failure_is_a_sentence(error: Exception, words: str) -> None:
    assert sentence(error).startswith(words)
    assert "\n" not in sentence(error)


def test_a_full_disk_has_an_exit_code_of_its_own() -> None:
    assert exit_code(OSError(28, "No space left on device")) == FULL_DISK
    assert exit_code(OSError(2, "No such file")) == 1


# Cells as engines run them, and what is said when something is not as it should be.


def test_mixed_lengths_and_a_piece_of_a_prompt_are_timed_and_counted() -> None:
    mixed = Cell(phase="decode", batch=3, context_tokens=16, mixed_lengths=True)
    piece = Cell(phase="mixed", batch=2, context_tokens=16, chunk_tokens=8)
    found = bench(job())
    assert found._contexts(mixed, 3) == (8, 16, 24)
    even, spread, both = (found.time(cell, most_s=5) for cell in (replace(mixed, mixed_lengths=False), mixed, piece))
    assert even is not None
    assert spread is not None
    assert both is not None
    assert spread.achieved_bytes_per_s * spread.median_s == pytest.approx(even.achieved_bytes_per_s * even.median_s)
    alone = found.time(DECODE, most_s=5)
    assert alone is not None
    assert both.achieved_flop_per_s * both.median_s > 3 * alone.achieved_flop_per_s * alone.median_s  # 10 tokens instead of 2


def test_a_measured_run_is_never_under_a_dispatch_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """One around the first call would keep torch.compile from ever compiling that code."""
    from torch.utils import flop_counter

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("counted by a dispatch mode")

    monkeypatch.setattr(flop_counter.FlopCounterMode, "__enter__", forbidden)
    assert bench(job()).time(DECODE, most_s=5) is not None
    assert bench(job()).time(PREFILL, most_s=5) is not None


def test_where_nothing_was_compiled_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from runner import measure

    on_gpu = bench(job())
    monkeypatch.setattr(on_gpu, "device", SimpleDevice("cuda"))
    monkeypatch.setattr(measure, "why_not", lambda _: "no C compiler")
    assert on_gpu._compiles() is False
    assert on_gpu.notes == ["ran without torch.compile, which costs time between the matrix products: no C compiler"]
    monkeypatch.setattr(measure, "why_not", lambda _: "")
    assert on_gpu._compiles() is True
    on_cpu = bench(job())
    on_cpu.compiled = True  # asked for, and the model was built plain
    monkeypatch.setattr(measure, "compiled_graphs", lambda: 0)
    timing = on_cpu.time(DECODE, most_s=5)
    assert timing is not None
    assert "torch.compile was asked for and compiled nothing: the step ran kernel by kernel" in timing.notes


class SimpleDevice:
    def __init__(self, kind: str) -> None:
        self.type = kind


def test_memory_that_runs_out_in_the_activations_costs_the_cell_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the end of a broken capture hides the allocator's error."""
    real = Bench._timed

    def timed(self: Bench, cell: Cell, most_s: float) -> Timing | None:
        if cell != PREFILL:
            return real(self, cell, most_s)
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(Bench, "_timed", timed)
    measure_job(job(), tmp_path / "out.json", 0, lambda _: None)
    found = wire.from_json((tmp_path / "out.json").read_bytes(), Measurement, origin="out")
    assert found.status == "ok"
    assert {t.cell for t in found.timings} == {DECODE}
    assert "prefill of 1 x 8 tokens does not fit in memory" in found.notes
    among_others = bench(job())
    among_others.clock.alone = False  # the others wait in a collective: the job ends, with a sentence
    with pytest.raises(
        MachineError, match=r"ran out of memory in the activations of prefill of 1 x 8 tokens: CUDA out of memory\."
    ):
        among_others.time(PREFILL, most_s=5)


def test_other_errors_are_not_taken_for_a_full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Bench, "_timed", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        bench(job()).time(PREFILL, most_s=5)


def test_filling_the_weights_is_progress(tmp_path: Path) -> None:
    """Every tensor beats: a slow disk is not a stall."""
    beats: list[str] = []
    Bench(job(), Mesh.single(), torch.device("cpu"), layers=0, beat=beats.append)
    assert sum(beat.startswith("filling ") for beat in beats) > 3 * len(SPEC.layers)
    assert "filling layers.0.attention.q.weight" in beats


def test_a_rank_that_holds_the_others_up_is_named() -> None:
    assert slowest([1.00, 1.01, 1.02]) == ()
    assert slowest([1.00, 1.01, 1.25]) == (
        "rank 2 is 25% slower than the fastest at the same product: every collective waits for it",
    )
