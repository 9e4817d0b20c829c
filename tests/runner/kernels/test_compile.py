"""Every kernel compiles to machine code of each architecture, without a GPU, and its tile fits the architecture's shared memory."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(  # not imported: in this process it is interpreted
    importlib.util.find_spec("triton") is None, reason="Triton is not installed; torch's CUDA builds bring it"
)

# Bytes a block may have: CUDA C++ programming guide, table of compute capabilities.
SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}


@pytest.mark.slow
def test_kernels_compile_for_every_architecture() -> None:
    """In a process of its own, because the interpreter's switch is read once."""
    root = Path(__file__).parents[3]
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), *sys.path])
    command = [sys.executable, "-W", "ignore", "-m", "runner.kernels.build", *map(str, SHARED_BYTES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {int(line[0]) for line in lines} == set(SHARED_BYTES)
    for capability, name, shared in lines:
        assert int(shared) <= SHARED_BYTES[int(capability)], (capability, name)
