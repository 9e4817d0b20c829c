"""`advisor simulate` from the command line: traces, arrivals, users, limits, and what cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.cli.app import run

PLAN = ["simulate", "--model", "8b", "--gpu", "h100-80g-sxm", "--plan", "tp=1", "--offline"]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert run(list(arguments)) == code, capsys.readouterr().err
    said = capsys.readouterr()
    return said.out, said.err


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(capsys, *PLAN, *arguments, "--json")[0])
    return found


def times(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in found["times"] if each["name"] == name)


def test_a_trace_with_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, out = tmp_path / "t.csv", tmp_path / "requests.csv"
    rows = "".join(f"{i * 0.2},{300 + i},{20 + i % 30}\n" for i in range(100))
    trace.write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    page, _ = ask(capsys, *PLAN, "--trace", str(trace), "--ttft", "p90=2s", "--tpot", "p99=1ms", "--out", str(out))
    assert "100 requests in 20 s" in page
    assert "p90 TTFT" in page
    assert "limit 2 s: kept" in page
    assert "limit 1 ms: not kept" in page
    assert "goodput 0.0%" in page
    assert len(out.read_text().splitlines()) == 101
    found = answer(capsys, "--trace", str(trace))
    ttft = times(found, "ttft")
    assert ttft["p50"]["value"] <= ttft["p90"]["value"] <= ttft["p99"]["value"]
    assert ttft["p90"]["low"] < ttft["p90"]["value"] < ttft["p90"]["high"]
    busier = answer(capsys, "--trace", str(trace), "--scale", "20")
    assert busier["seconds"] < found["seconds"]
    assert times(busier, "tpot")["p50"]["value"] > times(found, "tpot")["p50"]["value"]


def test_drawn_arrivals_differ_by_kind_and_repeat_by_seed(capsys: pytest.CaptureFixture[str]) -> None:
    load = ["--rate", "8", "--requests", "300", "--input-tokens", "lognormal(600,1300)", "--output-tokens", "60"]
    found = {kind: answer(capsys, *load, "--arrivals", kind) for kind in ("poisson", "constant", "burst")}
    waits = {kind: times(each, "ttft")["p90"]["value"] for kind, each in found.items()}
    assert waits["constant"] < waits["poisson"] < waits["burst"]
    assert answer(capsys, *load, "--arrivals", "poisson") == found["poisson"]
    assert answer(capsys, *load, "--seed", "1") != found["poisson"]
    bunched = answer(capsys, *load, "--arrivals", "gamma", "--burstiness", "0.1")
    assert times(bunched, "ttft")["p90"]["value"] > waits["poisson"]


def test_users_think_before_they_ask_again(capsys: pytest.CaptureFixture[str]) -> None:
    load = ["--users", "16", "--requests", "200", "--input-tokens", "500", "--output-tokens", "50"]
    busy, calm = answer(capsys, *load), answer(capsys, *load, "--think", "5s")
    assert busy["requests"] == calm["requests"] == 200
    assert calm["running"] < busy["running"] <= 16
    assert calm["requests_per_s"]["value"] == pytest.approx(16 / 5.5, rel=0.25)


def test_what_a_run_was_started_with(capsys: pytest.CaptureFixture[str]) -> None:
    load = ["--rate", "20", "--requests", "300", "--input-tokens", "1000", "--output-tokens", "100"]
    free, few, small = (
        answer(capsys, *load),
        answer(capsys, *load, "--max-num-seqs", "8"),
        answer(capsys, *load, "--kv-tokens", "9000"),
    )
    assert few["running"] <= 8 < free["running"]
    assert small["running"] < free["running"]
    pieces = answer(capsys, *load, "--max-num-batched-tokens", "256")
    assert times(pieces, "ttft")["p50"]["value"] > times(free, "ttft")["p50"]["value"]


def test_an_overload_says_so_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    page, _ = ask(capsys, *PLAN, "--rate", "200", "--requests", "3000", "--input-tokens", "4000", "--output-tokens", "20")
    assert "Overloaded" in page


def test_without_a_plan_the_recommended_one_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    page, _ = ask(
        capsys, "simulate", "-m", "8b", "--gpu", "h100", "--gpus", "2", "--offline", "--rate", "3", "--requests", "50",
        "--output-tokens", "20",
    )  # fmt: skip
    assert "recommended one" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no load was given"),
        (["--rate", "5", "--arrivals", "poison"], "poisson"),
        (["--rate", "5", "--input-tokens", "lognormal(1000,900)"], "no lognormal distribution"),
        (["--rate", "5", "--input-tokens", "many"], "no number"),
        (["--rate", "5", "--ttft", "p90=2"], "unit"),
        (["--rate", "5", "--ttft", "p100=2s"], "unit"),
        (["--users", "5", "--rate", "5"], "leave out --rate"),
        (["--rate", "-1"], "not possible"),
        (["--rate", "5", "--scale", "0"], "--scale"),
        (["--rate", "5", "--burstiness", "0"], "not possible"),
        (["--trace", "/nowhere.csv"], "cannot be read"),
        (["--trace", "/nowhere.csv", "--rate", "5"], "leave out --rate"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, error = ask(capsys, *PLAN, *arguments, code=2)
    assert said in error
    assert len(error.strip().splitlines()) == 1
