"""`advisor size` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.cli.app import run

LOAD = ["--rate", "12", "--requests", "600", "--input-tokens", "1000", "--output-tokens", "150"]
LIMITS = ["--ttft", "p90=1s", "--tpot", "p99=60ms"]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert run(["size", "--model", "8b", "--offline", *arguments]) == code, capsys.readouterr().err
    said = capsys.readouterr()
    return said.out, said.err


def sizes(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ask(capsys, *arguments, "--json", code=code)[0])["sizes"]
    return found


def gpus(found: dict[str, Any]) -> int:
    plan = found["plan"]
    return int(plan["tp"] * plan["pp"] * plan["dp"] * plan["adp"])


def test_each_type_has_the_fewest_gpus_and_one_replica_fewer_misses_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    found = sizes(capsys, "--gpu", "h100,l40s", *LOAD, *LIMITS)
    assert {each["gpu"] for each in found} == {"h100-80g-sxm", "l40s"}
    assert [gpus(each) for each in found] == sorted(gpus(each) for each in found)
    for each in found:
        assert all(verdict["met"] for verdict in each["found"])
        assert not each["smaller"] or any(not verdict["met"] for verdict in each["smaller"])
    slower = next(each for each in found if each["gpu"] == "l40s")
    assert slower["smaller"]


def test_more_load_tighter_limits_and_more_certainty_never_need_fewer(capsys: pytest.CaptureFixture[str]) -> None:
    base = gpus(sizes(capsys, "--gpu", "l40s", *LOAD, *LIMITS)[0])
    assert gpus(sizes(capsys, "--gpu", "l40s", *LOAD, *LIMITS, "--scale", "2")[0]) >= 2 * base - 1
    assert gpus(sizes(capsys, "--gpu", "l40s", *LOAD, "--ttft", "p90=1s", "--tpot", "p99=45ms")[0]) >= base
    assert gpus(sizes(capsys, "--gpu", "l40s", *LOAD, *LIMITS, "--confidence", "0.5")[0]) <= base


def test_the_cheapest_first_by_prices_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("name,usd_per_hour\nh100,90\nl40s,0.5\n")
    found = sizes(capsys, "--gpu", "h100,l40s", *LOAD, *LIMITS, "--goal", "usd", "--price", str(prices))
    assert [each["gpu"] for each in found] == ["l40s", "h100-80g-sxm"]
    assert found[0]["usd_per_hour"] == pytest.approx(0.5 * gpus(found[0]))
    page, _ = ask(capsys, "--gpu", "h100,l40s", *LOAD, *LIMITS, "--goal", "usd", "--price", str(prices))
    assert "GPUs for so many times the load" in page


def test_a_type_that_never_keeps_the_limits_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    page, _ = ask(capsys, "--gpu", "l40s", *LOAD, "--tpot", "p50=1ms", code=1)
    assert "l40s: no replica" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "l40s", *LOAD], "no limit was given"),
        ([*LOAD, *LIMITS], "no GPU type was named"),
        (["--gpu", "l40s", *LIMITS], "no load was given"),
        (["--gpu", "l40s", *LOAD, *LIMITS, "--goal", "joy"], "--goal"),
        (["--gpu", "l40s", *LOAD, *LIMITS, "--confidence", "2"], "--confidence"),
        (["--gpu", "h101x", *LOAD, *LIMITS], "h101x"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, error = ask(capsys, *arguments, code=2)
    assert said in error
    assert len(error.strip().splitlines()) == 1
