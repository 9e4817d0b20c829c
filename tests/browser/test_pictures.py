"""The pictures in docs/ are taken here too: each is there, has the size and shows the view that the page shows now."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from explored import dense

from advisor.api.explore import write_page

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def size(file: Path) -> tuple[int, int]:
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n"), file
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_each_view_has_a_picture_and_each_picture_is_shown(pictures: ModuleType) -> None:
    shown = {state["view"] for state, _ in pictures.PICTURES.values()}
    assert shown == {"plan", "users", "why", "whatif", "where", "formulas"}
    text = (DOCS / "explore.md").read_text(encoding="utf-8")
    for name in pictures.PICTURES:
        assert f"(pictures/{name}.png)" in text
    assert {file.stem for file in (DOCS / "pictures").glob("*.png")} == set(pictures.PICTURES)


def test_pictures_are_those_of_the_page(pictures: ModuleType, chromium: Any, tmp_path: Path) -> None:
    file = tmp_path / "advice.html"
    write_page(dense(), file)
    pictures.take(chromium, file, tmp_path)
    for name in pictures.PICTURES:
        kept, taken = DOCS / "pictures" / f"{name}.png", tmp_path / f"{name}.png"
        assert size(kept) == size(taken) == (pictures.WIDTH, pictures.HEIGHT), name
        # Fonts and figures move a little between machines and versions; an empty page is a fifth of the size.
        assert 0.5 < len(taken.read_bytes()) / len(kept.read_bytes()) < 2, name
