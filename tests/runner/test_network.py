"""What listens while ranks run, who may connect, and how several machines come to trust each other."""

from __future__ import annotations

import contextlib
import hmac
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import CONFIGS

from advisor.catalog.huggingface import model_from_config
from advisor.errors import MachineError
from advisor.measure.ranks import AGENT, Interrupted, Nodes, Outcome, Ranks, run_ranks
from advisor.specs import wire
from advisor.specs.experiment import Cell, Job, Measurement
from advisor.specs.plan import Plan
from runner.handshake import Meeting, guest, host

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="sockets are read from /proc"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # Python 3.12 on a fork beside threads
]
TESTS = Path(__file__).parents[1]
SECRET = "0123456789abcdef0123456789abcdef"
LISTENS = "0A"  # the state in /proc/net/tcp
LOCAL = ("0100007F", "00000000000000000000000001000000")  # 127.0.0.1 and ::1 as /proc/net/tcp writes them


def job(tp: int = 2) -> Job:
    model = model_from_config(CONFIGS["llama"], None, name="tiny", source="test")
    return Job(
        id="net", model=model, plan=Plan(tp=tp), cells=(Cell(phase="decode", batch=1, context_tokens=8),), device="cpu", warmup=1,
        repeats=3, time_limit_s=60, stall_limit_s=40,
    )  # fmt: skip


def hanging() -> Ranks:
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {"PYTHONPATH": paths, "FAULT": "hang", "FAULT_RANK": "1", "FAULT_AFTER": "0", "OMP_NUM_THREADS": "1"}
    return Ranks(module="faulty_ranks", here=2, agent=AGENT, environment=environment)


def below(pid: int) -> set[int]:
    """A process and all that it started."""
    found, pending = set(), [pid]
    while pending:
        one = pending.pop()
        found.add(one)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                pending += [int(word) for word in (task / "children").read_text().split()]
    return found


def listening(pids: set[int]) -> list[tuple[str, int]]:
    """Address (as the kernel writes it) and port of every TCP socket on which one of the processes listens."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(handle).removeprefix("socket:[").rstrip("]"))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    found = [row[1].split(":") for row in rows if row[3] == LISTENS and row[9] in inodes]
    return [(address, int(port, 16)) for address, port in found]


def outside_addresses() -> list[str]:
    """Addresses by which this machine can be reached, other than the one that the ranks use."""
    found = ["127.0.0.2"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1: chooses a route, sends nothing
        found.append(str(probe.getsockname()[0]))
    return found


@contextlib.contextmanager
def running(ranks: Ranks, asked: Job) -> Iterator[int]:
    """The advisor, in a process of its own, with ranks that do not end."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            run_ranks(ranks, wire.to_json(asked), time_limit_s=240, progress=lambda _: None)
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_ranks_of_one_machine_listen_on_loopback_only_and_refuse_other_addresses() -> None:
    pytest.importorskip("torch")
    with running(hanging(), job()) as pid:
        until = time.monotonic() + 200
        while len(places := listening(below(pid))) < 2 and time.monotonic() < until:  # gloo: one socket a rank
            time.sleep(0.1)
        assert len(places) >= 2
        time.sleep(1.0)  # whatever else they open
        places = listening(below(pid))
        assert {address for address, _ in places} <= set(LOCAL)
        for _, port in places:
            for address in outside_addresses():
                with pytest.raises(ConnectionRefusedError), socket.create_connection((address, port), timeout=5):
                    pass


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def meeting(port: int, *, secret: str = SECRET, digest: bytes = b"d" * 32, limit_s: float = 10.0, count: int = 2) -> Meeting:
    return Meeting(host="127.0.0.1", port=port, count=count, secret=secret.encode(), digest=digest, limit_s=limit_s)


class Hosting(threading.Thread):
    """The first machine's half in a thread: what came of it is in `listener` or `error`."""

    def __init__(self, where: Meeting) -> None:
        super().__init__(daemon=True)
        self.where, self.error = where, ""
        self.listener: socket.socket | None = None
        self.start()

    def run(self) -> None:
        try:
            self.listener = host(self.where)
        except MachineError as error:
            self.error = str(error)

    def close(self) -> None:
        self.join()
        if self.listener is not None:
            self.listener.close()


