"""`advisor validate` and `advisor calibrate` as they are typed: what they answer, keep, take up again and refuse."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import CONFIGS

from advisor.api import machine_here, measuring
from advisor.cli.app import run
from advisor.measure.campaign import Measured, Torch
from advisor.measure.jobs import SUITE_BATCHES
from advisor.measure.load_result import COLUMNS
from advisor.specs.benchmark import Benchmarks, KernelTime, WireTime
from advisor.specs.experiment import Job, Measurement, Timing

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's own files are read or written."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({**CONFIGS["llama"], "architectures": ["LlamaForCausalLM"]}))
    return str(path)


def kernel(kind: str, number_format: str, seconds: float, **sizes: float) -> KernelTime:
    return KernelTime(
        kind=kind,
        format=number_format,
        sizes=tuple(sizes.items()),
        median_s=seconds,
        low_s=seconds,
        high_s=seconds,  # type: ignore[arg-type]
    )


def cpu_rates(**_: Any) -> Benchmarks:
    """A CPU of 20 GB/s and 50 GFLOP/s, as the micro-benchmarks would say."""
    gemms = [
        kernel("gemm", "fp32", 1e-5 + max(2 * m * n * k / 50e9, 4 * n * k / 20e9), m=m, n=n, k=k)
        for m in (1, 16, 256) for n, k in ((256, 256), (1024, 1024))
    ]  # fmt: skip
    wires = tuple(
        WireTime(op=op, algorithm="nccl", ranks=2, nodes=1, payload_bytes=p, median_s=1e-4 + p / 1e9)
        for op in ("all_reduce", "all_gather", "p2p") for p in (1024.0, 65536.0, 1048576.0)
    )  # fmt: skip
    rest = (kernel("copy", "", 2e-3, bytes=40e6), kernel("launch", "", 3e-6), kernel("host_launch", "", 3e-6))
    return Benchmarks(
        version=1, device_name="cpu", driver="", software="torch", clocks="", date="2026-11-21", memory_bytes=4e9,
        kernels=(*gemms, *rest), wires=wires,
    )  # fmt: skip


@pytest.mark.timeout(200)
def test_a_new_user_measures_a_plan_and_the_next_call_goes_on(
    config: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine_here, "benchmarks", cpu_rates)
    command = [
        "validate", "--model", config, "--device", "cpu", "--gpus", "2", "--plan", "tp=2", "--input-tokens", "24",
        "--output-tokens", "16", "--users", "2", "--repeats", "3", "--cells",
    ]  # fmt: skip
    assert run(command) == 0
    out, err = capsys.readouterr()
    assert "[1/1] tp=2,pp=1,dp=1: 2 ranks" in err
    assert "decode of 2 x 32 tokens: " in err
    kept = next((home / "state").rglob("*.json"))
    assert f"Kept in {kept}." in err
    for words in ("A CPU stands in for the GPUs", "TTFT", "TPOT", "decode tokens/s", "Fewer than two plans", "step by step"):
        assert words in out
    assert all(len(line) <= 110 for line in out.splitlines())
    assert run([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "measured before" in err
    answer = json.loads(out)
    assert answer["plans"][0]["resumed"] is True
    assert answer["plans"][0]["tpot_s"]["measured"] > 0
    assert answer["order"]["held"] is None
    assert len(answer["plans"][0]["cells"]) >= 3


def test_without_a_gpu_cuda_is_refused_in_a_sentence(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine_here, "ask_torch", lambda: Torch(version="2.13", gpus=0, names=()))
    assert run(["validate", "--model", config, "--input-tokens", "24", "--output-tokens", "16"]) == 3
    assert capsys.readouterr().err == (
        "advisor: torch 2.13 sees no GPU here: install a build for the driver, or try the program with --device cpu.\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no model was named"),
        (["--model", "8b", "--device", "tpu"], "unknown --device 'tpu', nearest is cpu; use cuda or cpu"),
        (["--model", "8b", "--schedule", "zigzag"], "unknown --schedule 'zigzag'"),
        (["--model", "8b", "--exchange", "post"], "unknown --exchange 'post'; use all_gather or all_to_all"),
        (["--model", "8b", "--exchange", "all_to_all", "--refine"], "compares plans on the bundled transformer; leave it out"),
        (["--model", "8b", "--time-limit", "600"], "--time-limit '600' is not a time with a unit"),
        (["--model", "8b", "--stall-limit", "0s"], "give at least 1s"),
        (["--model", "8b", "--plan", "tp=two"], "cannot read 'tp=two'"),
        (["--model", "8b", "--nodes", "2"], "--node-rank 0, 1, ... and --master HOST:PORT"),
        (["--model", "8b", "--nodes", "2", "--master", "h:1", "--node-rank", "2"], "beyond the 2 nodes"),
        (["--model", "8b", "--node-rank", "1"], "say --nodes too"),
        (["--model", "8b", "--endpoint", "nowhere", "--plan", "tp=2"], "is not an address of a server"),
        (["--model", "8b", "--endpoint", "http://h:1"], "say with --plan which plan it runs"),
        (["--model", "8b", "--engine", "vllm", "--tool", "ab"], "unknown load tool 'ab'"),
    ],
)
def test_a_bad_question_is_one_sentence(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_the_exchange_reaches_the_job_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan without attention-DP keeps all_gather beside one that has it, and alone is refused."""
    config = tmp_path / "moe.json"
    config.write_text(json.dumps({**CONFIGS["qwen3 moe"], "architectures": ["Qwen3MoeForCausalLM"]}))
    jobs: list[Job] = []

    def measured(asked: list[Job], *_: Any, **__: Any) -> tuple[list[Measured], bool]:
        jobs.extend(asked)
        return [], True

    monkeypatch.setattr(machine_here, "benchmarks", cpu_rates)
    monkeypatch.setattr(measuring, "run_all", measured)
    command = [
        "validate", "--model", str(config), "--device", "cpu", "--gpus", "2", "--input-tokens", "24", "--output-tokens", "16",
        "--exchange", "all_to_all", "--plan", "tp=2",
    ]  # fmt: skip
    assert run(command) == 2
    assert "no plan here can exchange tokens by all_to_all" in capsys.readouterr().err
    run([*command, "--plan", "adp=2,ep=2"])
    out = capsys.readouterr().out
    assert [(job.plan.adp, job.exchange) for job in jobs] == [(1, "all_gather"), (2, "all_to_all")]
    assert "the predictions are of all_gather" in " ".join(out.split())
    assert "having no other exchange: tp=2,pp=1,dp=1." in " ".join(out.split())


