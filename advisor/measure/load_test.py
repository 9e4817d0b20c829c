"""A real engine under load: its own launch script started (or a running server taken), the load generator run, its result read.

The scripts are those of `advisor launch`, so what is measured is what would be run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from advisor.errors import MachineError, QuestionError
from advisor.launch import render
from advisor.launch.benchmark import load_size
from advisor.launch.script import Options, ScriptFile
from advisor.measure.load_result import LoadResult, result_of
from advisor.measure.ranks import MARK, caught_signals, end
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem
from advisor.specs.workload import Mode, Workload

TOOLS = ("aiperf", "vllm")
_RESULT = {"aiperf": "profile_export_aiperf.json", "vllm": "result.json"}
_POLL_S = 0.1
_STOP_S = 90.0  # start.sh gives its servers 60 s


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTest:
    """What to load: a server that runs at `endpoint`, or (empty) one that is started. `model` is the id or folder it serves."""

    problem: Problem
    prediction: Prediction
    tool: str
    endpoint: str = ""
    model: str = ""
    time_limit_s: float = 3600.0


def load_tool(wanted: str) -> str:
    """The load generator to use. Raises MachineError, one sentence, where it (or either) is not installed."""
    if wanted and wanted not in TOOLS:
        raise QuestionError(f"unknown load tool {wanted!r}; use aiperf or vllm.")
    found = next((name for name in ([wanted] if wanted else TOOLS) if shutil.which(name)), "")
    if not found:
        raise MachineError(
            f"measuring a real engine needs {wanted or 'aiperf or vllm'}, which is not installed here: "
            f"pip install {wanted or 'aiperf'} in an environment of its own."
        )
    return found


def load_for(workload: Workload, sequences: float) -> Workload:
    """The load a generator can make: so many requests from a cold start.

    "As many as fit" becomes the number of requests that the prediction has in flight.
    """
    if workload.mode in ("static_batch", "single_stream", "offline"):
        return workload
    users, requests = load_size(workload, sequences)
    mode: Mode = "open_loop" if workload.mode == "open_loop" else "closed_loop"
    return replace(workload, mode=mode, users=users, start="burst", requests=requests)


def measure(test: LoadTest, say: Callable[[str], None]) -> LoadResult:
    """Load the server and read the result. Raises MachineError with the last lines of what failed; nothing is left running."""
    port = 0 if test.endpoint else free_port()
    options = Options(checkpoint=test.model, port=port or 8000, load_tool=test.tool)
    files = {file.name: file for file in render(test.problem, test.prediction, target="bash", options=options)}
    try:
        folder = Path(tempfile.mkdtemp(prefix="advisor-load-"))
    except OSError as error:
        raise MachineError(f"no temporary folder can be made: {error.strerror or error}; free some disk or set TMPDIR.") from None
    try:
        url = checked_url(test.endpoint) if test.endpoint else f"http://127.0.0.1:{port}"
        with caught_signals() as caught, _server(folder, files, test, port, caught, say):
            say(f"loading {url} with {test.tool}")
            out = folder / "out"
            _run(folder, files["bench.sh"], {"URL": url, "OUT": str(out), **_model(test)}, caught, test.time_limit_s)
            return _read(out / _RESULT[test.tool])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def checked_url(text: str) -> str:
    """The URL without its path. Raises QuestionError where it is none: it goes into a command."""
    match = re.fullmatch(r"(https?://[A-Za-z0-9.\-]+(?::\d{1,5})?|https?://\[[0-9a-fA-F:]+\](?::\d{1,5})?)(?:/v1)?/?", text)
    if not match:
        raise QuestionError(f"--endpoint {text!r} is not an address of a server; write it as http://127.0.0.1:8000.")
    return match[1]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _model(test: LoadTest) -> dict[str, str]:
    return {"MODEL": test.model} if test.model else {}


@contextlib.contextmanager
def _server(
    folder: Path, files: dict[str, ScriptFile], test: LoadTest, port: int, caught: list[int], say: Callable[[str], None]
) -> Iterator[None]:
    """The plan's servers, up, and down again afterwards; nothing where one runs already."""
    if test.endpoint:
        yield
        return
    say(f"starting {test.problem.engine.name} as {test.prediction.plan.label}; loading a model takes minutes")
    environment = {"PORT": str(port), "LISTEN": "127.0.0.1", "RUN_DIR": str(folder / "run"), **_model(test)}
    process, mark, log = _start(folder, files["start.sh"], environment)
    try:
        deadline = time.monotonic() + test.time_limit_s
        while "ready: http" not in _tail(log, 4000):
            if process.poll() is not None:
                raise MachineError(f"{test.problem.engine.name} did not start: {_last_lines(log)}.")
            _check(caught)
            if time.monotonic() > deadline:
                raise MachineError(f"{test.problem.engine.name} was not ready in time; --time-limit gives it more.")
            time.sleep(_POLL_S)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        end(process, mark)


def _run(folder: Path, script: ScriptFile, environment: dict[str, str], caught: list[int], limit_s: float) -> None:
    process, mark, log = _start(folder, script, environment)
    try:
        deadline = time.monotonic() + limit_s
        while process.poll() is None:
            _check(caught)
            if time.monotonic() > deadline:
                raise MachineError("the load test took longer than its time limit; --time-limit gives it more.")
            time.sleep(_POLL_S)
    finally:
        end(process, mark)
    if process.returncode:
        raise MachineError(f"the load test failed: {_last_lines(log)}.")


def _start(folder: Path, script: ScriptFile, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], str, Path]:
    mark, path, log = uuid.uuid4().hex, folder / script.name, folder / f"{script.name}.log"
    try:
        path.write_text(script.text, encoding="utf-8")
        path.chmod(0o755)
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", str(path)], env={**os.environ, **environment, MARK: mark}, stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise MachineError(f"{script.name} cannot be started: {error.strerror or error}.") from None
    return process, mark, log


def _check(caught: list[int]) -> None:
    if caught:
        raise KeyboardInterrupt if caught[0] == signal.SIGINT else SystemExit(128 + caught[0])


def _read(path: Path) -> LoadResult:
    try:
        return result_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise MachineError(f"the load test left no result: {error}.") from None


def _tail(path: Path, size: int) -> str:
    try:
        return path.read_bytes()[-size:].decode(errors="replace")
    except OSError:
        return ""


def _last_lines(path: Path) -> str:
    lines = [" ".join(line.split())[:200] for line in _tail(path, 4000).splitlines() if line.strip()]
    return " | ".join(lines[-6:]) or "it printed nothing"
