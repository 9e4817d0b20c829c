"""`python -m runner.agent --ranks N MODULE JOB OUT`: the ranks of this machine, started, watched, and ended when one fails.

Nothing of it outlives the advisor: its standard input is a pipe whose other end only the advisor holds, which the kernel closes
however the advisor ends; the agent then kills its process group (ranks, and what they started) and removes the run's folder.
On one machine the ranks meet through a file of that folder and talk over the loopback interface; on several, after the handshake
of `runner/handshake.py`, over the interface that leads to --master.

Which ranks ended by themselves, with which code, and which were stopped (SIGSTOP), is left in `agent.json`. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from advisor.errors import MachineError
from runner.handshake import Meeting, guest, host
from runner.interfaces import loopback, toward
from runner.watchdog import FOLDER, FULL_DISK, LISTENER, MEET, PARENT

SECRET = "ADVISOR_SECRET"
_PLACES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", MEET, LISTENER, SECRET)
_POLL_S = 0.02
_LAST_WORDS_S = 1.0  # for the other ranks to say why they end, once one has


def main(arguments: list[str]) -> int:
    """Run the ranks; 0 when all ended well."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    options = _options().parse_args(arguments)
    ranks: list[subprocess.Popen[bytes]] = []
    threading.Thread(target=_end_with_parent, args=(ranks,), daemon=True).start()
    try:
        environment, listener = _environment(options)
    except MachineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for local in range(max(1, options.ranks)):
        handed = (listener,) if listener >= 0 and local == 0 else ()
        place = _place(options, local, handed) if options.ranks else {}
        command = [sys.executable, "-m", options.module, options.job, options.out]
        ranks.append(subprocess.Popen(command, env={**environment, **place}, stdin=subprocess.DEVNULL, pass_fds=handed))
    if listener >= 0:
        os.close(listener)
    return _watch(ranks, first=options.node * options.ranks, stopping=stopping)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runner.agent")
    parser.add_argument("--ranks", type=int, required=True, help="of this machine; 0: one process that meets nobody")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--node", type=int, default=0)
    parser.add_argument("--host", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=600.0)
    parser.add_argument("module")
    parser.add_argument("job")
    parser.add_argument("out")
    return parser


def _environment(options: argparse.Namespace) -> tuple[dict[str, str], int]:
    """What every rank finds in its environment, and the listening socket for rank 0 (-1: none). Machines have met then."""
    base = {key: value for key, value in os.environ.items() if key not in _PLACES}
    base |= {PARENT: str(os.getpid()), "NCCL_RAS_ENABLE": "0"}  # NCCL's own monitoring service listens on a port
    if options.nodes == 1:
        name = loopback()
        meet = str(Path(os.environ[FOLDER], "meet"))
        return {**base, MEET: meet, "GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}, -1
    meeting = Meeting(
        host=options.host, port=options.port, count=options.nodes, secret=os.environ[SECRET].encode(),
        digest=hashlib.sha256(Path(options.job).read_bytes()).digest(), limit_s=options.limit_s,
    )  # fmt: skip
    listener = -1
    if options.node == 0:
        with host(meeting) as socket:
            listener = socket.detach()
    else:
        guest(meeting, options.node)
    name = toward(options.host, options.port)
    base = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}", **base}  # a user's own choice stays
    return {**base, MEET: f"{options.host}:{options.port}"}, listener


def _place(options: argparse.Namespace, local: int, handed: tuple[int, ...]) -> Mapping[str, str]:
    """Who this rank is among all; rank 0 of several machines is handed the socket that its machine listens on."""
    place = {
        "RANK": str(options.node * options.ranks + local), "LOCAL_RANK": str(local),
        "WORLD_SIZE": str(options.nodes * options.ranks), "LOCAL_WORLD_SIZE": str(options.ranks),
    }  # fmt: skip
    return {**place, LISTENER: str(handed[0])} if handed else place


def _watch(ranks: list[subprocess.Popen[bytes]], *, first: int, stopping: list[int]) -> int:
    """Wait for all to end well, or for the first that does not; then note who ended by itself, and end the others."""
    ended: dict[int, tuple[int, float]] = {}
    limit = float("inf")
    stopped: list[int] = []
    while len(ended) < len(ranks) and time.monotonic() < limit and not stopping:
        for number, process in enumerate(ranks):
            code = process.poll() if number not in ended else None
            if code is None:
                continue
            ended[number] = code, time.time()
            if code and limit == float("inf"):
                limit = time.monotonic() + _LAST_WORDS_S
                stopped = _stopped(ranks)
        time.sleep(_POLL_S)
    stopped = stopped or (_stopped(ranks) if stopping else [])
    _note(ended, stopped, first)
    _kill(ranks)
    if stopping:
        os.killpg(0, signal.SIGKILL)
    codes = [code for code, _ in ended.values() if code]
    return FULL_DISK if FULL_DISK in codes else 1 if codes else 0


def _note(ended: dict[int, tuple[int, float]], stopped: list[int], first: int) -> None:
    """Leave `agent.json`; a full disk is told by whoever has results to write."""
    found = {
        "ended": [{"rank": first + n, "code": code, "at_s": at_s} for n, (code, at_s) in ended.items() if code],
        "stopped": [first + n for n in stopped],
    }
    with contextlib.suppress(OSError):
        Path(os.environ[FOLDER], "agent.json").write_text(json.dumps(found), encoding="utf-8")


def _stopped(ranks: list[subprocess.Popen[bytes]]) -> list[int]:
    """Ranks that SIGSTOP or a debugger holds (Linux)."""
    found = []
    for number, process in enumerate(ranks):
        with contextlib.suppress(OSError, IndexError):
            state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state in ("T", "t"):
                found.append(number)
    return found


def _kill(ranks: list[subprocess.Popen[bytes]]) -> None:
    for process in ranks:
        process.kill()
    for process in ranks:
        process.wait()


def _end_with_parent(ranks: list[subprocess.Popen[bytes]]) -> None:
    """Wait for the end of the pipe that the advisor holds; then nothing of this run stays."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    for process in list(ranks):
        process.kill()
    folder = Path(os.environ[FOLDER])
    if folder.name.startswith("advisor-run-"):
        shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
