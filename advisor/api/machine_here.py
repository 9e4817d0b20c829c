"""The machine that measures: what torch sees, its micro-benchmarks, and the question put to it. Free of typer."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, replace

from advisor.api.options import Options
from advisor.api.question import Question, question
from advisor.calibrate.local import LocalFit, cpu_cluster, cpu_engine, fit
from advisor.catalog.calibrations import load_calibration
from advisor.catalog.engines import load_engine
from advisor.errors import AdvisorError, MachineError, QuestionError, one_line
from advisor.measure.campaign import Torch, ask_torch
from advisor.measure.ranks import Interrupted, Nodes, Ranks, run_ranks
from advisor.specs import wire
from advisor.specs.benchmark import BenchJob, Benchmarks
from advisor.specs.cluster import Cluster, Device
from advisor.specs.engine import Engine

BENCH_LIMIT_S = 110.0  # under two minutes a GPU
TINY_LIMIT_S = 30.0
RANKS_A_CORE, _LEAST_MOST_RANKS = 4, 8  # each is a process with torch: about 0.3 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The machine as it is measured: ranks at hand, its calibration and the runner's profile on it; `machine` in words."""

    asked: Question
    engine: Engine
    gpus: int
    said: tuple[str, ...]
    machine: str = ""


def say(line: str) -> None:
    """Talk, on stderr."""
    with contextlib.suppress(OSError, AttributeError):  # closed, or nobody reads it any more: the measurement goes on
        sys.stderr.write(one_line(line) + "\n")
        sys.stderr.flush()


