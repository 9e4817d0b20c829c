"""Ranks in processes of their own: started through torch's elastic agent, watched, and ended whatever happens.

Nothing is left behind: the agent and its ranks are on a leash (`runner/leash.py`: on Linux the kernel ends them when their
parent ends, also by kill -9), and every way out of `run_ranks` ends what still carries this run's mark.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from advisor.errors import AdvisorError, MachineError
from advisor.specs import wire
from advisor.specs.experiment import RankFailure

MARK = "ADVISOR_RUN_MARK"
_FULL_DISK = 74  # as in runner/failure.py
_PARENT, _FOLDER = "ADVISOR_PARENT_PID", "ADVISOR_RUN_FOLDER"  # as in runner/leash.py
_GRACE_S = 5.0  # for the agent to end its ranks
_START_S = 60.0  # beyond a job's own limit: Python, torch and the rendezvous
_LAST_LINES = 6
AGENT = (sys.executable, "-m", "runner.agent")
ALONE = (sys.executable, "-m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Several machines: how many, which this one is, and where they meet. One: they meet on a free port of this one."""

    count: int = 1
    rank: int = 0
    address: str = ""
    port: int = 29400


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """What to start: `module` with a job file and an output file, as so many ranks here. 0 ranks: one process without an agent."""

    module: str
    here: int
    nodes: Nodes = field(default_factory=Nodes)
    environment: Mapping[str, str] = field(default_factory=dict)
    agent: Sequence[str] = AGENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`text` is the output file's content (None: none was written), `reason` empty when all ranks ended well."""

    text: str | None
    reason: str


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a polite signal to end; `outcome` is what was there by then."""

    def __init__(self, outcome: Outcome, number: int) -> None:
        super().__init__()
        self.outcome, self.number = outcome, number


def run_ranks(ranks: Ranks, job: str, *, id: str, time_limit_s: float, progress: Callable[[str], None]) -> Outcome:
    """Run the ranks to their end, or end them. `progress` gets the output file's text each time it changes.

    Raises Interrupted after everything was ended and MachineError when nothing can be started.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="advisor-run-"))
    except OSError as error:
        raise MachineError(f"no temporary folder can be made: {error.strerror or error}; free some disk or set TMPDIR.") from None
    try:
        return _run_in(folder, ranks, job, id=id, time_limit_s=time_limit_s, progress=progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_in(folder: Path, ranks: Ranks, job: str, *, id: str, time_limit_s: float, progress: Callable[[str], None]) -> Outcome:
    mark = uuid.uuid4().hex
    job_file, out_file = folder / "job.json", folder / "out.json"
    try:
        job_file.write_text(job, encoding="utf-8")
        log = (folder / "agent.log").open("wb")
    except OSError as error:
        raise MachineError(f"cannot write to {folder}: {error.strerror or error}; free some disk or set TMPDIR.") from None
    environment = {
        **os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **ranks.environment,
        MARK: mark, _PARENT: str(os.getpid()), _FOLDER: str(folder), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    with log, caught_signals() as caught:
        process: subprocess.Popen[bytes] | None = None
        try:
            try:
                process = subprocess.Popen(
                    [*_command(ranks, id), "-m", ranks.module, str(job_file), str(out_file)] if ranks.here
                    else [*ALONE, ranks.module, str(job_file), str(out_file)],
                    env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise MachineError(f"the ranks cannot be started: {error.strerror or error}.") from None
            why = _watch(process, out_file, caught, deadline=time.monotonic() + time_limit_s + _START_S, progress=progress)
        finally:
            end(process, mark)
        outcome = Outcome(text=_text(out_file), reason=why or _reason(folder, process.returncode))
        if caught:
            raise Interrupted(outcome, caught[0])
        return outcome


def _command(ranks: Ranks, id: str) -> list[str]:
    nodes = ranks.nodes
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    if nodes.count > 1:
        meet = ["--node-rank", str(nodes.rank), "--master-addr", nodes.address, "--master-port", str(nodes.port)]
    return [
        *ranks.agent, "--nnodes", str(nodes.count), "--nproc-per-node", str(ranks.here), "--max-restarts", "0",
        "--rdzv-id", id, *meet,
    ]  # fmt: skip


def _watch(
    process: subprocess.Popen[bytes], out_file: Path, caught: list[int], *, deadline: float, progress: Callable[[str], None]
) -> str:
    """Wait for the end, telling about the output file on the way. Why it was given up, or nothing."""
    seen = 0
    while process.poll() is None:
        if caught:
            return "interrupted"
        if time.monotonic() > deadline:
            return "took longer than its time limit; --time-limit gives it more"
        with contextlib.suppress(OSError):
            changed = out_file.stat().st_mtime_ns
            if changed != seen:
                seen = changed
                progress(out_file.read_text(encoding="utf-8"))
        time.sleep(0.05)
    return "interrupted" if caught else ""


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Signals that end a program are noted, not raised, while there are processes to end first."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end(process: subprocess.Popen[bytes] | None, mark: str) -> None:
    """End an agent and everything that carries its mark: asked first, then killed; returns when they are gone."""
    if process is not None and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    if process is not None and process.poll() is None:
        process.kill()
    if process is not None:
        process.wait()
    limit = time.monotonic() + _GRACE_S
    while (left := marked(mark)) and time.monotonic() < limit:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def marked(mark: str) -> list[int]:
    """Processes, other than this one, whose environment carries the mark (Linux; elsewhere none can be seen)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:  # gone meanwhile, or another user's
            continue
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


# Why it failed.


def _reason(folder: Path, code: int) -> str:
    """The rank that failed first and why, then its last lines; empty where the agent ended well."""
    if code == 0:
        return ""
    if code == _FULL_DISK:
        return f"a rank could not write its results: the disk is full; free some, or set TMPDIR ({folder.parent})"
    killed = _killed(folder)
    if killed is not None:
        rank, number = killed
        name = signal.Signals(number).name if number in [s.value for s in signal.Signals] else str(number)
        hint = " (the system's out-of-memory killer does that)" if number == signal.SIGKILL else ""
        return f"rank {rank} was killed by {name}{hint}{_doing(folder, rank)}{_last_lines(folder / f'rank{rank}.log')}"
    failures = sorted(_failures(folder), key=lambda failure: failure.at_s)
    stalled = [rank for rank in _ranks(folder) if "Timeout (" in (_text(folder / f"rank{rank}.log") or "")]
    waited = failures and all("waited too long" in f.reason or "lost its connection" in f.reason for f in failures)
    if stalled and (waited or not failures):
        rank = stalled[0]
        return f"rank {rank} made no progress{_doing(folder, rank)} and was ended{_where(folder / f'rank{rank}.log')}"
    if failures:
        first = failures[0]
        others = ""
        if waited:
            silent = [rank for rank in _ranks(folder) if rank not in {f.rank for f in failures}]
            others = f"; rank {silent[0]} did not answer{_doing(folder, silent[0])}" if silent else ""
        return f"rank {first.rank} {first.reason}{others}{_last_lines(folder / f'rank{first.rank}.log')}"
    return "the ranks could not be started" + _last_lines(folder / "agent.log")


def _killed(folder: Path) -> tuple[int, int] | None:
    """A rank that a signal ended (not the agent's own SIGTERM), and the signal."""
    try:
        codes = json.loads((folder / "agent.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ended = {int(rank): -int(code) for rank, code in codes.items() if int(code) < 0 and -int(code) != signal.SIGTERM}
    return min(ended.items()) if ended else None


def _failures(folder: Path) -> list[RankFailure]:
    found = []
    for path in folder.glob("rank*.failure"):
        with contextlib.suppress(AdvisorError, OSError):
            found.append(wire.from_json(path.read_bytes(), RankFailure, origin=path.name))
    return found


def _ranks(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("rank")) for path in folder.glob("rank*.log"))


def _doing(folder: Path, rank: int) -> str:
    doing = _text(folder / f"rank{rank}.beat")
    return f" at '{doing}'" if doing else ""


def _where(log: Path) -> str:
    """Where the main thread was when the watchdog struck: it is the last in the dump, its innermost call first."""
    dump = (_text(log) or "").rpartition("Timeout (")[2].rpartition("most recent call first")[2]
    calls = [" ".join(line.split()) for line in dump.splitlines() if line.strip().startswith("File ")]
    return f"; it was in {' < '.join(calls[:3])}" if calls else ""


def _last_lines(log: Path) -> str:
    """The last lines of a log, joined, as the end of a sentence."""
    lines = [" ".join(line.split())[:200] for line in (_text(log) or "").splitlines() if line.strip()]
    return f"; its last lines: {' | '.join(lines[-_LAST_LINES:])}" if lines else ""
