"""Why ranks failed, in one sentence, from what they and their agent left: `agent.json`, `rankN.failure`, `.beat` and `.log`."""

from __future__ import annotations

import contextlib
import json
import signal
from dataclasses import dataclass
from pathlib import Path

from advisor.errors import AdvisorError, one_line
from advisor.specs import wire
from advisor.specs.experiment import RankFailure

_FULL_DISK = 74  # as in runner/watchdog.py
_LAST_LINES = 6
_TOGETHER_S = 0.2  # what ended within this was seen by the agent at one look: a rank that a signal ended goes first
_SECONDARY = ("waited too long", "lost its connection")  # in the reason of a rank that was let down by another
# NCCL's own watchdog ends a rank that waits by SIGABRT, with this in its log.
_GAVE_UP = ("collective operation timeout", "Timeout at NCCL work", "Watchdog caught")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Killed:
    """A rank that a signal ended, not the agent's own."""

    rank: int
    number: int
    at_s: float


def reason_of(folder: Path, code: int, why: str) -> str:
    """The rank that failed first and why, then its last lines; empty where the agent ended well. `why` is why it was given up."""
    if code == 0:
        return ""
    killed, stopped = _agent(folder)
    if stopped and why != "interrupted":
        rank = stopped[0]
        return f"rank {rank} was stopped from outside (SIGSTOP, or a debugger){_doing(folder, rank)}; let it go on, or try again"
    if why:
        return why
    if code == _FULL_DISK:
        return f"a rank could not write its results: the disk is full; free some, or set TMPDIR ({folder.parent})"
    if code < 0 and _ranks(folder):
        return f"the process that starts the ranks was killed from outside by {_name(-code)}{_memory_hint(-code)}"
    failures = sorted(_failures(folder), key=lambda failure: failure.at_s)
    return (
        _killed_words(folder, killed, failures)
        or _stalled_words(folder, killed, failures)
        or _failure_words(folder, failures)
        or "the ranks could not be started" + _last_lines(folder / "agent.log")
    )


def _agent(folder: Path) -> tuple[list[_Killed], list[int]]:
    """Ranks that a signal ended, the first first, and ranks that were stopped, as the agent saw them."""
    try:
        data = json.loads((folder / "agent.json").read_text(encoding="utf-8"))
        killed = [
            _Killed(rank=int(one["rank"]), number=-int(one["code"]), at_s=float(one["at_s"]))
            for one in data["ended"]
            if int(one["code"]) < 0
        ]
        return sorted(killed, key=lambda one: one.at_s), [int(rank) for rank in data["stopped"]]
    except (OSError, ValueError, KeyError, TypeError):
        return [], []


def _killed_words(folder: Path, killed: list[_Killed], failures: list[RankFailure]) -> str:
    """The first rank that a signal ended, unless another had failed by itself before; empty where there is none."""
    own = [failure for failure in failures if not _is_secondary(failure)]
    for one in killed:
        if one.number == signal.SIGABRT and _gave_up(folder, one.rank):
            continue  # it waited for another
        if own and own[0].at_s < one.at_s - _TOGETHER_S:
            return ""
        where = f"{_doing(folder, one.rank)}{_last_lines(folder / f'rank{one.rank}.log')}"
        return f"rank {one.rank} was killed by {_name(one.number)}{_memory_hint(one.number)}{where}"
    return ""


def _stalled_words(folder: Path, killed: list[_Killed], failures: list[RankFailure]) -> str:
    """A rank whose watchdog ended it, or one that the others waited for in vain; empty where a rank failed by itself."""
    if any(not _is_secondary(failure) for failure in failures):
        return ""
    stalled = [rank for rank in _ranks(folder) if "Timeout (" in (_text(folder / f"rank{rank}.log") or "")]
    if stalled:
        rank = stalled[0]
        return f"rank {rank} made no progress{_doing(folder, rank)} and was ended{_where(folder / f'rank{rank}.log')}"
    waiting = {one.rank for one in killed if _gave_up(folder, one.rank)}
    if waiting and not failures:
        first, silent = min(waiting), [rank for rank in _ranks(folder) if rank not in waiting]
        others = f"; rank {silent[0]} did not answer{_doing(folder, silent[0])}" if silent else ""
        return f"rank {first} waited too long for the others in a collective{_doing(folder, first)}{others}"
    return ""


def _failure_words(folder: Path, failures: list[RankFailure]) -> str:
    """The rank that said first why it ends; one that says so for itself goes before one that was let down."""
    if not failures:
        return ""
    first = min(failures, key=lambda failure: (_is_secondary(failure), failure.at_s))
    others = ""
    if _is_secondary(first):
        silent = [rank for rank in _ranks(folder) if rank not in {f.rank for f in failures}]
        others = f"; rank {silent[0]} did not answer{_doing(folder, silent[0])}" if silent else ""
    return f"rank {first.rank} {one_line(first.reason)}{others}{_last_lines(folder / f'rank{first.rank}.log')}"


def _is_secondary(failure: RankFailure) -> bool:
    return any(words in failure.reason for words in _SECONDARY)


def _gave_up(folder: Path, rank: int) -> bool:
    log = _text(folder / f"rank{rank}.log") or ""
    return any(words in log for words in _GAVE_UP)


def _name(number: int) -> str:
    return signal.Signals(number).name if number in [s.value for s in signal.Signals] else f"signal {number}"


def _memory_hint(number: int) -> str:
    return " (the system's out-of-memory killer does that)" if number == signal.SIGKILL else ""


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
    return f" at '{one_line(doing, most=200)}'" if doing else ""


def _where(log: Path) -> str:
    """Where the main thread was when its watchdog ended the rank: the last in the dump, its innermost call first."""
    dump = (_text(log) or "").rpartition("Timeout (")[2].rpartition("most recent call first")[2]
    calls = [one_line(line, most=200) for line in dump.splitlines() if line.strip().startswith("File ")]
    return f"; it was in {' < '.join(calls[:3])}" if calls else ""


def _last_lines(log: Path) -> str:
    """The last lines of a log, joined, as the end of a sentence."""
    lines = [one_line(line, most=200) for line in (_text(log) or "").splitlines() if line.strip()]
    return f"; its last lines: {' | '.join(lines[-_LAST_LINES:])}" if lines else ""


def _text(path: Path) -> str | None:
    """A file's text, its last part where a rank printed megabytes."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 1_000_000))
            return file.read().decode(errors="replace")
    except OSError:
        return None
