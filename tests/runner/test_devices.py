from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner import devices


def identity(**environment: str) -> str:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "runner.devices"], env={**os.environ, "PYTHONPATH": root, **environment}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return str(json.loads(done.stdout)["identity"])


def test_the_identity_names_what_changes_a_measurement() -> None:
    torch = pytest.importorskip("torch")
    text = identity(NCCL_ALGO="Ring")
    assert f"torch {torch.__version__}" in text
    assert f"runner {devices.runner_digest()}" in text
    assert "NCCL_ALGO=Ring" in text


def test_the_digest_is_that_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "devices.py").write_text("a")
    monkeypatch.setattr(devices, "__file__", str(tmp_path / "devices.py"))
    before = devices.runner_digest()
    (tmp_path / "measure.py").write_text("b")
    assert devices.runner_digest() != before
