"""`advisor launch` writes what runs, `advisor compare` sets a result beside it, and the point it keeps moves the next answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from advisor.cli.app import run

QUESTION = ["--model", "70b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--offline"]
LOAD = ["--input-tokens", "1024", "--output-tokens", "512", "--users", "64"]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert run(list(arguments)) == code, capsys.readouterr().err
    said = capsys.readouterr()
    return said.out, said.err


def result(path: Path, *, slower: float = 1.0) -> Path:
    """What `vllm bench serve --save-result` writes of 640 requests of 64 users; 25 ms a token, times `slower`."""
    each_s, first_s = 0.025 * slower, 0.3
    took_s = 10 * (first_s + 511 * each_s)
    figures = {
        "completed": 640, "failed": 0, "total_input_tokens": 640 * 1024, "total_output_tokens": 640 * 512, "max_concurrency": 64,
        "request_rate": "inf", "mean_ttft_ms": 1e3 * first_s, "mean_tpot_ms": 1e3 * each_s,
        "mean_e2el_ms": 1e3 * (first_s + 511 * each_s), "output_throughput": 640 * 512 / took_s, "request_throughput": 640 / took_s,
    }  # fmt: skip
    path.write_text(json.dumps(figures), encoding="utf-8")
    return path


@pytest.mark.parametrize("target", ["bash", "docker", "compose", "kubernetes", "slurm"])
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_the_recommended_plan_is_what_is_launched(engine: str, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = json.loads(ask(capsys, "recommend", *QUESTION, *LOAD, "--engine", engine, "--json")[0])
    script, _ = ask(capsys, "launch", *QUESTION, *LOAD, "--engine", engine, "--target", target)
    tp = page["choices"][0]["plan"]["tp"]
    flag = {"vllm": "--tensor-parallel-size", "sglang": "--tp", "trtllm": "--tp_size"}[engine]
    found = re.search(rf"{flag}(?:-size)?[\"'\s,=-]+{tp}\b", script)
    assert found, script


def test_files_are_written_all_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "here"
    _, said = ask(capsys, "launch", *QUESTION, *LOAD, "--out", str(folder))
    written = sorted(path.name for path in folder.iterdir())
    assert written
    assert said.count("Wrote ") == len(written)
    before = {name: (folder / name).read_text(encoding="utf-8") for name in written}
    (folder / "bench.sh").unlink()
    _, said = ask(capsys, "launch", *QUESTION, *LOAD, "--plan", "tp=2,dp=4", "--out", str(folder), code=2)
    assert "--force" in said
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == {"start.sh": before["start.sh"]}
    ask(capsys, "launch", *QUESTION, *LOAD, "--plan", "tp=2,dp=4", "--out", str(folder), "--force")
    assert sorted(path.name for path in folder.iterdir()) == written


def test_what_cannot_be_launched_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _, said = ask(capsys, "launch", "--model", "405b", "--gpu", "l4", "--gpus", "2", "--offline", code=1)
    assert "no plan fits" in said
    _, said = ask(capsys, "launch", *QUESTION, "--target", "helm", code=2)
    assert "kubernetes" in said
    assert len(said.strip().splitlines()) == 1


def test_a_plan_that_the_engine_refuses_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--model", "qwen3-235b-a22b-fp8", "--gpu", "h100", "--gpus", "8", "--offline", "--out", str(tmp_path / "x")]
    for engine in ("sglang", "vllm"):
        _, said = ask(capsys, "launch", *asked, "--engine", engine, "--plan", "tp=8", code=2)
        assert f"{engine} refuses tp=8,pp=1,dp=1 while it loads: 1536 / 8 = 192 cuts fp8-block blocks of 128" in said
    assert not (tmp_path / "x").exists()
    asked = ["--model", "8b", "--gpus", "2", "--offline", "--kv-dtype", "nvfp4", "--plan", "tp=2"]
    _, said = ask(capsys, "launch", *asked, "--gpu", "h100", code=2)
    assert "no kernels for an nvfp4 cache" in said
    script, _ = ask(capsys, "launch", *asked, "--gpu", "b200")
    assert "--kv-cache-dtype nvfp4" in script


def test_a_result_beside_its_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = result(tmp_path / "run.json")
    ask(capsys, "launch", *QUESTION, *LOAD, "--plan", "tp=4,dp=2", "--out", str(tmp_path / "scripts"))
    script = next(p for p in sorted((tmp_path / "scripts").iterdir()) if "tensor-parallel-size" in p.read_text(encoding="utf-8"))
    by_script = json.loads(ask(capsys, "compare", str(measured), *QUESTION, "--script", str(script), "--json")[0])
    by_plan = json.loads(ask(capsys, "compare", str(measured), *QUESTION, "--plan", "tp=4,dp=2", "--json")[0])
    assert by_script == by_plan
    found = {line["name"]: line for line in by_plan}
    tpot = found["time per output token"]
    assert tpot["measured"] == pytest.approx(0.025)
    assert tpot["predicted"]["low"] < tpot["predicted"]["value"] < tpot["predicted"]["high"]
    page, _ = ask(capsys, "compare", str(measured), *QUESTION, "--plan", "tp=4,dp=2")
    assert "640 requests" in page
    assert "25 ms" in page


def test_a_kept_point_moves_the_next_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points, calibration = tmp_path / "points.csv", tmp_path / "own.yaml"
    slow = result(tmp_path / "slow.json", slower=1.4)
    for _ in range(2):
        ask(capsys, "compare", str(slow), *QUESTION, "--plan", "tp=8", "--out", str(points))
    assert len(points.read_text(encoding="utf-8").splitlines()) == 3
    ask(capsys, "calibrate", "--from", str(points), "--out", str(calibration))
    asked = ["estimate", *QUESTION, *LOAD, "--plan", "tp=8", "--json"]
    before = json.loads(ask(capsys, *asked)[0])["tpot_s"]
    after = json.loads(ask(capsys, *asked, "--calibration", str(calibration))[0])["tpot_s"]
    assert before["value"] * 1.02 < after["value"] < 0.035 * 1.1  # towards the 35 ms that were measured
    assert after["high"] / after["low"] == pytest.approx(before["high"] / before["low"])  # two rows narrow nothing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plan", "tp=4", "--script", "x.sh"], "one of the two"),
        ([], "say which plan was run"),
        (["--script", "missing.sh"], "cannot be read"),
    ],
)
def test_bad_comparisons(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, error = ask(capsys, "compare", str(result(tmp_path / "run.json")), *QUESTION, *arguments, code=2)
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_result_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{", encoding="utf-8")
    _, error = ask(capsys, "compare", str(tmp_path / "x.json"), *QUESTION, "--plan", "tp=8", code=2)
    assert "is not JSON" in error
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    arguments = [str(result(tmp_path / "run.json")), *QUESTION, "--plan", "tp=8", "--out", str(tmp_path / "mine.csv")]
    _, error = ask(capsys, "compare", *arguments, code=2)
    assert "other columns" in error
    assert (tmp_path / "mine.csv").read_text(encoding="utf-8") == "a,b\n1,2\n"


@pytest.mark.parametrize("paced", ["users", "rate"])
def test_a_result_with_the_simulators_own_figures_is_equal(paced: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a benchmark is judged by is a run of so many requests from a cold start, as it was run, not a steady state."""
    load = {"max_concurrency": 32, "request_rate": "inf"} if paced == "users" else {"request_rate": 4.0}
    figures = {
        "completed": 320, "failed": 0, "total_input_tokens": 320 * 1024, "total_output_tokens": 320 * 256, "mean_ttft_ms": 1.0,
        "mean_tpot_ms": 1.0, "mean_e2el_ms": 1.0, "output_throughput": 1.0, "request_throughput": 1.0, **load,
    }  # fmt: skip
    path = tmp_path / "run.json"
    path.write_text(json.dumps(figures), encoding="utf-8")

    def compared() -> dict[str, dict[str, float]]:
        lines = json.loads(ask(capsys, "compare", str(path), *QUESTION, "--plan", "tp=8", "--json")[0])
        return {line["name"]: line for line in lines}

    predicted = {name: line["predicted"]["value"] for name, line in compared().items()}  # type: ignore[index]
    figures |= {
        "mean_ttft_ms": 1e3 * predicted["time to first token"], "mean_tpot_ms": 1e3 * predicted["time per output token"],
        "mean_e2el_ms": 1e3 * predicted["request latency"], "output_throughput": predicted["output"],
        "request_throughput": predicted["requests"],
    }  # fmt: skip
    path.write_text(json.dumps(figures), encoding="utf-8")
    for line in compared().values():
        assert line["ratio"] == pytest.approx(1.0, rel=1e-6)
