"""The command line in a process of its own, which a test can end, starve or cut off."""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "advisor"]
QUESTION = ["--model", "70b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--offline"]


def environment(home: Path) -> dict[str, str]:
    """One whose state and configuration are the test's own."""
    folders = {"XDG_CONFIG_HOME": str(home / "config"), "XDG_STATE_HOME": str(home / "state")}
    return {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), **folders}


def start(arguments: list[str], home: Path, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, *arguments], env=environment(home), stdin=subprocess.DEVNULL, **options)


def run(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(home), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def children(pid: int) -> list[int]:
    """Processes that this one started and that run."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def alive(pids: list[int], within_s: float = 5.0) -> list[int]:
    """Those that still run after a moment."""

    def runs(pid: int) -> bool:
        try:
            return b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
        except OSError:
            return False

    until = time.monotonic() + within_s
    while (left := [pid for pid in pids if runs(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def points(path: Path, rows: int) -> Path:
    """Configurations that take a while: each is another question."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "hardware", "gpus", "engine", "model", "tp", "input_tokens", "output_tokens", "mode", "load"])
        for n in range(rows):
            model = ("llama-3.1-70b", "llama-3.1-8b", "mixtral-8x7b")[n % 3]
            writer.writerow([n, "h100-80g-sxm", 8, "vllm", model, (4, 8)[n % 2], 1000 + n, 300 + n, "closed_loop", 1 + n % 64])
    return path
