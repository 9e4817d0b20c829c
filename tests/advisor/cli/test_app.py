"""The frame of the command line: mistakes become one sentence and a code, and a verb is imported only when called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from advisor.cli.app import VERBS, run
from advisor.errors import MachineError, NoPlanFitsError, PlanError, ProfileError, QuestionError


def advisor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "advisor", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )


def test_help_names_every_verb_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from advisor.cli.app import run; run(['--help']); print(sorted(m for m in sys.modules if 'advisor.' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {verb}" in done.stdout for verb in VERBS)
    assert done.stdout.splitlines()[-1] == "['advisor.cli', 'advisor.cli.app', 'advisor.errors']"
    assert not any(line.endswith("...") for line in done.stdout.splitlines()[1:])


def test_every_verb_has_a_page_of_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert run([verb, "--help"]) == 0, verb
        assert f"Usage: advisor {verb}" in capsys.readouterr().out


def test_without_a_verb_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("advisor ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["recommend"],
        ["recommend", "--model"],
        ["recommend", "--model", "70b", "--gpus", "many"],
        ["recommend", "--no-such-option"],
    ],
)
def test_a_bad_command_is_one_sentence_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("advisor: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QuestionError("no."), 2),
        (ProfileError("no."), 2),
        (PlanError("no."), 2),
        (NoPlanFitsError("no."), 1),
        (MachineError("no."), 3),
        (KeyboardInterrupt(), 130),
        (PermissionError(13, "Permission denied", "/root/x"), 3),
    ],
)
def test_errors_become_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(name: str = "") -> None:
        raise error

    import advisor.cli.app as app

    monkeypatch.setattr(app, "_verb", lambda name: raising)
    assert run(["models"]) == code
    assert capsys.readouterr().err.count("\n") <= 1


def test_a_sentence_over_several_lines_is_still_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(name: str = "") -> None:
        raise QuestionError("a\n  b\tc")

    import advisor.cli.app as app

    monkeypatch.setattr(app, "_verb", lambda name: raising)
    assert run(["models"]) == 2
    assert capsys.readouterr().err == "advisor: a b c\n"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    line = f"{sys.executable} -m advisor gpus | head -c 20 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() in ("0", "141")


def test_a_full_disk_is_the_machines_failure() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "advisor", "gpus"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert done.stderr == "advisor: the system refused: No space left on device\n"


def test_an_ascii_terminal_gets_ascii() -> None:
    done = advisor("recommend", "--model", "8b", "--gpu", "l4", "--gpus", "2", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_no_option_is_accepted_and_ignored() -> None:
    """Each shared option of `recommend` is an option of a question, by the same name."""
    import inspect

    from advisor.api.options import Options
    from advisor.cli.recommend import recommend

    own = {"model", "launch", "html", "compare", "disaggregate", "top", "everything", "as_json", "offline"}
    assert set(inspect.signature(recommend).parameters) - own == set(Options.__annotations__) - {"online"}


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("advisor rec", "recommend"),
        ("advisor recommend --gpu h100-80g", "h100-80g-sxm"),
        ("advisor explain --prefix", "--prefix-cached-tokens"),
        ("advisor estimate --engine sg", "sglang"),
        ("advisor launch --goal thr", "throughput"),
    ],
)
def test_the_shell_completes_verbs_options_and_names(words: str, known: str) -> None:
    at = str(len(words.split()) - 1)
    assert known in advisor(COMP_WORDS=words, COMP_CWORD=at, _ADVISOR_COMPLETE="complete_bash").stdout.split()


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["recomend"], "Did you mean 'recommend'? See `advisor --help`."),
        (["recommend", "--model", "8b", "--gpuss", "8"], "--gpus"),
        (["recommend", "--model", "8b", "--goal", "thruput"], "nearest is throughput; use latency, throughput or cost."),
        (["recommend", "--model", "8b", "--gpu", "h100", "--engine", "vlm"], "nearest is vllm"),
        (["recommend", "--model", "8b", "--gpu", "h100", "--dtype", "fp9"], "nearest is fp8"),
        (["validate", "--model", "8b", "--device", "cdua"], "nearest is cuda"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest(
    arguments: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert nearest in capsys.readouterr().err
