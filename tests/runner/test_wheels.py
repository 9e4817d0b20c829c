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
        "typer": "5.0", "click": "5.0", "rich": "4.0", "ipywidgets": "", "safe-tensors": "12.0",
    }  # fmt: skip


def test_the_list_is_what_is_installed_here(capsys: pytest.CaptureFixture[str]) -> None:
    code = main()
    lines = capsys.readouterr().out.splitlines()
    assert f"typer=={version('typer')}" in lines
    assert f"pydantic=={version('pydantic')}" in lines
    assert not any(line.startswith(("torch==", "nvidia-cublas", "triton==", "ruff==")) for line in lines)
    assert code == (3 if any(line.startswith("#") for line in lines) else 0)
