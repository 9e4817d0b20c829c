"""Processes that compute end with the one that asked them, however that ends, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from faults.advisor_process import alive, children, points, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


def working(folder: Path) -> tuple[int, list[int], object]:
    """The advisor computing many rows, and its workers."""
    source = points(folder / "in.csv", 3000)
    process = start(["estimate", "--points", str(source), "--out", str(folder / "out.csv"), "--offline"], folder, stderr=-1)
    until = time.monotonic() + 60
    while len(workers := children(process.pid)) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert len(workers) >= 2
    time.sleep(0.3)
    return process.pid, workers, process


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core starts no workers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_their_parent(number: signal.Signals, tmp_path: Path) -> None:
    pid, workers, process = working(tmp_path)
    os.kill(pid, number)
    _, said = process.communicate(timeout=30)  # type: ignore[attr-defined]
    assert alive(workers) == []
    expected = {signal.SIGKILL: -9, signal.SIGINT: 130}.get(number, 128 + number)
    assert process.returncode == expected  # type: ignore[attr-defined]
    assert b"Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core starts no workers")
def test_a_worker_that_is_killed_is_said_in_one_sentence(tmp_path: Path) -> None:
    _, workers, process = working(tmp_path)
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=60)  # type: ignore[attr-defined]
    assert process.returncode == 3  # type: ignore[attr-defined]
    assert b"was killed from outside" in said
    assert said.count(b"\n") == 1
    assert alive(workers) == []
