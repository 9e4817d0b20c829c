"""Generated pages say what the program says now; `python docs/generate.py` makes them again."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_page_is_current(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == generate.cli_page()


def test_the_outputs_in_the_readme_are_real(generate: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(generate.OUTPUT.findall(text)) >= 2
    assert text == generate.readme(text)


def test_the_outputs_of_the_sizing_page_are_real(generate: ModuleType) -> None:
    text = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")
    assert len(generate.OUTPUT.findall(text)) == 2
    assert text == generate.readme(text)


@pytest.mark.slow  # fits the engines anew without each published model
def test_the_accuracy_page_is_current(generate: ModuleType) -> None:
    page = ROOT / "docs" / "accuracy.md"
    if not page.exists():
        pytest.skip("docs/accuracy.md is not there: `python docs/generate.py` makes it")
    assert page.read_text(encoding="utf-8") == generate.accuracy_page()
