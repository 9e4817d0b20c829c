"""Template files: every place is filled with a quoted value, and the bodies pass shellcheck as they lie in the folder."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from advisor.launch import template
from advisor.launch.template import lines
from advisor.launch.words import Raw

FOLDER = files("advisor.launch").joinpath("templates")
NAMES = sorted(entry.name for entry in FOLDER.iterdir())


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """Templates of this test's own in place of the files."""
    own: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(template, "body", own.__getitem__)
    return own


def test_a_block_is_indented_as_its_place_and_an_empty_one_leaves_no_line(bodies: dict[str, tuple[str, ...]]) -> None:
    bodies["x.sh"] = ("start", "  @block@", "  @none@", "end")
    assert lines("x.sh", block=["a", "", "  b"], none=[]) == ["start", "  a", "", "    b", "end"]


def test_every_place_is_filled_and_every_value_has_a_place(bodies: dict[str, tuple[str, ...]]) -> None:
    bodies["x.sh"] = ("echo @one@ @two@",)
    assert lines("x.sh", one=1, two=Raw('"$x"')) == ['echo 1 "$x"']
    with pytest.raises(KeyError, match="two"):
        lines("x.sh", one=1)
    with pytest.raises(KeyError, match="no place for three"):
        lines("x.sh", one=1, two=2, three=3)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40))
def test_text_stays_one_word_of_its_language(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "body", {"x.sh": ("run @text@ end",), "x.yaml": ("key: @text@", "next: 1")}.__getitem__)
        assert shlex.split(lines("x.sh", text=text)[0]) == ["run", text, "end"]
        assert yaml.safe_load("\n".join(lines("x.yaml", text=text))) == {"key": text, "next": 1}


def test_bash_templates_pass_shellcheck(tmp_path: Path) -> None:
    paths = []
    for name in NAMES:
        if name.endswith(".sh"):
            text = FOLDER.joinpath(name).read_text(encoding="utf-8")
            alone = re.compile(r"^( *)@[a-z_0-9]+@$", re.MULTILINE)
            text = re.sub("@[a-z_0-9]+@", "1", alone.sub(r"\1echo", text))
            (tmp_path / name).write_text(text, encoding="utf-8")
            paths.append(str(tmp_path / name))
    shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    # A part of a script uses names, functions and the `local` scope of the whole; the whole is checked in test_render.
    parts = "SC2034,SC2153,SC2154,SC2168,SC2317"
    done = subprocess.run([shellcheck, "--shell=bash", f"--exclude={parts}", *paths], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert len(paths) > 10


def test_no_python_file_of_the_room_holds_a_script() -> None:
    for entry in files("advisor.launch").iterdir():
        if entry.name.endswith(".py"):
            assert "#!/usr/bin/env bash" not in entry.read_text(encoding="utf-8"), entry.name
