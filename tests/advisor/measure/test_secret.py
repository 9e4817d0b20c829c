from __future__ import annotations

from pathlib import Path

import pytest

from advisor.cli.app import run
from advisor.errors import QuestionError
from advisor.measure.secret import VARIABLE, secret_of

SECRET = "0123456789abcdef"


def test_a_secret_comes_from_a_private_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    assert secret_of(path) == SECRET
    monkeypatch.setenv(VARIABLE, SECRET)
    assert secret_of(None) == SECRET


@pytest.mark.parametrize(("mode", "text", "why"), [(0o640, SECRET, "may be read by others"), (0o600, "short", "at least 16")])
def test_a_secret_that_is_none_is_refused(mode: int, text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(QuestionError, match=why):
        secret_of(path)


def test_several_machines_without_a_secret_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    pytest.importorskip("torch")
    code = run(["validate", "--model", "8b", "--device", "cpu", "--nodes", "2", "--master", "127.0.0.1:29400", "--offline"])
    assert code == 2
    assert "only with a secret" in capsys.readouterr().err
