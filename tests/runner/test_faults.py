"""Every way a run can go wrong, provoked: the reason is said, what was measured stays, and no process stays."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import CONFIGS

from advisor.catalog.huggingface import model_from_config
from advisor.measure.campaign import run_all, run_job
from advisor.measure.ranks import AGENT, Interrupted, Nodes, Ranks, run_ranks
from advisor.measure.results import Results
from advisor.specs.experiment import Cell, Job, Runs
from advisor.specs.plan import Plan

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="orphans are counted in /proc"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # Python 3.12 on a fork beside threads
]
TESTS = Path(__file__).parents[1]
TIMES = 100
RANKS = 3
LIGHT = (sys.executable, "-S", "-m", "runner.agent")  # -S: starts sooner


@pytest.fixture
def brand() -> Iterator[str]:
    """A word in the environment of everything a test starts."""
    word = uuid.uuid4().hex
    os.environ["ADVISOR_TEST_BRAND"] = word
    yield word
    del os.environ["ADVISOR_TEST_BRAND"]


def branded(word: str) -> list[int]:
    """Living processes, other than this one, with the word in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            dead = b"\nState:\tZ" in (entry / "status").read_bytes()
            if not dead and word.encode() in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def gone(word: str, within_s: float = 5.0) -> list[int]:
    """Those that are still there after a moment."""
    limit = time.monotonic() + within_s
    while (left := branded(word)) and time.monotonic() < limit:
        time.sleep(0.02)
    return left


def light(steps: int = 3000) -> Ranks:
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return Ranks(module="light_ranks", here=RANKS, agent=LIGHT, environment={"PYTHONPATH": paths, "LIGHT_STEPS": str(steps)})


