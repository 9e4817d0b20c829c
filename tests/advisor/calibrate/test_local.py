"""Micro-benchmarks into a calibration: made-up machines whose coefficients are known are found again."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.calibrate.local import (
    bound_rates,
    copy_bytes_per_s,
    cpu_cluster,
    cpu_engine,
    descend,
    fit,
    matmul_flop_per_s,
    refined,
    work_of,
)
from advisor.catalog.calibrations import load_calibration, read_calibration, write_calibration
from advisor.catalog.engines import load_engine
from advisor.catalog.machines import load_cluster
from advisor.errors import ProfileError
from advisor.roofline.compute import DeviceRates, kernel_s
from advisor.specs.benchmark import Benchmarks, KernelTime, WireTime
from advisor.specs.calibration import Calibration, WireReach
from advisor.specs.cluster import Cluster
from advisor.specs.keys import KernelKey, WireKey

GEMM = KernelKey("gemm", "bf16")
SHAPES = [(m, n, k) for m in (1, 16, 128, 1024, 8192) for n, k in ((4096, 4096), (28672, 4096), (8192, 8192))]


def bench(box: Cluster, truth: Calibration, *, copy: float = 0.9, slower: float = 1.0) -> Benchmarks:
    """What a machine with these coefficients would answer."""

    def timed(kind: str, number_format: str, sizes: dict[str, float]) -> KernelTime:
        sample = KernelTime(
            kind=kind,
            format=number_format,
            sizes=tuple(sorted(sizes.items())),
            median_s=1.0,
            low_s=1.0,
            high_s=1.0,  # type: ignore[arg-type]
        )
        work = work_of(sample)
        assert work is not None
        seconds = kernel_s(work, DeviceRates(box.device, truth)) * slower
        return replace(sample, median_s=seconds, low_s=seconds, high_s=seconds)

    kernels = [timed("gemm", "bf16", {"m": m, "n": n, "k": k}) for m, n, k in SHAPES]
    heads = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0}
    kernels += [timed("attention_decode", "bf16", {"batch": b, "tokens": 4096, **heads}) for b in (1, 16, 64)]
    size = 4e9
    seconds = size / (copy * box.device.memory_bytes_per_s)
    kernels.append(KernelTime(kind="copy", format="", sizes=(("bytes", size),), median_s=seconds, low_s=seconds, high_s=seconds))
    kernels.append(KernelTime(kind="launch", format="", sizes=(), median_s=2e-6, low_s=2e-6, high_s=2e-6))
    kernels.append(KernelTime(kind="host_launch", format="", sizes=(), median_s=5e-6, low_s=5e-6, high_s=5e-6))
    wires = tuple(
        WireTime(op="all_reduce", algorithm="nccl", ranks=4, nodes=1, payload_bytes=p, median_s=12e-6 + 1.5 * p / 300e9)
        for p in (2.0**e for e in range(10, 28, 2))
    )
    return Benchmarks(
        version=1, device_name="NVIDIA H100 80GB HBM3", driver="570.1", software="torch 2.13", clocks="1900 of 1980 MHz",
        date="2026-11-21T10:00:00+00:00", memory_bytes=80e9, kernels=tuple(kernels), wires=wires,
    )  # fmt: skip


@pytest.fixture
def box() -> Cluster:
    return load_cluster(gpu="h100-80g-sxm", gpus=8)


@pytest.fixture
def shipped(box: Cluster) -> Calibration:
    return load_calibration(box.device, local=False)


def with_gemm(calibration: Calibration, **changes: float) -> Calibration:
    kernels = dict(calibration.kernels)
    kernels[GEMM] = replace(kernels[GEMM], **changes)  # type: ignore[arg-type]
    return replace(calibration, kernels=tuple(kernels.items()))


def test_a_slower_machine_is_found(box: Cluster, shipped: Calibration) -> None:
    """A card at 80% of the usual memory reach and 70% of the compute reach: times come out within 3%."""
    usual = dict(shipped.kernels)[GEMM]
    truth = with_gemm(shipped, memory=0.8 * usual.memory, compute=0.7 * usual.compute)
    found = fit(bench(box, truth), shipped, box)
    ours = dict(found.calibration.kernels)[GEMM]
    assert ours.memory == pytest.approx(0.8 * usual.memory, rel=0.05)
    assert ours.compute == pytest.approx(0.7 * usual.compute, rel=0.05)
    assert ours.provenance.closeness == "device"
    assert ours.provenance.points == len(SHAPES)
    assert ours.provenance.median is not None
    assert ours.provenance.median < 0.03
    row = next(part for part in found.fitted if part.key == "gemm/bf16")
    assert row.before is not None
    assert row.before > 0.15  # the shipped ones were that far off
    assert row.after < 0.03


def test_attention_of_torch_does_not_replace_the_engines_own(box: Cluster, shipped: Calibration) -> None:
    found = fit(bench(box, shipped, slower=1.5), shipped, box)
    assert (
        dict(found.calibration.kernels)[KernelKey("attention_decode", "bf16")]
        == dict(shipped.kernels)[KernelKey("attention_decode", "bf16")]
    )
    assert [part.key for part in found.left_as_shipped] == ["attention_decode/bf16"]
    assert found.left_as_shipped[0].after == pytest.approx(1 - 1 / 1.5, rel=0.01)


def test_copies_launches_and_messages_take_their_places(box: Cluster, shipped: Calibration) -> None:
    found = fit(bench(box, shipped, copy=0.85), shipped, box).calibration
    stream = dict(found.kernels)[KernelKey("stream")]
    assert stream.memory == pytest.approx(0.85)
    assert stream.launch_s == pytest.approx(2e-6)
    lines = [line for key, line in found.wires if replace(key, line=0) == WireKey("all_reduce", "nccl", "nvswitch", 4)]
    rate = box.device.link_bytes_per_s
    for payload in (2.0**10, 2.0**26):
        met = min(line.alpha_s + 1.5 * payload / (rate * line.bandwidth) for line in lines)
        assert met == pytest.approx(12e-6 + 1.5 * payload / 300e9, rel=0.12)
    eight = {key: line for key, line in found.wires if (key.link, key.ranks) == ("nvswitch", 8)}
    assert eight == {key: line for key, line in shipped.wires if (key.link, key.ranks) == ("nvswitch", 8)}  # not measured here


def test_an_engines_kernel_goes_on_where_our_samples_end(box: Cluster, shipped: Calibration) -> None:
    """Samples up to 256 KiB, and a shipped line up to 8 MiB: a message of 4 MiB is still summed by that kernel, not by NCCL's, and
    below the end the samples decide.
    """
    link, rate = WireKey("all_reduce", "custom", "nvswitch", 8), box.device.link_bytes_per_s
    usual = WireReach(
        alpha_s=6e-6, alpha_per_rank_s=0.0, bandwidth=0.3, up_to_bytes=8 * 2.0**20, provenance=shipped.wires[0][1].provenance
    )
    others = tuple((key, line) for key, line in shipped.wires if replace(key, line=0) != link)
    base = replace(shipped, wires=(*others, (link, usual)))

    def took(payload: float) -> float:
        return 9e-6 + 1.75 * payload / (rate * 0.5)

    wires = tuple(
        WireTime(op="all_reduce", algorithm="custom", ranks=8, nodes=1, payload_bytes=p, median_s=took(p))
        for p in (2.0**e for e in range(10, 20, 2))
    )
    found = fit(replace(bench(box, shipped), wires=wires), base, box).calibration
    lines = [line for key, line in found.wires if replace(key, line=0) == link]

    def met(payload: float) -> float:
        return min(x.alpha_s + 1.75 * payload / (rate * x.bandwidth) for x in lines if payload <= x.up_to_bytes)

    assert max(line.up_to_bytes for line in lines) == 8 * 2.0**20
    for sample in wires:
        assert met(sample.payload_bytes) == pytest.approx(sample.median_s, rel=0.12)
    assert met(4 * 2.0**20) >= met(2.0**18)


def test_a_step_is_bounded_by_what_the_calibration_reaches(box: Cluster, shipped: Calibration) -> None:
    copy, products = bound_rates(shipped, box.device, "bf16")
    assert copy == pytest.approx(3.35e12 * dict(shipped.kernels)[KernelKey("stream")].memory)
    assert products == pytest.approx(989e12 * dict(shipped.kernels)[GEMM].compute, rel=0.01)
    assert bound_rates(shipped, box.device, "q4_k_m")[1] == 0.0  # no such product is known


def test_the_file_says_what_it_was_made_on_and_is_read_back(box: Cluster, shipped: Calibration, tmp_path: Path) -> None:
    found = fit(bench(box, shipped), shipped, box).calibration
    path = tmp_path / "here.yaml"
    write_calibration(found, path)
    back = read_calibration(path, box.device)
    assert back == found
    assert back.name == "h100-80g-sxm, measured here"
    said = " ".join(back.notes)
    for word in ("NVIDIA H100 80GB HBM3", "driver 570.1", "1900 of 1980 MHz", "2026-11-21", "copy 3.0"):
        assert word in said, word
    assert [p.name for p in tmp_path.iterdir()] == ["here.yaml"]
    lines = path.read_text().splitlines(keepends=True)
    for kept in range(1, len(lines), 7):  # cut between two entries, half a file is whole YAML
        path.write_text("".join(lines[:kept]))
        with pytest.raises(ProfileError):
            read_calibration(path, box.device)


def test_rates_that_bound_everything(box: Cluster, shipped: Calibration) -> None:
    found = bench(box, shipped)
    assert copy_bytes_per_s(found) == pytest.approx(0.9 * 3.35e12)
    assert 0.5 * 989e12 < matmul_flop_per_s(found, "bf16") < 989e12
    assert matmul_flop_per_s(found, "fp8") == 0.0


def test_a_cpu_is_its_own_data_sheet(box: Cluster, shipped: Calibration) -> None:
    found = replace(bench(box, shipped), device_name="cpu")
    cluster = cpu_cluster(found, 4)
    assert cluster.gpus == 4
    assert cluster.device.memory_bytes_per_s == pytest.approx(0.9 * 3.35e12)
    assert cluster.node.default_link.bytes_per_s == pytest.approx(300e9, rel=0.1)
    engine = cpu_engine(load_engine("runner"), found)
    assert engine.graphs_up_to == 0
    assert engine.host.kernel_s == pytest.approx(5e-6)


def test_runs_move_a_scale_by_less_than_they_say(shipped: Calibration) -> None:
    """One plan 20% slower than predicted: x 1.2^(1 / (1 + (0.1 / 0.25)^2)) = 1.17; four such plans: closer to 1.2."""
    one = dict(refined(shipped, [("decode", 1.2)]).scales)
    assert one["decode"] == pytest.approx(1.2 ** (1 / (1 + (0.1 / 0.25) ** 2)), rel=1e-3)
    assert "prefill" not in one
    four = dict(refined(shipped, [("decode", 1.2)] * 4).scales)
    assert one["decode"] < four["decode"] < 1.2


@given(st.lists(st.floats(0.3, 3.0), min_size=1, max_size=6))
def test_a_refined_scale_lies_between_one_and_the_mean(ratios: list[float]) -> None:
    calibration = Calibration(name="x", device="x", version=1, date="", kernels=(), wires=())
    scale = math.log(dict(refined(calibration, [("decode", r) for r in ratios]).scales)["decode"])
    mean = sum(math.log(r) for r in ratios) / len(ratios)
    assert min(0.0, mean) - 1e-3 <= scale <= max(0.0, mean) + 1e-3


@settings(max_examples=30)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_the_search_finds_the_bottom_of_a_bowl(a: float, b: float) -> None:
    def bowl(x: object) -> float:
        p, q = x  # type: ignore[misc]
        return float((p - a) ** 2 + 2 * (q - b) ** 2 + 0.3 * (p - a) * (q - b))

    found = descend(bowl, [0.0, 0.0], step=0.5)
    assert found == pytest.approx([a, b], abs=0.02)