def connected(port: int) -> socket.socket:
    until = time.monotonic() + 5
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def test_machines_that_know_the_secret_meet_whoever_else_calls() -> None:
    """Strangers connect first, say nothing, say nonsense, or answer with a proof that they saw: all are turned away."""
    port = free_port()
    hosting = Hosting(meeting(port, count=3))
    with connected(port) as silent, connected(port) as babbler, connected(port) as hanging_up:
        hanging_up.close()
        babbler.sendall(os.urandom(4096))
        guests = [threading.Thread(target=guest, args=(meeting(port, count=3), node)) for node in (1, 2)]
        for one in guests:
            one.start()
        for one in guests:
            one.join()
        silent.settimeout(5)
        assert len(silent.recv(64)) == 32  # a nonce, and nothing more
        assert silent.recv(64) == b""
    hosting.close()
    assert hosting.listener is not None


@pytest.mark.parametrize("other", [{"secret": "another secret of sixteen"}, {"digest": b"e" * 32}])
def test_another_secret_or_another_question_is_refused_on_both_sides(other: dict[str, object]) -> None:
    port = free_port()
    hosting = Hosting(meeting(port, limit_s=1.5))
    with pytest.raises(MachineError, match="another secret or another question"):
        guest(meeting(port, **other), 1)  # type: ignore[arg-type]
    hosting.close()
    assert "machine 1 did not join" in hosting.error


def test_a_first_machine_that_does_not_know_the_secret_is_not_believed() -> None:
    """It asks for the caller's proof and sends that back, and then one of its own making."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = int(listener.getsockname()[1])

        def pretend() -> None:
            for mirrored in (True, False):
                caller, _ = listener.accept()
                with caller:
                    caller.sendall(b"n" * 32)
                    said = b""
                    while len(said) < 68:
                        said += caller.recv(100)
                    caller.sendall(said[36:] if mirrored else hmac.digest(b"guess", said, "sha256"))

        threading.Thread(target=pretend, daemon=True).start()
        for _ in range(2):
            with pytest.raises(MachineError, match="does not know the secret"):
                guest(meeting(port), 1)


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(MachineError, match=r"cannot listen on 192\.0\.2\.1"):
        host(Meeting(host="192.0.2.1", port=29400, count=2, secret=b"x" * 16, digest=b"", limit_s=1.0))


def two_machines(secrets: tuple[str, str], *, limit_s: float = 30.0) -> list[Outcome]:
    """Two agents on this machine as if they were two, one rank each."""
    port = free_port()
    found: list[Outcome | None] = [None, None]

    def measure(node: int) -> None:
        nodes = Nodes(count=2, rank=node, address="127.0.0.1", port=port, secret=secrets[node])
        ranks = Ranks(module="runner", here=1, nodes=nodes, environment={"OMP_NUM_THREADS": "1"})
        found[node] = run_ranks(ranks, wire.to_json(job()), time_limit_s=limit_s, progress=lambda _: None)

    threads = [threading.Thread(target=measure, args=(node,)) for node in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found)
    return [outcome for outcome in found if outcome is not None]


def test_two_machines_measure_together() -> None:
    pytest.importorskip("torch")
    first, second = two_machines((SECRET, SECRET))
    assert (first.reason, second.reason) == ("", "")
    measured = wire.from_json(first.text or "", Measurement, origin="first")
    assert measured.status == "ok"
    assert second.text is None  # the figures are on the first


def test_a_machine_with_another_secret_never_starts_a_rank() -> None:
    first, second = two_machines((SECRET, "guessed guessed guessed"), limit_s=3.0)
    assert "did not join" in first.reason
    assert "another secret or another question" in second.reason


@pytest.mark.parametrize("name", ["json.py", "torch.py", "runner/__init__.py", "sitecustomize.py"])
def test_no_code_comes_from_the_current_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", str(TESTS)]))
    from advisor.measure.campaign import ask_torch

    ranks = Ranks(module="light_ranks", here=2, environment={"LIGHT_STEPS": "3"})
    with contextlib.suppress(Interrupted):
        assert run_ranks(ranks, "{}", time_limit_s=30, progress=lambda _: None).reason == ""
    if name == "torch.py":
        pytest.importorskip("torch")
        assert ask_torch().version
    assert not (tmp_path / "ran").exists()
