"""Why ranks failed, from the files that they left."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from advisor.measure.rank_failure import reason_of
from advisor.specs import wire
from advisor.specs.experiment import RankFailure


def left(folder: Path, *, ended: list[tuple[int, int, float]] = [], stopped: list[int] = [], ranks: int = 2) -> None:  # noqa: B006
    """What an agent leaves: (rank, code, when) of those that ended by themselves, those that were stopped, and their logs."""
    found = {"ended": [{"rank": r, "code": code, "at_s": at_s} for r, code, at_s in ended], "stopped": stopped}
    (folder / "agent.json").write_text(json.dumps(found))
    for rank in range(ranks):
        (folder / f"rank{rank}.log").write_text(f"rank {rank} was here\n")
        (folder / f"rank{rank}.beat").write_text("decode of 1 x 8 tokens")


def failed(folder: Path, rank: int, at_s: float, reason: str) -> None:
    (folder / f"rank{rank}.failure").write_text(wire.to_json(RankFailure(rank=rank, at_s=at_s, reason=reason)))


def test_a_rank_that_nccl_ends_for_waiting_does_not_hide_the_one_it_waited_for(tmp_path: Path) -> None:
    """NCCL's watchdog ends the waiting rank by SIGABRT: the silent one is named, and no killer of processes is blamed."""
    left(tmp_path, ended=[(0, -signal.SIGABRT, 5.0)])
    (tmp_path / "rank0.log").write_text("[rank0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)\n")
    reason = reason_of(tmp_path, 1, "")
    assert reason.startswith("rank 0 waited too long for the others in a collective")
    assert "rank 1 did not answer at 'decode of 1 x 8 tokens'" in reason


def test_the_rank_that_failed_first_is_named_and_not_those_it_took_along(tmp_path: Path) -> None:
    left(tmp_path, ended=[(0, 1, 5.0), (1, -signal.SIGABRT, 5.6)])
    failed(tmp_path, 0, 5.0, "ran out of memory: CUDA out of memory")
    assert reason_of(tmp_path, 1, "").startswith("rank 0 ran out of memory")


def test_a_killed_rank_goes_before_those_that_lost_their_connection_to_it(tmp_path: Path) -> None:
    left(tmp_path, ended=[(0, 1, 5.01), (1, -signal.SIGKILL, 5.02)])
    failed(tmp_path, 0, 5.0, "lost its connection to another rank: connection closed by peer")
    assert reason_of(tmp_path, 1, "").startswith("rank 1 was killed by SIGKILL (the system's out-of-memory killer does that)")


def test_our_own_kill_is_not_taken_for_the_systems(tmp_path: Path) -> None:
    """At the time limit the agent kills its ranks and itself: the limit is the reason, or the rank that was stopped."""
    left(tmp_path)
    assert reason_of(tmp_path, -signal.SIGKILL, "took longer than its time limit") == "took longer than its time limit"
    left(tmp_path, stopped=[1])
    assert reason_of(tmp_path, -signal.SIGKILL, "took longer than its time limit").startswith("rank 1 was stopped from outside")


def test_what_ranks_print_cannot_command_a_terminal(tmp_path: Path) -> None:
    left(tmp_path, ended=[(1, -signal.SIGSEGV, 5.0)])
    (tmp_path / "rank1.log").write_text("\x1b[2J\x1b]0;owned\x07gone\n")
    reason = reason_of(tmp_path, 1, "")
    assert "rank 1 was killed by SIGSEGV" in reason
    assert reason.isprintable()
