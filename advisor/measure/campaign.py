"""The advisor's side of a validation: each Job in fresh ranks, what came back kept as it comes, the next one whatever happened."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from advisor.errors import AdvisorError, MachineError
from advisor.measure.ranks import Interrupted, Nodes, Outcome, Ranks, run_ranks, safe_imports
from advisor.measure.results import Results
from advisor.specs import wire
from advisor.specs.cluster import Node
from advisor.specs.experiment import Job, Measurement
from advisor.version import DISTRIBUTION

EXTRA = f"pip install '{DISTRIBUTION}[validate]'"
_ASK_S = 120.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """What torch says of this machine. `identity` is all that changes a measurement: versions, GPUs, the runner's source."""

    version: str
    gpus: int
    names: tuple[str, ...]
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A job with its measurement; `resumed` says that it was in the results file."""

    job: Job
    measurement: Measurement
    resumed: bool


def need_torch() -> None:
    """Raises MachineError, one sentence, where torch is not installed (it is looked for, not imported)."""
    if importlib.util.find_spec("torch") is None:
        raise MachineError(f"measuring needs torch, which is not installed: {EXTRA}.")
    if importlib.util.find_spec("runner") is None:
        raise MachineError(f"measuring needs the runner that ships with advisor, which is not installed here: {EXTRA}.")


def ask_torch() -> Torch:
    """What torch sees, asked in a process of its own. Raises MachineError where it cannot be asked."""
    need_torch()
    command = [sys.executable, "-m", "runner.devices"]
    environment = {**os.environ, **safe_imports()}
    why = "it gave no answer"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_S, stdin=subprocess.DEVNULL, check=False, env=environment
        )  # fmt: skip
        why = (done.stderr.strip().splitlines() or [why])[-1]
        data = json.loads(done.stdout)
        return Torch(version=data["torch"], gpus=data["gpus"], names=tuple(data["names"]), identity=data["identity"])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"torch does not start here: {error}; install it again: {EXTRA}.") from None
    except (ValueError, KeyError):
        raise MachineError(f"torch does not start here: {why}; install it again: {EXTRA}.") from None


def run_all(
    jobs: Sequence[Job],
    results: Results,
    *,
    node: Node | None,
    nodes: Nodes,
    say: Say,
    threads: int = 1,
    ranks: Ranks | None = None,
) -> tuple[list[Measured], bool]:
    """Measure every job that the results do not have yet, and keep each. False beside them: it was interrupted on the way.

    `node` places the ranks on its GPUs, `threads` are those of each rank on a CPU; `ranks` starts others than the runner's.
    """
    found: list[Measured] = []
    for number, job in enumerate(jobs, 1):
        head = f"[{number}/{len(jobs)}] {job.plan.label}"
        known = results.done(job)
        if known is not None:
            say(f"{head}: measured before, {known.date}")
            found.append(Measured(job=job, measurement=known, resumed=True))
            continue
        say(f"{head}: {_start_words(job)}")
        stopped = False
        try:
            measurement = run_job(
                job, node=node, nodes=nodes, progress=partial(_say_with, say, head), keep=partial(results.keep, job),
                threads=threads, ranks=ranks,
            )  # fmt: skip
        except _StoppedError as error:
            measurement, stopped = error.measurement, True
        if measurement.status == "failed":
            say(f"{head}: " + ("interrupted" if stopped else f"failed: {measurement.reason}"))
        results.keep(job, measurement)
        if results.unwritten:
            say(f"{head}: {results.unwritten}; this run is in the table only")
        found.append(Measured(job=job, measurement=measurement, resumed=False))
        if stopped:
            return found, False
    return found, True


def _say_with(say: Say, head: str, line: str) -> None:
    say(f"{head}: {line}")


def _start_words(job: Job) -> str:
    if job.shard:
        return f"rank {job.shard_rank} of its {job.plan.world} alone, {len(job.cells)} cells"
    return f"{job.plan.world} {'rank' if job.plan.world == 1 else 'ranks'}, {len(job.cells)} cells"


class _StoppedError(Exception):
    """A job was interrupted; what it had by then is in `measurement`."""

    def __init__(self, measurement: Measurement) -> None:
        super().__init__()
        self.measurement = measurement


def run_job(
    job: Job,
    *,
    node: Node | None,
    nodes: Nodes,
    progress: Say,
    keep: Callable[[Measurement], None] = lambda _: None,
    threads: int = 1,
    ranks: Ranks | None = None,
) -> Measurement:
    """One job in fresh ranks. A failure is a Measurement too, with the cells it had and the reason.

    `keep` takes what is measured so far after every cell: this process may be ended together with its machine. Raises _StoppedError
    on Ctrl-C, after every process has ended.
    """
    alone = job.shard
    here = 0 if alone else -(-job.plan.world // nodes.count)
    environment = _visible(job, node, nodes, threads)
    start = ranks or Ranks(module="runner", here=here, nodes=Nodes() if alone else nodes, environment=environment)
    if ranks is not None:
        start = replace(ranks, here=here)
    seen: set[str] = set()

    def tell(text: str) -> None:
        try:
            measurement = wire.from_json(text, Measurement, origin="the ranks")
        except AdvisorError:
            return
        fresh = [line for line in _lines(measurement) if line not in seen]
        for line in fresh:
            seen.add(line)
            progress(line)
        if fresh:
            keep(measurement)

    try:
        outcome = run_ranks(start, wire.to_json(job), time_limit_s=job.time_limit_s, progress=tell)
    except Interrupted as interrupted:
        raise _StoppedError(_measurement(job, interrupted.outcome, nodes)) from None
    except MachineError as error:
        return _failed(job, str(error))
    return _measurement(job, outcome, nodes)


def _visible(job: Job, node: Node | None, nodes: Nodes, threads: int) -> Mapping[str, str]:
    """The GPUs of this node's ranks, in rank order, as CUDA_VISIBLE_DEVICES; empty on a CPU and where they are in order anyway."""
    if job.device == "cpu":
        return {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}
    if node is None or not (job.plan.gpus or node.ids) or job.shard:
        return {}
    each = len(node.devices)
    mine = [job.plan.gpu(rank) % each for rank in range(job.plan.world) if job.plan.gpu(rank) // each == nodes.rank]
    return {"CUDA_VISIBLE_DEVICES": ",".join(node.ids[gpu] if node.ids else str(gpu) for gpu in mine)}


def _lines(measurement: Measurement) -> list[str]:
    """One line a cell."""
    from advisor.units import show

    return [f"{timing.cell.label}: {show(timing.median_s, 's')}" for timing in measurement.timings]


def _measurement(job: Job, outcome: Outcome, nodes: Nodes) -> Measurement:
    """What the ranks left, with the reason of a failure in place of theirs."""
    if outcome.text is not None:
        try:
            measurement = wire.from_json(outcome.text, Measurement, origin="the ranks")
        except AdvisorError as error:
            return _failed(job, outcome.reason or str(error))
        if outcome.reason:
            return replace(measurement, status="failed", reason=outcome.reason)
        return measurement
    if not outcome.reason and nodes.rank:
        return replace(_failed(job, ""), status="ok", notes=("the figures are on the first node",))
    return _failed(job, outcome.reason or "the ranks ended without a result")


def _failed(job: Job, reason: str) -> Measurement:
    return Measurement(
        job_id=job.id, plan=job.plan, status="failed", reason=reason, timings=(), kv_tokens=0, weights_bytes=0.0, device_name="",
        driver="", software="", date="",
    )  # fmt: skip