def test_the_suite_prints_a_table_with_the_bounds_of_the_same_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An H200 at 3.9 of its 4.2 TB/s in everything; the 70B is one rank of eight."""
    rates = replace(
        cpu_rates(), device_name="NVIDIA H200",
        kernels=(kernel("copy", "", 1e-3, bytes=4.2e9), kernel("gemm", "bf16", 1e-3, m=8192, n=8192, k=5000)),
    )  # fmt: skip
    jobs: list[Job] = []

    def measured(asked: list[Job], *_: Any, **__: Any) -> tuple[list[Measured], bool]:
        job = asked[0]
        jobs.append(job)
        timings = tuple(
            Timing(
                cell=c, median_s=1e-2, low_s=1e-2, high_s=1e-2, repeats=10, achieved_flop_per_s=5e14, achieved_bytes_per_s=3.9e12
            )
            for c in job.cells
        )  # fmt: skip
        measurement = Measurement(
            job_id=job.id, plan=job.plan, status="ok", reason="", timings=timings, kv_tokens=10**6, weights_bytes=1e9,
            device_name="NVIDIA H200", driver="570", software="torch", date="2026-11-21",
        )  # fmt: skip
        return [Measured(job=job, measurement=measurement, resumed=False)], True

    monkeypatch.setattr(measuring, "run_all", measured)
    monkeypatch.setattr(measuring, "benchmarks", lambda **_: rates)
    monkeypatch.setattr(measuring, "ask_torch", lambda: Torch(version="2.13", gpus=1, names=("NVIDIA H200",)))
    assert run(["validate", "--suite", "--offline"]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 4 * (len(SUITE_BATCHES) + 3 + 2)
    assert "copy 4.2 TB/s" in out
    assert "matrix products up to 671 TFLOP/s" in out
    assert all(row.endswith(" 93% |") for row in rows)  # 3.9 of 4.2 TB/s
    assert [job.shard for job in jobs] == [False, False, False, True]
    assert "A plan of more ranks than GPUs here is one rank of it" in out


# calibrate


def row(**values: str) -> dict[str, str]:
    base = {
        "id": "mine-1", "source": "own run", "hardware": "h100-80g-sxm", "gpus": "8", "nodes": "1", "engine": "vllm",
        "engine_version": "0.33", "model": "meta-llama/Llama-3.1-70B", "weight_dtype": "bf16", "kv_dtype": "bf16", "tp": "8",
        "pp": "1", "dp": "1", "ep": "1", "input_tokens": "1024", "output_tokens": "512", "mode": "closed_loop", "load": "16",
        "tpot_s": "0.025",
    }  # fmt: skip
    return dict.fromkeys(COLUMNS, "") | base | values


def points(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def tpot(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    capsys.readouterr()
    assert (
        run(["estimate", "--model", "70b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--plan", "tp=8", "--users", "16", "--json"])
        == 0
    )
    found: dict[str, float] = json.loads(capsys.readouterr().out)["tpot_s"]
    return found


def test_one_own_run_moves_the_prediction_and_narrows_no_bar(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tpot(capsys)
    slower = f"{before['value'] * 1.3:.6f}"
    file = points(home / "mine.csv", row(tpot_s=slower), row(id="too-fast", tpot_s="0.0001", load="1", mode="single_stream"))
    assert run(["calibrate", "--from", str(file)]) == 0
    out, err = capsys.readouterr()
    assert "1 row counted: mine-1" in out
    assert "too-fast" in out
    assert "is faster than memory" in out
    path = home / "config" / "advisor" / "calibration" / "h100-80g-sxm.yaml"
    assert f"Kept in {path}" in err
    after = tpot(capsys)
    assert before["value"] * 1.05 < after["value"] < before["value"] * 1.3
    assert after["high"] / after["low"] == pytest.approx(before["high"] / before["low"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows with a `hardware` column"),
        ("a,b\n1,2\n", "has no rows with a `hardware` column"),
        ("\x00\xff", "has no rows with a `hardware` column"),
    ],
)
def test_a_file_that_is_no_points_is_refused(text: str, words: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "x.csv"
    path.write_text(text, encoding="utf-8")
    assert run(["calibrate", "--from", str(path)]) == 2
    assert words in capsys.readouterr().err
    assert not (home / "config").exists()


def test_rows_that_do_not_count_change_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = points(home / "mine.csv", row(id="impossible", tpot_s="0.0001"))
    assert run(["calibrate", "--from", str(file)]) == 2
    assert "no row of" in capsys.readouterr().err
    assert not (home / "config").exists()


def test_rows_of_two_gpus_ask_which(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = points(home / "mine.csv", row(), row(id="mine-2", hardware="l40s"))
    assert run(["calibrate", "--from", str(file)]) == 2
    assert "say with --gpu whose calibration to correct" in capsys.readouterr().err
    assert run(["calibrate", "--from", str(home / "none.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_cpu_is_calibrated_but_not_kept_unasked(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine_here, "benchmarks", cpu_rates)
    assert run(["calibrate", "--device", "cpu", "--gpus", "2"]) == 0
    out, err = capsys.readouterr()
    assert "gemm/fp32" in out
    assert "Not kept" in err
    assert not (home / "config").exists()
    assert run(["calibrate", "--device", "cpu", "--gpus", "2", "--out", str(home / "cpu.yaml")]) == 0
    assert os.path.getsize(home / "cpu.yaml") > 1000


def test_micro_benchmarks_of_the_gpu_here_are_taken_up_by_recommend(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An H100 whose matrix products take half as long again as the sheet of calibrations says."""
    gemms = [
        kernel("gemm", "bf16", 1.5 * max(2 * m * n * k / 750e12, 2 * n * k / 2.8e12) + 4e-6, m=m, n=n, k=k)
        for m in (1, 16, 128, 1024, 8192) for n, k in ((4096, 4096), (8192, 8192), (28672, 4096))
    ]  # fmt: skip
    rates = replace(
        cpu_rates(), device_name="NVIDIA H100 80GB HBM3", driver="570.1", clocks="1900 of 1980 MHz", wires=(),
        kernels=(*gemms, kernel("copy", "", 1e-3, bytes=2e9), kernel("launch", "", 1.5e-6)),
    )  # fmt: skip
    monkeypatch.setattr(machine_here, "benchmarks", lambda **_: rates)
    monkeypatch.setattr(machine_here, "ask_torch", lambda: Torch(version="2.13", gpus=1, names=("NVIDIA H100 80GB HBM3",)))
    before = tpot(capsys)
    assert run(["calibrate"]) == 0
    out, err = capsys.readouterr()
    assert "driver 570.1" in out
    assert "`advisor recommend` takes it from there by itself" in err
    assert tpot(capsys)["value"] > 1.15 * before["value"]
    assert run(["recommend", "--model", "70b", "--gpu", "h100-80g-sxm", "--gpus", "8"]) == 0
    assert "h100-80g-sxm, measured here" in capsys.readouterr().out.replace("\n  ", " ")


