"""`advisor probe` as a user runs it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from advisor.cli.app import run

TEXT = "\tGPU0\tGPU1\tGPU2\tGPU3\nGPU0\tX\tNV4\tSYS\tSYS\nGPU1\tNV4\tX\tSYS\tSYS\nGPU2\tSYS\tSYS\tX\tNV4\nGPU3\tSYS\tSYS\tNV4\tX\n"


@pytest.fixture
def topo(tmp_path: Path) -> str:
    path = tmp_path / "topo.txt"
    path.write_text(TEXT)
    return str(path)


def test_a_text_becomes_a_page(topo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", "--from", topo, "--gpu", "rtx-a6000"]) == 0
    out = capsys.readouterr().out
    assert "GPUs 0-1 and 2-3 are NVLink pairs" in out


def test_json_asks_nothing_and_leaves_null_what_the_text_lacks(topo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", "--from", topo, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["islands"] == [[0, 1], [2, 3]]
    assert found["cluster"] is None
    assert found["gpus"][0]["name"] is None


def test_a_paste_is_read_from_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode()), encoding="utf-8"))
    assert run(["probe", "--from", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best_link"] == "NV4"


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_file_goes_into_recommend(topo: str, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", "--from", topo, "--gpu", "rtx-a6000", f"--{form}"]) == 0
    path = tmp_path / f"box.{form}"
    path.write_text(capsys.readouterr().out)
    from advisor.catalog.machines import read_cluster

    assert read_cluster(path).node.link(0, 1).kind == "nvlink"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--from", "/nowhere/topo.txt"], 2, "cannot be read"),
        (["--json", "--yaml", "--from", "x"], 2, "--json and --yaml"),
        (["--from", "TOPO", "--yaml"], 2, "--gpu"),
        (["--from", "TOPO", "--gpu", "nonsense-gpu"], 2, "nonsense-gpu"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], code: int, words: str, topo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["probe", *(topo if a == "TOPO" else a for a in arguments)]) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_without_a_gpu_it_says_why_and_exits_3(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advisor.probe.nvml._library_here", lambda: False)
    assert run(["probe", "--json"]) == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["reason"]
    assert "libnvidia-ml" in told.err
