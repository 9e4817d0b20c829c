"""What a simulated load costs: CPU seconds and peak memory.

    python benchmarks/serving.py            # an hour of chat on one replica, a size for five GPU types, a million requests
    python benchmarks/serving.py hour       # only the hour; also: size, million

A benchmark, not a test: figures depend on the machine. Lengths are those of examples/azure-chat-*.csv, drawn with a seed.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from advisor.api.options import Options
from advisor.api.question import question
from advisor.api.simulating import LoadWords, lengths_of
from advisor.api.sizing import size_service
from advisor.serving.arrivals import drawn_requests
from advisor.serving.capacity import Capacity
from advisor.serving.fleet import Fleet
from advisor.serving.predict import Predictor
from advisor.serving.run import simulator
from advisor.specs.arrivals import Arrivals
from advisor.specs.plan import Plan
from advisor.specs.trace import Request

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
RATE_PER_S, SHAPE, HOUR = 5.53, 0.84, 19_366
REPLICA = Capacity(max_sequences=256, kv_tokens=400_000, token_budget=8192)


def chat(requests: int, rate_per_s: float) -> Iterator[Request]:
    """Requests of a chat service, as they came to Azure's."""
    arrivals = Arrivals(requests=requests, kind="gamma", rate_per_s=rate_per_s, burstiness=SHAPE)
    inputs, outputs = (lengths_of("lengths", str(EXAMPLES / f"azure-chat-{name}.csv")) for name in ("input", "output"))
    return drawn_requests(arrivals, inputs, outputs)


def served(requests: int, replicas: int) -> None:
    """So many requests over so many replicas of an 8B model on H100, each at the rate of the hour."""
    asked = question(model="llama-3.1-8b", gpu="h100-80g-sxm", gpus=1, online=False)
    model = Predictor(asked.problem, asked.calibration).step_model(Plan())
    rate_per_s = RATE_PER_S * replicas
    fleet = Fleet([simulator(model, REPLICA, jitter=True) for _ in range(replicas)])
    began = time.process_time()
    fleet.run(chat(requests, rate_per_s), last_s=requests / rate_per_s)
    said(time.process_time() - began, f"{requests:,} requests over {replicas} replicas")


def sized() -> None:
    """The fewest GPUs of five types for the hour."""
    load = LoadWords(
        rate=RATE_PER_S, arrivals="gamma", burstiness=SHAPE, requests=HOUR, ttft="p90=1s", tpot="p99=60ms",
        input_tokens=str(EXAMPLES / "azure-chat-input.csv"), output_tokens=str(EXAMPLES / "azure-chat-output.csv"),
    )  # fmt: skip
    options: Options = {"online": False}
    began = time.process_time()
    size_service(model="llama-3.1-8b", gpus="h100,h200,l40s,a100,mi300x", load=load, options=options)
    said(time.process_time() - began, "the fewest GPUs of five types for an hour")


def said(cpu_s: float, what: str) -> None:
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{cpu_s:6.1f} s CPU  {peak_mib:6.0f} MiB  {what}", flush=True)


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    if what in ("all", "hour"):
        served(HOUR, 1)
    if what in ("all", "size"):
        sized()
    if what in ("all", "million"):
        served(1_000_000, 64)
