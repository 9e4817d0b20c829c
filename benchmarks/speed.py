"""What an answer costs: CPU seconds and peak memory of whole processes, large sweeps, and bulk estimates.

    python benchmarks/speed.py              # all
    python benchmarks/speed.py process      # only the processes; also: sweep, bulk

A benchmark, not a test: figures depend on the machine. `bulk` takes a points file as second argument, or makes one.
"""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROCESSES = (
    ("start of Python alone", ["-c", "pass"]),
    ("advisor --help", ["-m", "advisor", "--help"]),
    ("advisor recommend --model 70b --gpus 8", ["-m", "advisor", "recommend", "--model", "70b", "--gpus", "8"]),
    ("the same with --json", ["-m", "advisor", "recommend", "--model", "70b", "--gpus", "8", "--json"]),
    ("advisor recommend --model mixtral --gpus 8", ["-m", "advisor", "recommend", "--model", "mixtral", "--gpus", "8"]),
    ("advisor recommend --model deepseek-r1 --gpu h200-141g-sxm --gpus 8",
     ["-m", "advisor", "recommend", "--model", "deepseek-r1", "--gpu", "h200-141g-sxm", "--gpus", "8"]),
    ("advisor explain --model 70b --gpus 8 --plan tp=4,pp=2",
     ["-m", "advisor", "explain", "--model", "70b", "--gpus", "8", "--plan", "tp=4,pp=2"]),
)  # fmt: skip
SWEEPS = (("70b", 8, 128), ("70b", 8, 2048), ("deepseek-r1", 8, 128), ("deepseek-r1", 8, 2048))


def process(arguments: list[str], caches: str) -> tuple[float, float]:
    """CPU seconds and peak MiB of one Python process; the best of three, after one that leaves byte code as an installer does."""
    best = (float("inf"), float("inf"))
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    settings["PYTHONPYCACHEPREFIX"] = caches
    for run in range(4):
        child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=settings)
        _, _, used = os.wait4(child.pid, 0)
        if not run:
            continue
        best = min(best, (used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
    return best


def processes() -> None:
    with tempfile.TemporaryDirectory() as caches:
        for name, arguments in PROCESSES:
            cpu_s, peak_mib = process(arguments, caches)
            print(f"{cpu_s:6.2f} s CPU  {peak_mib:6.0f} MiB  {name}")


def sweeps() -> None:
    from advisor.api.question import question
    from advisor.search.advise import advise
    from advisor.serving.predict import Predictor

    for users in (None, 20_000):
        for model, each, nodes in SWEEPS:
            asked = question(model=model, gpu="h100-80g-sxm", gpus=each, nodes=nodes, users=users)
            began = time.process_time()
            advice = advise(Predictor(asked.problem, asked.calibration))
            taken = time.process_time() - began
            load = f"{users:,} users" if users else "as many users as fit"
            print(f"{taken:6.2f} s CPU  {len(advice.choices):5} plans  {model}, {each * nodes:,} GPUs, {load}")


def bulk(points: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = points or _made(Path(folder) / "points.csv")
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "advisor", "estimate", "--points", source, "--out", Path(folder) / "out.csv", "--offline"],
            check=True,
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{time.perf_counter() - began:6.1f} s wall, {used.ru_utime + used.ru_stime:6.1f} s CPU  bulk estimate of {source.name}"
        )


def _made(path: Path) -> Path:
    """Closed loops of three models over their loads: as many rows as the public collection has."""
    names = ["id", "hardware", "engine", "model", "tp", "dp", "input_tokens", "output_tokens", "mode", "load"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for index in range(4650):
            model = ("llama-3.1-8b", "llama-3.1-70b", "mixtral-8x7b")[index % 3]
            load = 1 << (index // 3 % 8)
            tokens = 128 << (index // 24 % 7)
            writer.writerow([index, "h100-80g-sxm", "vllm", model, (1, 8, 4)[index % 3], 1, tokens, 256, "closed_loop", load])
    return path


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    if what in ("all", "process"):
        processes()
    if what in ("all", "sweep"):
        sweeps()
    if what in ("all", "bulk"):
        bulk(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
