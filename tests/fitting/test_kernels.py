"""The fit of the public tables: coefficients that made a table are found again; the shipped files come from the tables."""

from __future__ import annotations

import csv
import gzip
import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

np = pytest.importorskip("numpy", reason="the fit needs the `fit` extra")
pytest.importorskip("scipy", reason="the fit needs the `fit` extra")

from advisor.errors import ProfileError  # noqa: E402
from advisor.roofline.compute import DeviceRates, kernel_s  # noqa: E402
from advisor.roofline.work import DecodeAttention, Gemm, Kernel  # noqa: E402
from advisor.specs.calibration import Calibration, Provenance, Reach  # noqa: E402
from advisor.specs.cluster import Device  # noqa: E402
from advisor.specs.keys import KernelKey, WireKey  # noqa: E402
from advisor.specs.wire import from_data  # noqa: E402
from fitting import kernels, tables  # noqa: E402
from fitting.reach import error_of, fit_reach  # noqa: E402
from fitting.tables import Sample, WireSample  # noqa: E402
from fitting.wires import fit_lines, newest, per_rank  # noqa: E402

ROOT = Path(__file__).parents[2]
MEASURED = ROOT.parent / "shared" / "measured"
needs_tables = pytest.mark.skipif(not MEASURED.is_dir(), reason="the public tables are not shipped: ../shared/measured is absent")


def table(
    key: str, reach: Reach, works: list[Kernel], device: Device, *, factor: float = 1.0, source: str = "engine 1"
) -> list[Sample]:
    """Samples that a device with these coefficients would have given, times a factor, one in four held out."""
    made = Calibration(name="x", device="x", version=1, date="2026-11-21", kernels=((KernelKey.parse(key), reach),), wires=())
    return [
        Sample(
            hardware="x",
            key=key,
            work=work,
            seconds=kernel_s(work, DeviceRates(device, made)) * factor,
            source=source,
            held_out=i % 4 == 0,
        )
        for i, work in enumerate(works)
    ]


def reach(**shape: float) -> Reach:
    return Reach(
        memory=0.8, compute=0.6, launch_s=5e-6, sharpness=3.0, shape=tuple(shape.items()),
        provenance=Provenance(source="by hand", closeness="device"),
    )  # fmt: skip


def gemms() -> list[Kernel]:
    return [
        Gemm(name="g", m=m, n=n, k=k, weights="bf16")
        for m in (1, 16, 64, 256, 1024, 4096, 16384)
        for n in (4096, 8192, 14336)
        for k in (1024, 2048, 4096, 8192)
    ]


def decodes() -> list[Kernel]:
    draw = random.Random(1)
    return [
        DecodeAttention(
            name="a", batch=2 ** draw.randint(0, 9), context=2 ** draw.randint(4, 16), heads=8 * kv, kv_heads=kv, head_dim=128,
            value_dim=128,
        )
        for kv in (1, 2, 4, 8)
        for _ in range(40)
    ]  # fmt: skip


def test_gemm_coefficients_are_found_again(h100: Device) -> None:
    found = fit_reach(table("gemm/bf16", reach(chain_s=3e-6), gemms(), h100), h100, source="made")
    assert found.reach.coefficient("chain_s", 0) == pytest.approx(3e-6, rel=0.3)
    assert found.reach.memory == pytest.approx(0.8, rel=0.02)
    assert found.reach.compute == pytest.approx(0.6, rel=0.02)
    assert found.reach.launch_s == pytest.approx(5e-6, rel=0.1)
    assert found.reach.provenance.median == pytest.approx(0, abs=0.01)
    assert found.reach.provenance.closeness == "device"


def test_decode_coefficients_are_found_again(h100: Device) -> None:
    samples = table("attention_decode/bf16", reach(queue_s=2e-6, chain_s=3e-6), decodes(), h100)
    found = fit_reach(samples, h100, source="made").reach
    assert found.memory == pytest.approx(0.8, rel=0.03)
    assert found.coefficient("queue_s", 0) == pytest.approx(2e-6, rel=0.1)
    assert found.coefficient("chain_s", 0) == pytest.approx(3e-6, rel=0.1)


def test_a_slow_source_is_left_out_and_held_out_shapes_are_not_fitted(h100: Device) -> None:
    good = table("gemm/bf16", reach(), gemms(), h100, source="fast 1")
    slow = table("gemm/bf16", reach(), gemms(), h100, factor=2.0, source="slow 1")
    found = fit_reach([*good, *slow], h100, source="made")
    assert found.sources == ("fast 1",)
    assert found.dropped == ("slow 1",)
    # Held-out rows that are wrong by a half move the residual, not the coefficients.
    wrong = [replace(s, seconds=s.seconds * 1.5) if s.held_out else s for s in good]
    again = fit_reach(wrong, h100, source="made")
    assert again.reach.memory == found.reach.memory
    assert again.reach.provenance.median == pytest.approx(1 / 3, rel=0.02)


def test_error_of_another_devices_coefficients(h100: Device) -> None:
    samples = table("gemm/bf16", reach(), gemms(), h100)
    assert error_of(reach(), ["engine 1"], samples, h100)[0] == pytest.approx(0, abs=1e-6)
    assert error_of(replace(reach(), memory=0.4, compute=0.3), ["engine 1"], samples, h100)[0] > 0.5


