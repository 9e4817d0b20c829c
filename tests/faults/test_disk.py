"""A disk without room: nothing is half written, the old file stays, and every command says so with the same exit code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from faults.advisor_process import COMMAND, QUESTION, environment, points

# A file system of 64 KiB in a mount namespace of its own, filled to the last byte; then the command.
FULL = """
set -e
mount -t tmpfs -o size=64k tmpfs "$DISK"
printf old > "$DISK/out.csv"
head -c 70000 /dev/zero > "$DISK/filler" 2>/dev/null || true
set +e
"$@"
echo "code $?"
cat "$DISK/out.csv"
ls -A "$DISK"
"""


def on_full_disk(arguments: list[str], home: Path) -> list[str]:
    disk = home / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", FULL, "full", *COMMAND, *arguments],
        env={**environment(home), "DISK": str(disk)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if "code" not in done.stdout:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()[-200:]}")
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr
    return done.stdout.splitlines()


def vllm_result(path: Path) -> Path:
    figures = {
        "completed": 10, "total_input_tokens": 10000, "total_output_tokens": 5000, "max_concurrency": 4, "mean_ttft_ms": 200.0,
        "mean_tpot_ms": 20.0, "output_throughput": 200.0, "request_throughput": 0.4,
    }  # fmt: skip
    path.write_text(json.dumps(figures))
    return path


def test_estimates_of_many_rows(tmp_path: Path) -> None:
    source = points(tmp_path / "in.csv", 20)
    said = on_full_disk(["estimate", "--points", str(source), "--out", str(tmp_path / "disk" / "out.csv"), "--offline"], tmp_path)
    assert said == ["code 3", "oldfiller", "out.csv"]


def test_a_measured_point(tmp_path: Path) -> None:
    out = str(tmp_path / "disk" / "new.csv")
    result = vllm_result(tmp_path / "run.json")
    said = on_full_disk(["compare", str(result), *QUESTION, "--plan", "tp=8", "--out", out, "--json"], tmp_path)
    assert said[-3:] == ["code 3", "oldfiller", "out.csv"]


def test_launch_scripts(tmp_path: Path) -> None:
    out = str(tmp_path / "disk" / "scripts")
    said = on_full_disk(["launch", *QUESTION, "--plan", "tp=8", "--out", out], tmp_path)
    assert said[0] == "code 3"
    assert not [name for name in said if name.endswith(".sh")]
