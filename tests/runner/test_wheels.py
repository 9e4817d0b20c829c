"""The list of wheels for a machine without a network: all that is needed, at the versions here, and not torch."""

from __future__ import annotations

from importlib.metadata import version
from types import SimpleNamespace

import pytest

pytest.importorskip("packaging")

from runner import wheels
from runner.wheels import main, needed


def test_it_follows_requirements_with_their_extras_and_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {
        "advisor": ["typer>=1", "torch>=2; extra == 'validate'", "Safe.Tensors>=1; extra == 'validate'", "ruff; extra == 'dev'"],
        "typer": ["click", "rich[jupyter]; python_version >= '3'", "colorama; python_version < '3'"],
        "click": [], "rich": ["ipywidgets; extra == 'jupyter'"], "ipywidgets": None, "safe-tensors": [],
    }  # fmt: skip

    def distribution(name: str) -> SimpleNamespace:
        if name not in installed or name == "ipywidgets":
            raise wheels.PackageNotFoundError(name)
        return SimpleNamespace(version=f"{len(name)}.0", requires=installed[name])

    monkeypatch.setattr(wheels, "distribution", distribution)
    assert needed("advisor", frozenset({"validate"})) == {
        "advisor": "7.0", "typer": "5.0", "click": "5.0", "rich": "4.0", "ipywidgets": "", "safe-tensors": "12.0",
    }  # fmt: skip


def test_the_list_leaves_out_torch_and_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = {wheels.PROGRAM: "0.1", "typer": version("typer"), "numpy": ""}
    monkeypatch.setattr(wheels, "needed", lambda name, extras: dict(here))
    assert main() == 3
    out, err = capsys.readouterr()
    assert out.splitlines() == ["# numpy is not installed here", f"typer=={version('typer')}"]
    assert "not installed here: numpy; pip install" in err
    here["numpy"] = "2.4"
    assert main() == 0
    assert capsys.readouterr().out.splitlines() == ["numpy==2.4", f"typer=={version('typer')}"]
    here[wheels.PROGRAM] = ""
    assert main() == 3
    assert "is not installed here, so what it needs is not known" in capsys.readouterr().err
