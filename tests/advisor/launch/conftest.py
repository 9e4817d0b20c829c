"""Boxes with a script in them, stopped after the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from launch_stand_ins import Box

from advisor.specs.plan import Plan


@pytest.fixture
def box(tmp_path: Path):
    boxes: list[Box] = []

    def build(name: str = "vllm", plan: Plan | None = None, **question) -> Box:
        boxes.append(Box(tmp_path, name, plan or Plan(tp=2), **question))
        return boxes[-1]

    yield build
    for made in boxes:
        made.close()