def drive(ranks: Ranks) -> None:
    """What the advisor does around a job, in a process of its own that a test can kill."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        run_ranks(ranks, "{}", time_limit_s=30, progress=lambda _: None)
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def test_light_ranks_end_well_and_tell(brand: str) -> None:
    seen: list[str] = []
    outcome = run_ranks(light(steps=20), "{}", time_limit_s=30, progress=seen.append)
    assert outcome.reason == ""
    assert outcome.text == '{"step": 19}'
    assert len(seen) > 1
    assert gone(brand) == []


@pytest.mark.timeout(280)
def test_a_hundred_kills_and_interrupts_at_random_moments_leave_no_process(brand: str) -> None:
    """The advisor itself is interrupted, ended or killed outright, or its agent or a rank is: nothing outlives the run."""
    dice = random.Random(5)
    orphans = 0
    struck: dict[str, int] = {}
    for _ in range(TIMES):
        pid = os.fork()
        if pid == 0:
            drive(light())
        time.sleep(dice.uniform(0.0, 0.35))
        target, number = pid, dice.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL])
        others = [p for p in branded(brand) if p != pid]
        if others and dice.random() < 0.4:
            target, number = dice.choice(others), signal.SIGKILL
        try:
            os.kill(target, number)
        except ProcessLookupError:
            target = pid
        if target != pid:  # the run goes on or ends by itself; the user then interrupts it
            time.sleep(dice.uniform(0.0, 0.1))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        os.waitpid(pid, 0)
        struck[f"{'advisor' if target == pid else 'child'} {number.name}"] = (
            struck.get(f"{'advisor' if target == pid else 'child'} {number.name}", 0) + 1
        )
        left = gone(brand)
        orphans += len(left)
        for stray in left:
            os.kill(stray, signal.SIGKILL)
    assert orphans == 0, struck
    assert len(struck) >= 4  # every kind of strike happened


def test_an_interrupt_is_passed_on_after_the_ranks_have_ended(brand: str) -> None:
    def strike(_: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        run_ranks(light(), "{}", time_limit_s=30, progress=strike)
    assert caught.value.outcome.text is not None  # what was measured by then
    assert gone(brand) == []


# The runner's own ranks.


def job(**limits: float) -> Job:
    model = model_from_config(CONFIGS["llama"], None, name="tiny", source="test")
    cells = (
        Cell(phase="decode", batch=1, context_tokens=8),
        Cell(phase="decode", batch=2, context_tokens=16),
        Cell(phase="decode", batch=2, context_tokens=64),
    )
    return Job(
        id="faulty", model=model, plan=Plan(tp=2), cells=cells, device="cpu", warmup=1, repeats=3,
        time_limit_s=limits.get("time_limit_s", 90), stall_limit_s=limits.get("stall_limit_s", 60),
    )  # fmt: skip


def faulty(fault: str, *, rank: int = 1) -> Ranks:
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {"PYTHONPATH": paths, "FAULT": fault, "FAULT_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    return Ranks(module="faulty_ranks", here=2, agent=AGENT, environment=environment)


@pytest.mark.parametrize(
    ("fault", "rank", "words"),
    [
        ("die", 1, "rank 1 was killed by SIGKILL (the system's out-of-memory killer does that) at 'decode of"),
        ("crash", 1, "rank 1 was killed by SIGSEGV"),
        ("memory", 1, "rank 1 ran out of memory"),
        ("gpu", 1, "rank 1 lost its GPU: CUDA error: uncorrectable ECC error encountered"),
        ("nccl", 1, "rank 1 could not start or use NCCL: NCCL error in"),
        ("disk", 0, "a rank could not write its results: the disk is full"),
        ("raise", 0, "rank 0 failed: ZeroDivisionError: something of our own"),
    ],
)
def test_a_rank_that_fails_is_named_with_its_reason(fault: str, rank: int, words: str, brand: str) -> None:
    pytest.importorskip("torch")
    found = run_job(job(), node=None, nodes=Nodes(), progress=lambda _: None, ranks=faulty(fault, rank=rank))
    assert found.status == "failed"
    assert words in found.reason
    if fault not in ("nccl", "disk"):  # the first cell was done by then, and is kept
        assert [t.cell.batch for t in found.timings] == [1]
    assert gone(brand) == []


def test_a_rank_that_hangs_is_ended_and_the_next_job_goes_on(brand: str, tmp_path: Path) -> None:
    """A collective that never returns, then the same plan without the fault; both are in the file, and the good one is not
    measured again."""
    pytest.importorskip("torch")
    said: list[str] = []
    results = Results(tmp_path / "results.json", Runs(version=1, runs=()))
    started = time.monotonic()
    found, complete = run_all([job(stall_limit_s=12)], results, node=None, nodes=Nodes(), say=said.append, ranks=faulty("hang"))
    assert complete
    assert time.monotonic() - started < 60
    reason = found[0].measurement.reason
    told = "rank 1 did not answer at 'decode of 1 x 8 tokens'" in reason  # rank 0's collective gave up first
    ended = "rank 1 made no progress at 'decode of 1 x 8 tokens' and was ended; it was in File" in reason  # or rank 1's watchdog
    assert told or ended, reason
    again, _ = run_all([job()], results, node=None, nodes=Nodes(), say=said.append, ranks=faulty("none"))
    assert again[0].measurement.status == "ok"
    assert len(again[0].measurement.timings) == 3
    kept, _ = run_all([job()], Results.open(results.path, fresh=False), node=None, nodes=Nodes(), say=said.append)
    assert kept[0].resumed
    assert gone(brand) == []


def test_finished_cells_are_in_the_file_before_the_job_ends(brand: str, tmp_path: Path) -> None:
    """The machine may be taken away at any moment: what was measured is kept cell by cell, not with the last one."""
    results = Results.open(tmp_path / "results.json", fresh=False)
    seen: list[int] = []

    def look(_: str) -> None:
        file = tmp_path / "results.json"
        seen.append(len(Results.open(file, fresh=False).runs.runs[0].measurement.timings) if file.exists() else 0)

    found, complete = run_all([job()], results, node=None, nodes=Nodes(), say=look, ranks=faulty("none"))
    assert complete
    assert found[0].measurement.status == "ok"
    assert seen[-1] >= 2  # when the last cell was told, those before it were there
    assert Results.open(results.path, fresh=False).done(job()) is not None
    assert gone(brand) == []


def test_real_ranks_do_not_outlive_an_advisor_that_is_killed(brand: str) -> None:
    """At three moments: while torch is imported, while the ranks meet, while they measure."""
    pytest.importorskip("torch")
    from advisor.specs import wire

    for after_s in (0.5, 2.5, 6.0):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                run_ranks(faulty("hang"), wire.to_json(job()), time_limit_s=60, progress=lambda _: None)
            os._exit(0)
        time.sleep(after_s)
        assert branded(brand)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert gone(brand) == []


def struck(strike: Callable[[list[int]], None], brand: str, **limits: float) -> str:
    """The reason of real ranks of which something is struck from outside while one of them waits for the other."""
    pytest.importorskip("torch")
    from advisor.specs import wire

    found: list[str] = []

    def measure() -> None:
        text = wire.to_json(job(**limits))
        found.append(run_ranks(faulty("hang"), text, time_limit_s=120, progress=lambda _: None).reason)

    running = threading.Thread(target=measure)
    running.start()
    until = time.monotonic() + 150
    folder = Path(tempfile.gettempdir())
    while running.is_alive() and not list(folder.glob("advisor-run-*/out.json")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    if running.is_alive():
        strike(branded(brand))
    running.join()
    assert gone(brand) == []
    return found[0]


def rank_of(pid: int) -> str:
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((word.removeprefix(b"RANK=").decode() for word in words if word.startswith(b"RANK=")), "agent")


@pytest.mark.parametrize(
    ("rank", "number", "words"),
    [
        ("1", signal.SIGTERM, "rank 1 was killed by SIGTERM at 'decode of"),
        ("0", signal.SIGSTOP, "rank 0 was stopped from outside (SIGSTOP, or a debugger)"),
        ("agent", signal.SIGKILL, "the process that starts the ranks was killed from outside by SIGKILL"),
    ],
)
def test_what_was_struck_from_outside_is_named(
    rank: str, number: signal.Signals, words: str, brand: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def strike(pids: list[int]) -> None:
        os.kill(next(pid for pid in pids if rank_of(pid) == rank), number)

    assert words in struck(strike, brand, stall_limit_s=40)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_of_the_advisor_leaves_no_folder_and_no_grandchild(
    brand: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilers that a rank starts do not know the advisor: their process group ends with it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pid = os.fork()
    if pid == 0:
        drive(replace(light(), environment={**light().environment, "LIGHT_HELPERS": "2"}))
    until = time.monotonic() + 20
    while len(branded(brand)) < 1 + RANKS * 3 and time.monotonic() < until:  # the agent, and each rank with its two
        time.sleep(0.05)
    assert len(branded(brand)) == 1 + RANKS * 3
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert gone(brand, within_s=2.0) == []
    assert list(tmp_path.iterdir()) == []


def test_a_job_beyond_its_time_is_ended(brand: str) -> None:
    from advisor.measure import ranks as agents

    before, agents._START_S = agents._START_S, 0.0
    try:
        outcome = run_ranks(light(), "{}", time_limit_s=5, progress=lambda _: None)
    finally:
        agents._START_S = before
    assert "took longer than its time limit" in outcome.reason
    assert outcome.text is not None
    assert gone(brand) == []


def test_a_port_in_use_is_said(brand: str) -> None:
    """Several machines meet on a port that the user names; here somebody else has it. (One machine takes a free one.)"""
    pytest.importorskip("torch")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        ranks = Ranks(module="runner", here=1, nodes=Nodes(count=2, rank=0, address="127.0.0.1", port=held.getsockname()[1]))
        outcome = run_ranks(ranks, "{}", time_limit_s=20, progress=lambda _: None)
    assert "in use" in outcome.reason.lower()
    assert gone(brand) == []


def test_a_full_disk_under_the_results_loses_nothing_of_the_table(tmp_path: Path) -> None:
    results = Results(Path("/dev/full/results.json"), Runs(version=1, runs=()))
    from advisor.specs.experiment import Measurement

    measured = Measurement(
        job_id="faulty", plan=Plan(tp=2), status="ok", reason="", timings=(), kv_tokens=1, weights_bytes=1.0, device_name="cpu",
        driver="", software="", date="2026-01-01",
    )  # fmt: skip
    results.keep(job(), measured)
    assert "cannot be written" in results.unwritten
    assert results.done(job()) == measured
