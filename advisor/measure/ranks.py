"""Ranks in processes of their own: started through an agent, watched, and ended whatever happens.

Nothing is left behind: the agent (`runner/agent.py`) ends its ranks when the pipe from this process closes, on Linux the kernel
ends the ranks when their agent ends, and every way out of `run_ranks` ends what still carries this run's mark. Nothing listens
beyond this machine: the ranks of one machine meet through a file of a private folder and talk over the loopback interface. No code
comes from the current folder: ranks run in that private folder, with Python's safe path.
"""

from __future__ import annotations

import contextlib
import importlib.util
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

from advisor.errors import MachineError
from advisor.measure.rank_failure import reason_of

MARK = "ADVISOR_RUN_MARK"
_FOLDER, _SECRET = "ADVISOR_RUN_FOLDER", "ADVISOR_SECRET"  # as in runner/watchdog.py and runner/agent.py
_GRACE_S = 5.0  # for the agent to end its ranks
_START_S = 60.0  # beyond a job's own limit: Python, torch and the meeting of the ranks
AGENT = (sys.executable, "-m", "runner.agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Several machines: how many, which this one is, where they meet, and the secret by which they know each other."""

    count: int = 1
    rank: int = 0
    address: str = ""
    port: int = 29400
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """What to start: `module` with a job file and an output file, as so many ranks here. 0 ranks: one that meets nobody."""

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
    """Ctrl-C, SIGTERM or SIGHUP; `outcome` is what was there by then."""

    def __init__(self, outcome: Outcome, number: int) -> None:
        super().__init__()
        self.outcome, self.number = outcome, number


def run_ranks(ranks: Ranks, job: str, *, time_limit_s: float, progress: Callable[[str], None]) -> Outcome:
    """Run the ranks to their end, or end them. `progress` gets the output file's text each time it changes.

    Raises Interrupted after everything was ended and MachineError when nothing can be started.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="advisor-run-"))
    except OSError as error:
        raise MachineError(f"no temporary folder can be made: {error.strerror or error}; free some disk or set TMPDIR.") from None
    try:
        return _run_in(folder, ranks, job, time_limit_s=time_limit_s, progress=progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_in(folder: Path, ranks: Ranks, job: str, *, time_limit_s: float, progress: Callable[[str], None]) -> Outcome:
    mark = uuid.uuid4().hex
    job_file, out_file = folder / "job.json", folder / "out.json"
    try:
        job_file.write_text(job, encoding="utf-8")
        log = (folder / "agent.log").open("wb")
    except OSError as error:
        raise MachineError(f"cannot write to {folder}: {error.strerror or error}; free some disk or set TMPDIR.") from None
    with log, caught_signals() as caught:
        process: subprocess.Popen[bytes] | None = None
        why = ""
        try:
            try:
                process = subprocess.Popen(
                    [*_command(ranks, time_limit_s), ranks.module, str(job_file), str(out_file)], cwd=folder,
                    env=_environment(ranks, folder, mark), stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise MachineError(f"the ranks cannot be started: {error.strerror or error}.") from None
            why = _watch(process, out_file, caught, deadline=time.monotonic() + time_limit_s + _START_S, progress=progress)
        finally:
            end(process, mark)
        outcome = Outcome(text=_text(out_file), reason=reason_of(folder, process.returncode, why))
        if caught:
            raise Interrupted(outcome, caught[0])
        return outcome


def _environment(ranks: Ranks, folder: Path, mark: str) -> dict[str, str]:
    """The caller's environment, with what the agent must know, and with imports from safe places only."""
    found = {
        **os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **safe_imports(), **ranks.environment,
        MARK: mark, _FOLDER: str(folder), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    return found | {_SECRET: ranks.nodes.secret} if ranks.nodes.count > 1 else found


def safe_imports() -> dict[str, str]:
    """For a Python that is to run the runner: no module comes from the current folder, nor from a relative place in PYTHONPATH.

    Where the runner is not installed (a checkout), its folder is named.
    """
    spec = importlib.util.find_spec("runner")
    root = Path(spec.submodule_search_locations[0]).resolve().parent if spec and spec.submodule_search_locations else None
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(place)]
    if root is not None and root.name not in ("site-packages", "dist-packages"):
        places.append(str(root))
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(places)}


def _command(ranks: Ranks, time_limit_s: float) -> list[str]:
    nodes = ranks.nodes
    several = [
        "--nodes", str(nodes.count), "--node", str(nodes.rank), "--host", nodes.address, "--port", str(nodes.port),
        "--limit-s", str(time_limit_s),
    ]  # fmt: skip
    return [*ranks.agent, "--ranks", str(ranks.here), *(several if nodes.count > 1 else [])]


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
    """End a process and everything that carries its mark: asked first, then killed; returns when they are gone."""
    if process is not None and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    if process is not None and process.poll() is None:
        process.kill()
    if process is not None:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
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
