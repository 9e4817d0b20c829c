"""Whole answers from the command line, and through the Python API."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import advisor
from advisor.cli.app import run
from advisor.errors import PlanError
from advisor.report.screen import WIDTH

ROOT = Path(__file__).resolve().parents[3]
H100S = ["--gpu", "h100-80g-sxm", "--gpus", "8"]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run(list(arguments)) == code, capsys.readouterr().err
    return capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    return json.loads(ask(capsys, "recommend", *arguments, "--json"))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "70b", *H100S],
        ["--model", "mixtral", "--gpu", "l40s", "--gpus", "4", "--users", "32"],
        ["--model", "deepseek-r1", "--gpu", "h200-141g-sxm", "--gpus", "8", "--goal", "cost"],
        ["--model", "405b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--nodes", "2", "--users", "16"],
        ["--model", "8b", "--gpu", "rtx3090", "--gpus", "6", "--rate", "2"],
        ["--model", "70b", "--gpu", "a100-80g-sxm", "--gpus", "4", "--dtype", "int4-awq", "--goal", "latency"],
        ["--model", "8b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--input-tokens", "120000", "--output-tokens", "500"],
        ["--model", "gpt-oss-120b", "--gpu", "b200", "--gpus", "2", "--preset", "rag"],
        ["--model", "8b", "--gpu", "h100-80g-sxm", "--gpus", "1", "--ttft", "1ms", "--tpot", "1ms"],
        ["--model", "70b", "--engine", "sglang", *H100S, "--preset", "batch"],
        ["--model", "70b", "--engine", "trtllm", *H100S, "--all"],
    ],
)
def test_every_kind_of_question_has_a_page_that_fits(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = ask(capsys, "recommend", *arguments, "--offline")
    assert "Recommended: " in text or "Closest to the limits: " in text
    assert max(map(len, text.splitlines())) <= WIDTH, [line for line in text.splitlines() if len(line) > WIDTH]
    assert "nan" not in text.split()
    assert "inf" not in text.split()


def test_nothing_fits_is_an_answer_with_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    text = ask(capsys, "recommend", "--model", "405b", "--gpu", "a100-80g-sxm", "--gpus", "8", code=1)
    assert "No plan fits." in text
    assert re.search(r"tp=8\s+needs 1\d\d GiB of 79.2 GiB", text)
    assert "--dtype int4-awq" in text
    assert "--nodes 2 (16 GPUs)" in text


def test_a_remedy_that_is_named_does_work(capsys: pytest.CaptureFixture[str]) -> None:
    question = ["--model", "70b", "--gpu", "rtx4090", "--gpus", "2", "--users", "1"]
    found = json.loads(ask(capsys, "recommend", *question, "--json", code=1))
    assert found["remedies"]
    for remedy in found["remedies"]:
        options = dict(zip(question[::2], question[1::2], strict=True)) | dict(re.findall(r"(--\S+) (\S+)", remedy["change"]))
        asked = [word for pair in options.items() for word in pair]
        assert run(["recommend", *asked]) == 0, asked
        capsys.readouterr()


def test_json_has_units_in_its_keys_and_the_same_figures(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "--model", "70b", *H100S, "--users", "32")
    best = found["choices"][0]
    assert {"ttft_s", "tpot_s", "output_tokens_per_s", "kv_tokens", "usd_per_million_tokens"} <= set(best)
    assert found["asked"]["workload"]["input_tokens"] == 1024
    assert found["launch"].startswith("vllm serve")
    same = advisor.recommend("70b", gpu="h100-80g-sxm", gpus=8, users=32)
    assert same.choices[0].tpot_s.value == best["tpot_s"]["value"]
    assert same.choices[0].plan.tp == best["plan"]["tp"]


def test_top_and_all_change_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["recommend", "--model", "8b", *H100S, "--users", "4"]
    pages = [ask(capsys, *base, *more) for more in (["--top", "2"], [], ["--all"])]
    lines = [len(page.splitlines()) for page in pages]
    assert lines[0] < lines[1] < lines[2]


@pytest.mark.parametrize(
    "option",
    [
        ["--engine", "sglang"], ["--dtype", "fp8"], ["--kv-dtype", "fp8"], ["--preset", "rag"], ["--input-tokens", "4000"],
        ["--output-tokens", "100"], ["--users", "9"], ["--rate", "0.5"], ["--prefix-cached-tokens", "900"], ["--ttft", "200ms"],
        ["--tpot", "20ms"], ["--goal", "latency"], ["--goal", "cost"], ["--gpus", "4"], ["--engine-version", "2024"],
        ["--node", "pcie-2-socket"], ["--nodes", "2"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_option_is_dead(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    base = ["recommend", "--model", "70b", *H100S]
    if option[0] == "--gpus":
        base = base[:-2]
    if option[0] == "--node":
        base = ["recommend", "--model", "8b", "--gpu", "a100-80g-pcie", "--gpus", "4"]
    before = ask(capsys, *(base if option[0] != "--gpus" else [*base, "--gpus", "8"]))
    assert run([*base, *option]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out != before


def test_a_calibration_file_changes_the_answer(tmp_path: Path) -> None:
    from dataclasses import replace

    from advisor.catalog.calibrations import load_calibration, write_calibration
    from advisor.catalog.devices import load_device

    shipped = load_calibration(load_device("h100-80g-sxm"), local=False)
    path = tmp_path / "slow.yaml"
    write_calibration(replace(shipped, name="mine", scales=(("decode", 2.0),)), path)
    options: dict[str, Any] = {"gpu": "h100-80g-sxm", "gpus": 8, "users": 8}
    slow = advisor.estimate("70b", "tp=8", calibration=path, **options)
    assert slow.tpot_s.value > 1.3 * advisor.estimate("70b", "tp=8", **options).tpot_s.value
    assert slow.calibration == "mine"


def test_explain_and_estimate_say_the_same_as_recommend(capsys: pytest.CaptureFixture[str]) -> None:
    question = ["--model", "70b", *H100S, "--users", "32"]
    best = answer(capsys, *question)["choices"][0]
    label = f"tp={best['plan']['tp']},pp={best['plan']['pp']},dp={best['plan']['dp']}"
    estimate = json.loads(ask(capsys, "estimate", *question, "--plan", label, "--json"))
    explained = json.loads(ask(capsys, "explain", *question, "--plan", label, "--json"))
    default = json.loads(ask(capsys, "explain", *question, "--json"))
    assert estimate["tpot_s"] == best["tpot_s"] == explained["prediction"]["tpot_s"] == default["prediction"]["tpot_s"]
    step = explained["prediction"]["decode"]
    assert sum(part["amount"] for part in step["parts"]) == pytest.approx(step["total_s"])


def test_the_batch_of_explain_is_the_one_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    question = ["explain", "--model", "70b", *H100S, "--plan", "tp=8", "--users", "4"]
    assert "A decode step of 64 sequences" in ask(capsys, *question, "--batch", "64")


@pytest.mark.parametrize(
    ("plan", "part"),
    [
        ("tp=6", "use 1, 2, 4, 8"),
        ("tp=16", "the machine has 8"),
        ("tp=0", "a degree is 1 or more"),
        ("4", "cannot read"),
        ("tp=1", "does not fit"),
        ("tp=2,ep=2", "is dense"),
    ],
)
def test_a_plan_that_cannot_run_is_one_sentence(plan: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", "--model", "70b", *H100S, "--plan", plan]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
    with pytest.raises(PlanError):
        advisor.estimate("70b", plan, gpu="h100-80g-sxm", gpus=8)


def test_launch_writes_a_script_and_does_not_overwrite_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = ["recommend", "--model", "8b", "--gpu", "h100-80g-sxm", "--gpus", "2", "--launch", str(tmp_path / "out")]
    ask(capsys, *question)
    scripts = sorted((tmp_path / "out").iterdir())
    assert scripts
    scripts[0].write_text("mine")
    assert run(question) == 2
    assert scripts[0].read_text() == "mine"


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert "tokens/s" in capsys.readouterr().out


def test_the_catalogue_is_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    models, gpus = ask(capsys, "models"), ask(capsys, "gpus")
    assert len(models.splitlines()) > 80
    assert len(gpus.splitlines()) > 35
    assert max(map(len, (models + gpus).splitlines())) <= WIDTH
    assert "80 x attention 64 heads, 8 key-value" in ask(capsys, "models", "70b")
    assert "calibration h100-80g-sxm" in ask(capsys, "gpus", "h100-80g-sxm")
    assert json.loads(ask(capsys, "models", "70b", "--json"))["hidden_size"] == 8192
    assert len(json.loads(ask(capsys, "gpus", "--json"))) > 35
    assert len(json.loads(ask(capsys, "models", "--json"))) > 80
