"""The files in `examples/` answer the commands that their page and the README show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from advisor.cli.app import run

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMANDS = sorted({
    " ".join(line.partition("#")[0].split())
    for page in PAGES
    for line in re.findall(r"^ {4}(advisor .*examples/.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
})  # fmt: skip


def test_every_example_is_told_of() -> None:
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").iterdir():
        assert path.name in page or path.name == "README.md"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pasted_command_answers(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    assert run(shlex.split(command)[1:]) == 0, capsys.readouterr().err
