"""Pasted topologies, launch scripts and load generators' results, damaged; and configurations by the row."""

from __future__ import annotations

import atexit
import csv
import io
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fuzz.limits import answer_or_sentence, command, fuzzed
from fuzz.mutate import VALUES, damaged, garbled

from advisor.api.bulk import STATUSES, estimate_rows, read_rows
from advisor.catalog.devices import list_devices
from advisor.catalog.machines import device_for_reading
from advisor.launch import parse
from advisor.measure.load_result import result_of
from advisor.probe.nvidia_smi import read_topology_text
from advisor.probe.topology import cluster_from
from advisor.specs.plan import Plan

FOLDER = Path(tempfile.mkdtemp(prefix="advisor-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def matrix(gpus: int, dice: Random) -> str:
    """What `nvidia-smi topo -m` prints, with the list of `nvidia-smi -L` before it."""
    link = dice.choice(("NV18", "NV4", "PIX", "PHB", "NODE", "SYS"))
    lines = [f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: GPU-{i:08d}-0000-0000-0000-000000000000)" for i in range(gpus)]
    lines.append("\t" + "\t".join([f"GPU{i}" for i in range(gpus)] + ["CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]))
    for i in range(gpus):
        cells = [" X " if i == j else link if abs(i - j) % 2 else "SYS" for j in range(gpus)]
        lines.append("\t".join([f"GPU{i}", *cells, f"{i * 16}-{i * 16 + 15}", str(i // 4), "N/A"]))
    return "\n".join(lines) + "\n"


def rocm(gpus: int) -> str:
    heads = "       " + "         ".join(f"GPU{i}" for i in range(gpus))
    parts = []
    for title, cell in (("Weight between two GPUs", "15"), ("Hops between two GPUs", "1"), ("Link Type between two GPUs", "XGMI")):
        rows = [f"GPU{i}   " + "  ".join("0" if i == j else cell for j in range(gpus)) for i in range(gpus)]
        parts.append("\n".join([f"=========== {title} ===========", heads, *rows]))
    numa = [f"GPU[{i}]\t\t: (Topology) Numa Node: {i // 4}" for i in range(gpus)]
    return "\n".join([*parts, "=========== Numa Nodes ===========", *numa])


@fuzzed(350)
def test_topologies(seed: int) -> None:
    """Damaged pastes: a machine or a sentence, within the time."""
    dice = Random(seed)
    text = rocm(dice.choice((2, 4, 8))) if dice.random() < 0.25 else matrix(dice.choice((1, 2, 4, 8, 16)), dice)
    text = garbled(text, dice)
    readings = answer_or_sentence(lambda: read_topology_text(text))
    if readings is not None and readings.gpus:
        answer_or_sentence(lambda: cluster_from(readings, list_devices(), find=device_for_reading))


@fuzzed(60)
def test_topologies_are_shown(seed: int) -> None:
    dice = Random(seed)
    text = garbled(matrix(dice.choice((2, 8)), dice), dice, times=3)
    command(["probe", "--from", "-", *dice.choice(([], ["--json"], ["--yaml"]))], stdin=text.encode("utf-8", "surrogatepass"))


@cache
def scripts() -> tuple[str, ...]:
    found = []
    for engine in ("vllm", "sglang", "trtllm"):
        for target in ("bash", "compose", "kubernetes", "slurm", "docker"):
            question = ["--model", "70b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--plan", "tp=4,dp=2", "--offline"]
            code, text, _ = command(["launch", *question, "--engine", engine, "--target", target])
            assert code == 0
            found.append(text)
    return tuple(found)


@fuzzed(150)
def test_scripts(seed: int) -> None:
    dice = Random(seed)
    text = garbled(dice.choice(scripts()), dice, times=4)
    plan = answer_or_sentence(lambda: parse(text))
    assert plan is None or isinstance(plan, Plan)


VLLM: dict[str, Any] = {
    "completed": 640, "failed": 0, "total_input_tokens": 655360, "total_output_tokens": 327680, "max_concurrency": 64,
    "request_rate": "inf", "mean_ttft_ms": 300.0, "mean_tpot_ms": 25.0, "mean_e2el_ms": 13000.0, "output_throughput": 2500.0,
    "request_throughput": 4.9,
}  # fmt: skip
AIPERF: dict[str, Any] = {
    "request_count": {"avg": 640, "unit": "requests"}, "input_sequence_length": {"avg": 1024.0, "unit": "tokens"},
    "output_sequence_length": {"avg": 512.0, "unit": "tokens"}, "time_to_first_token": {"avg": 300.0, "unit": "ms"},
    "inter_token_latency": {"avg": 25.0, "unit": "ms"}, "request_latency": {"avg": 13000.0, "unit": "ms"},
    "output_token_throughput": {"avg": 2500.0, "unit": "tokens/sec"}, "request_throughput": {"avg": 4.9, "unit": "requests/sec"},
    "input_config": {"loadgen": {"concurrency": 64}},
}  # fmt: skip


@fuzzed(100)
def test_results_of_benchmarks(seed: int) -> None:
    dice = Random(seed)
    data = damaged(dice.choice((VLLM, AIPERF)), dice)
    answer_or_sentence(lambda: result_of(data))


@fuzzed(40)
def test_results_are_compared(seed: int) -> None:
    dice = Random(seed)
    text = json.dumps(damaged(dice.choice((VLLM, AIPERF)), dice, times=2))
    path = FOLDER / "run.json"
    path.write_bytes((garbled(text, dice) if dice.random() < 0.2 else text).encode("utf-8", "surrogatepass"))
    how = ["--plan", "tp=8"] if dice.random() < 0.7 else ["--script", str(_put("start.sh", garbled(dice.choice(scripts()), dice)))]
    command(["compare", str(path), "--model", "70b", "--gpu", "h100-80g-sxm", "--gpus", "8", "--offline", *how])


def _put(name: str, text: str) -> Path:
    path = FOLDER / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


ROW = {
    "id": "a", "hardware": "h100-80g-sxm", "interconnect": "nvswitch", "nodes": "1", "gpus": "4", "engine": "vllm",
    "engine_version": "0.9", "model": "llama-3.1-70b", "weight_dtype": "bf16", "kv_dtype": "bf16", "tp": "4", "pp": "1", "dp": "1",
    "ep": "1", "input_tokens": "1024", "output_tokens": "256", "mode": "closed_loop", "load": "16", "request_rate_per_s": "",
}  # fmt: skip
OTHERS = {
    "hardware": ("l40s", "mi300x", "gb200", "rtx-4090", "h100", "abacus"),
    "model": ("llama-3.1-8b", "deepseek-v3", "mixtral-8x7b", "x/y"),
    "mode": ("offline", "open_loop", "single_stream", "guess"), "engine": ("sglang", "trtllm", "steam"),
    "tp": ("1", "3", "8", "72"),
    "pp": ("2", "5"), "dp": ("2", "9"), "ep": ("8", "64"), "nodes": ("2", "1000"), "gpus": ("8", "72", "100000"),
    "weight_dtype": ("fp8", "nvfp4", "int4", "fp3"), "load": ("1", "100000", "0.5"), "input_tokens": ("1", "1000000"),
    "output_tokens": ("1", "100000"), "request_rate_per_s": ("0.1", "1e9", "nan"),
}  # fmt: skip


def _row(dice: Random) -> dict[str, str]:
    row = dict(ROW)
    for _ in range(dice.randint(1, 4)):
        key = dice.choice(list(OTHERS))
        row[key] = dice.choice(OTHERS[key]) if dice.random() < 0.6 else str(dice.choice(VALUES))[:3000]
    return row


@fuzzed(250)
def test_points(seed: int) -> None:
    """A damaged row has a status and a reason; it never stops the others."""
    row = _row(Random(seed))
    (found,) = answer_or_sentence(lambda: estimate_rows([row], online=False))
    assert found["status"] in STATUSES
    assert found["status"] == "ok" or found["reason"]
    assert "\n" not in str(found["reason"])


@fuzzed(60)
def test_files_of_points(seed: int) -> None:
    dice = Random(seed)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROW))
    writer.writeheader()
    writer.writerows(_row(dice) for _ in range(3))
    path = _put("points.csv", garbled(text.getvalue(), dice))
    answer_or_sentence(lambda: read_rows(path))
