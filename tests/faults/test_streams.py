"""Pipes whose other end is gone, and streams that were never open: an exit code and at most one sentence."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from faults.advisor_process import COMMAND, QUESTION, environment

LONG = ["models"]
SHELL = "exec {command} {redirect}"


def shell(arguments: list[str], redirect: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = " ".join([*COMMAND, *arguments])
    return subprocess.run(
        ["bash", "-c", SHELL.format(command=command, redirect=redirect)], env=environment(home), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["models"], ["gpus"], ["recommend", *QUESTION], ["--help"], ["recommend", "--help"]])
def test_a_reader_that_went_away_is_141_and_no_word(arguments: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [*COMMAND, *arguments], env=environment(tmp_path), stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE,
        timeout=120, check=False,
    )  # fmt: skip
    os.close(writing)
    assert process.returncode == 141
    assert process.stderr == b""


def test_a_closed_standard_output_is_the_machines_fault(tmp_path: Path) -> None:
    done = shell(["gpus"], ">&-", tmp_path)
    assert done.returncode == 3
    assert done.stderr == "advisor: the answer cannot be written: standard output is closed.\n"


def test_a_closed_standard_error_loses_the_sentence_only(tmp_path: Path) -> None:
    assert shell(["gpus"], "2>&-", tmp_path).returncode == 0
    assert shell(["gpus", "abacus"], "2>&-", tmp_path).returncode == 2


def test_a_closed_standard_input_is_a_sentence(tmp_path: Path) -> None:
    done = shell(["probe", "--from", "-"], "<&-", tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """With standard error closed, a file that is opened would get its number, and what is said would land in it."""
    (tmp_path / "in.csv").write_text("id,hardware,gpus,engine,model,tp,mode,load,input_tokens,output_tokens\n")
    done = shell(["estimate", "--points", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.csv")], "2>&-", tmp_path)
    assert done.returncode == 0
    assert "Wrote" not in (tmp_path / "out.csv").read_text()


def test_a_full_output_is_the_machines_fault(tmp_path: Path) -> None:
    done = shell(["gpus"], ">/dev/full", tmp_path)
    assert done.returncode == 3
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1