def benchmarks(*, device: str, ranks: int, nodes: Nodes, formats: tuple[str, ...] = ("bf16", "fp8")) -> Benchmarks:
    """The micro-benchmarks on so many ranks. Raises MachineError with the reason where they fail."""
    tiny = device == "cpu"
    job = BenchJob(
        device="cpu" if tiny else "cuda", formats=("fp32",) if tiny else formats, tiny=tiny,
        time_limit_s=TINY_LIMIT_S if tiny else BENCH_LIMIT_S,
    )  # fmt: skip
    here = -(-ranks // nodes.count) if ranks > 1 else 0
    start = Ranks(module="runner.microbench", here=here, nodes=nodes, environment=_cpu_words(ranks) if tiny else {})
    try:
        outcome = run_ranks(start, wire.to_json(job), time_limit_s=job.time_limit_s + 60.0, progress=lambda _: None)
    except Interrupted as interrupted:
        say("interrupted: nothing was measured yet")
        raise KeyboardInterrupt from interrupted
    if outcome.text is None or outcome.reason:
        raise MachineError(f"the micro-benchmarks failed: {outcome.reason or 'they left no result'}.")
    return wire.from_json(outcome.text, Benchmarks, origin="the micro-benchmarks")


def _first(given: int | None, otherwise: int) -> int:
    return otherwise if given is None else given


def cpu_threads(ranks: int) -> int:
    """Threads of each of `ranks` parts of this CPU."""
    return max(1, (os.cpu_count() or 1) // ranks)


def _cpu_words(ranks: int) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(cpu_threads(ranks))}


def bench_for(model: str, asked: Options, *, device: str, wanted: int, nodes: Nodes) -> Bench:
    """The question on the machine here. `wanted` is how many ranks the given plans need (0: the recommendation decides)."""
    torch = ask_torch()
    engine = load_engine("runner")
    if device == "cpu":
        return replace(
            _cpu(model, asked, engine, ranks=cpu_ranks(_first(asked.get("gpus"), wanted or 2)), wanted=wanted),
            machine=torch.identity,
        )
    if not torch.gpus:
        raise MachineError(
            f"torch {torch.version} sees no GPU here: install a build for the driver, or try the program with --device cpu."
        )
    options: Options = {**asked, "engine": "vllm"}
    here = torch.gpus * nodes.count
    more = _more_of_the_same(asked, torch, wanted) if wanted > here else None
    if more is not None:
        options = {**options, "gpu": more.name, "gpus": wanted}
    found = question(model=model, **options)
    said = () if more is None else (f"Predicted for {wanted} x {more.name}, of which {here} {'is' if here == 1 else 'are'} here.",)
    said = (*said, *_mismatch(found.problem.cluster, torch))
    return Bench(asked=found, engine=engine, gpus=here, said=said, machine=torch.identity)


def _more_of_the_same(asked: Options, torch: Torch, wanted: int) -> Device | None:
    """The GPU here, where a plan needs more of it than there are and no machine was named."""
    from advisor.catalog.machines import device_for_reading

    return None if asked.get("gpu") or asked.get("cluster") else device_for_reading(torch.names[0], None)


def cpu_ranks(wanted: int) -> int:
    """So many ranks on this CPU. Raises QuestionError beyond what its cores can stand in for."""
    most = max(_LEAST_MOST_RANKS, RANKS_A_CORE * (os.cpu_count() or 1))
    if not 1 <= wanted <= most:
        raise QuestionError(
            f"{wanted} ranks are not possible on this CPU, whose cores stand in for 1 to {most} GPUs; say --gpus 2."
        )
    return wanted


def _cpu(model: str, asked: Options, engine: Engine, *, ranks: int, wanted: int) -> Bench:
    say(f"measuring this CPU with {ranks} {'rank' if ranks == 1 else 'ranks'}, so that there is something to predict from")
    found = benchmarks(device="cpu", ranks=ranks, nodes=Nodes())
    cluster = cpu_cluster(found, max(ranks, wanted))
    options: Options = {**asked, "engine": "vllm", "cluster": cluster, "gpu": "", "gpus": None, "nodes": None, "calibration": None}
    ours = question(model=model, **options)
    local = fit(found, load_calibration(cluster.device, local=False), cluster, unknown=True)
    who = "one rank reaches" if ranks == 1 else f"{ranks} ranks reach together"
    said = (f"A CPU stands in for the GPUs: what {who} is the data sheet, and a plan of fewer ranks shares it with fewer.",)
    return Bench(asked=replace(ours, calibration=local.calibration), engine=cpu_engine(engine, found), gpus=ranks, said=said)


def _mismatch(cluster: Cluster, torch: Torch) -> tuple[str, ...]:
    """A note where the machine predicted is not the one that measures."""
    from advisor.catalog.machines import device_for_reading

    here = device_for_reading(torch.names[0], None)
    if here is not None and here.name.split("-")[0] != cluster.device.name.split("-")[0]:
        return (f"Predicted for {cluster.device.name}, measured on {torch.names[0]}: the errors mix both.",)
    return ()


def calibrate_here(*, device: str, gpus: int | None) -> tuple[LocalFit, Cluster, Benchmarks]:
    """Micro-benchmarks of the GPUs here, and the calibration they make."""
    torch = ask_torch()
    if device == "cpu":
        ranks = cpu_ranks(_first(gpus, 2))
        found = benchmarks(device="cpu", ranks=ranks, nodes=Nodes())
        cluster = cpu_cluster(found, ranks)
        return fit(found, load_calibration(cluster.device, local=False), cluster, unknown=True), cluster, found
    if not torch.gpus:
        raise MachineError(f"torch {torch.version} sees no GPU here: install a build for the driver, or name --device cpu.")
    cluster = _cluster_here(torch, gpus or torch.gpus)
    say(f"micro-benchmarks on {cluster.gpus} x {cluster.device.name}, under two minutes")
    found = benchmarks(device="cuda", ranks=min(gpus or torch.gpus, torch.gpus), nodes=Nodes())
    return fit(found, load_calibration(cluster.device, local=False), cluster), cluster, found


def _cluster_here(torch: Torch, gpus: int) -> Cluster:
    """The machine as NVML describes it, else as so many of the GPU that torch names."""
    from advisor.catalog.devices import list_devices
    from advisor.catalog.machines import device_for_reading, load_cluster
    from advisor.probe.nvml import read_nvml
    from advisor.probe.topology import cluster_from

    try:
        readings = read_nvml()
        if readings.gpus:
            return cluster_from(readings, list_devices(), find=device_for_reading)
    except AdvisorError:  # no library, no driver, a GPU without a sheet: torch's own name is tried
        pass
    device = device_for_reading(torch.names[0], None)
    if device is None:
        raise MachineError(f"{torch.names[0]} is not in the catalogue; write its sheet first (docs/profiles.md).")
    return load_cluster(gpu=device.name, gpus=gpus)
