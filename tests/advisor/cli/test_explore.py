"""`advisor explore` and `recommend --html` write the file; its exit codes are those of `recommend`."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from advisor.cli.app import run

QUESTION = ["--model", "8b", "--gpu", "l40s", "--gpus", "2", "--users", "8", "--offline"]


def test_explore_writes_a_page_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "advice.html"
    assert run(["explore", *QUESTION, "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    said = capsys.readouterr()
    assert said.out == ""
    assert f"Wrote {out}." in said.err


def test_open_shows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address))
    out = tmp_path / "advice.html"
    assert run(["explore", *QUESTION, "--out", str(out), "--open"]) == 0
    assert shown == [out.resolve().as_uri()]


def test_recommend_writes_the_same_page_beside_its_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a.html", tmp_path / "b.html"
    assert run(["recommend", *QUESTION, "--html", str(first)]) == 0
    assert "Recommended: " in capsys.readouterr().out
    assert run(["explore", *QUESTION, "--out", str(second)]) == 0
    assert first.read_text(encoding="utf-8") == second.read_text(encoding="utf-8")


def test_nothing_fits_is_a_page_with_code_1(tmp_path: Path) -> None:
    out = tmp_path / "none.html"
    assert run(["explore", "--model", "70b", "--gpu", "rtx4090", "--gpus", "2", "--offline", "--out", str(out)]) == 1
    assert "needs " in out.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explore", *QUESTION, "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