def wires(alpha_us: float, share: float, ranks: int, source: str = "NCCL nccl 2.29.2") -> list[WireSample]:
    sizes = [2.0**e for e in range(9, 30)]
    return [
        WireSample(
            hardware="x", op="all_reduce", algorithm="nccl", ranks=ranks, payload_bytes=p, source=source,
            seconds=min(alpha_us * 1e-6 + w / (share / 3), 3 * alpha_us * 1e-6 + w / share),
        )
        for p in sizes
        for w in [2 * p * (ranks - 1) / ranks / 450e9]
    ]  # fmt: skip


def test_two_lines_are_found_again() -> None:
    low, high = fit_lines(wires(15, 0.9, 8), 450e9, source="made")
    assert low.alpha_s == pytest.approx(15e-6, rel=0.02)
    assert low.bandwidth == pytest.approx(0.3, rel=0.05)
    assert high.bandwidth == pytest.approx(0.9, rel=0.02)


def test_newest_version_counts() -> None:
    rows = [*wires(15, 0.9, 8, "NCCL nccl 2.9.1"), *wires(30, 0.9, 8, "NCCL nccl 2.29.2")]
    assert {s.source for s in newest(rows)} == {"NCCL nccl 2.29.2"}


def test_latency_grows_from_one_rank_count_to_the_next() -> None:
    fits = {n: fit_lines(wires(5 + 2 * n, 0.9, n), 450e9, source="made") for n in (2, 4, 8)}
    lines = per_rank(fits)
    assert lines[2][0].alpha_per_rank_s == pytest.approx(2e-6, rel=0.05)
    assert lines[8][0].alpha_per_rank_s == lines[4][0].alpha_per_rank_s


def test_missing_tables_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"cannot read the table .*gemm\.csv\.gz"):
        list(tables.gemms(tmp_path))


def test_the_command_says_it_in_one_sentence_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        kernels.main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_rows_become_work(tmp_path: Path) -> None:
    columns = ["source", "hardware", "op", "m", "n", "k", "dtype", "latency_us", "tflops", "GBs", "notes"]
    rows = [
        [
            "aiconfigurator",
            "l40s",
            "gemm",
            "1",
            "4096",
            "2048",
            "fp8_block",
            "11.5",
            "",
            "",
            "anomaly=odd; vllm 0.24.0 Kernel; more",
        ],
        ["ml-engineering-MAMF", "mi300x", "gemm", "1", "1", "1", "bf16", "", "668.4", "", "best of a scan"],
    ]
    with gzip.open(tmp_path / "gemm.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    (sample,) = tables.gemms(tmp_path)
    assert sample.work == Gemm(name="gemm", m=1, n=4096, k=2048, weights="fp8-block")
    assert sample.seconds == pytest.approx(11.5e-6)
    assert sample.source == "vllm 0.24.0"
    assert list(tables.peak_reach(tmp_path)) == [("mi300x", "bf16", 668.4e12)]


def test_yaml_reads_back(h100: Device) -> None:
    found = fit_reach(table("gemm/bf16", reach(), gemms(), h100), h100, source="made").reach
    made = Calibration(
        name="x", device="x", version=1, date="2026-11-21",
        kernels=((KernelKey("gemm", "bf16"), found), (KernelKey("stream"), kernels.stream_reach(found))),
        wires=tuple((WireKey.parse(key), line) for key, line in kernels.assumed_wires().items()),
    )  # fmt: skip
    assert from_data(yaml.safe_load(kernels.as_yaml(made)), Calibration, origin="x") == made


@needs_tables
def test_the_same_tables_give_the_shipped_file(tmp_path: Path) -> None:
    """The documented command, whole: every file and the report come out as they are shipped."""
    kernels.main([str(MEASURED), "--out", str(tmp_path), "--report", str(tmp_path / "kernels.md")])
    for made in sorted(tmp_path.glob("*.yaml")):
        fitted, shipped = (
            from_data(yaml.safe_load(path.read_text()), Calibration, origin=path.name)
            for path in (made, ROOT / "profiles" / "calibration" / made.name)
        )
        assert [k for k, _ in fitted.kernels] == [k for k, _ in shipped.kernels], made.name
        for (key, a), (_, b) in zip(fitted.kernels, shipped.kernels, strict=True):
            # Another BLAS may end a flat valley elsewhere: what is served must agree, not the last digit.
            assert a.memory == pytest.approx(b.memory, rel=0.05), (made.name, key)
            assert a.provenance.points == b.provenance.points, (made.name, key)
            assert a.provenance.median == pytest.approx(b.provenance.median, abs=0.01), (made.name, key)


def test_held_out_errors_stay_small() -> None:
    """What docs/kernels.md says of held-out shapes, kind by kind, as an upper bound on the median over GPUs."""
    limit = {
        "gemm": 0.09,
        "attention_prefill": 0.13,
        "attention_decode": 0.10,
        "mla_prefill": 0.08,
        "mla_decode": 0.10,
        "experts": 0.16,
        "state_update": 0.12,
        "state_scan": 0.12,
        "index_scores": 0.35,
    }
    found: dict[str, list[float]] = {}
    for path in sorted((ROOT / "profiles" / "calibration").glob("*.yaml")):
        made = from_data(yaml.safe_load(path.read_text()), Calibration, origin=path.name)
        for key, fitted in made.kernels:
            if fitted.provenance.closeness == "device" and fitted.provenance.median is not None:
                found.setdefault(key.kind, []).append(fitted.provenance.median)
    assert set(found) == set(limit)
    for kind, medians in found.items():
        assert np.median(medians) < limit[kind], kind