VLLM_RESULT = {
    "completed": 128, "failed": 2, "total_input_tokens": 131072, "total_output_tokens": 65536, "max_concurrency": 16,
    "request_rate": "inf", "mean_ttft_ms": 120.0, "mean_tpot_ms": 19.0, "mean_e2el_ms": 9800.0, "output_throughput": 830.0,
    "request_throughput": 1.6,
}  # fmt: skip


def test_a_running_engine_fills_the_same_table_and_corrects_the_calibration(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tpot(capsys)
    (home / "bin").mkdir()
    (home / "result").write_text(json.dumps(VLLM_RESULT))
    tool = home / "bin" / "vllm"
    tool.write_text(
        "#!/bin/bash\nwhile [[ $# -gt 0 ]]; do case $1 in --result-dir) dir=$2 ;; esac; shift; done\n"
        f'cp {home}/result "$dir/result.json"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}/bin{os.pathsep}/usr/bin{os.pathsep}/bin")
    command = [
        "validate", "--model", "70b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--users", "16", "--input-tokens", "1024",
        "--output-tokens", "512", "--endpoint", "http://127.0.0.1:9", "--plan", "tp=8", "--refine",
    ]  # fmt: skip
    assert run(command) == 0
    out, err = capsys.readouterr()
    assert "output tokens/s" in out
    assert "19 ms" in out
    assert "2 of 130 requests failed" in out
    assert "vllm under vllm" in out
    assert "Refined" in err
    after = tpot(capsys)["value"]
    assert abs(after - 0.019) < 0.3 * abs(before["value"] - 0.019)


def test_a_server_that_does_not_start_is_a_failed_plan(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`vllm serve` ends at once; the reason is its script's own last lines, and the exit code says that nothing was measured."""
    (home / "bin").mkdir()
    for name, body in (
        ("vllm", "echo 'torch.OutOfMemoryError: CUDA out of memory' >&2; exit 1"),
        ("nvidia-smi", 'for i in 0 1 2 3 4 5 6 7; do echo "GPU $i: NVIDIA H100"; done'),
    ):
        path = home / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}/bin{os.pathsep}/usr/bin{os.pathsep}/bin")
    (home / "weights").mkdir()
    command = [
        "validate", "--model", "8b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--users", "16", "--engine", "vllm", "--plan", "tp=2",
        "--weights", str(home / "weights"), "--time-limit", "30s",
    ]  # fmt: skip
    assert run(command) == 3
    out, err = capsys.readouterr()
    assert "tp=2,pp=1,dp=1 failed: vllm did not start" in out
    assert "CUDA out of memory" in " ".join(out.split())
    assert "[1/1] tp=2,pp=1,dp=1: starting vllm" in err


def test_one_gpu_here_measures_a_rank_of_a_larger_plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    jobs: list[Job] = []

    def measured(asked: list[Job], *_: Any, **__: Any) -> tuple[list[Measured], bool]:
        jobs.extend(asked)
        return [], True

    monkeypatch.setattr(machine_here, "ask_torch", lambda: Torch(version="2.13", gpus=1, names=("NVIDIA H200",)))
    monkeypatch.setattr(measuring, "run_all", measured)
    assert run(["validate", "--model", "70b", "--plan", "tp=8", "--users", "16", "--offline"]) == 3  # nothing came back
    out = " ".join(capsys.readouterr().out.split())
    assert "Predicted for 8 x h200-141g-sxm, of which 1 is here." in out
    assert [(job.shard, job.plan.tp, job.device) for job in jobs] == [(True, 8, "cuda")]
    assert max(cell.batch for cell in jobs[0].cells) == 16


def test_the_recommended_plans_share_the_users(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []

    def measured(asked: list[Job], *_: Any, **__: Any) -> tuple[list[Measured], bool]:
        jobs.extend(asked)
        return [], True

    monkeypatch.setattr(machine_here, "benchmarks", cpu_rates)
    monkeypatch.setattr(measuring, "run_all", measured)
    command = ["validate", "--model", config, "--device", "cpu", "--gpus", "2", "--input-tokens", "24", "--output-tokens", "16"]
    run([*command, "--users", "4", "--top", "2"])
    assert len(jobs) == 2
    assert [max(c.batch for c in job.cells) * job.plan.dp for job in jobs] == [4, 4]
    jobs.clear()
    run([*command, "--top", "1"])
    assert max(c.batch for c in jobs[0].cells) <= measuring.CPU_BATCH
