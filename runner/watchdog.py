"""A rank lives no longer than what started it, nor than its own progress: no orphan keeps a GPU. Standard library only.

`PARENT` in the environment holds the pid that must be alive; `FOLDER` is where the ranks of one run leave their files:
`rankN.log` (what it printed), `rankN.beat` (what it is doing), `rankN.failure` (why it ended).
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
from pathlib import Path

PARENT = "ADVISOR_PARENT_PID"
FOLDER = "ADVISOR_RUN_FOLDER"
MEET, LISTENER = "ADVISOR_MEET", "ADVISOR_LISTENER"  # where the ranks meet (a file, or HOST:PORT), and rank 0's listening socket
FULL_DISK = 74  # exit code: EX_IOERR of sysexits.h; a full disk takes no sentence
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Linux: have the kernel kill this process when its parent ends, however that ends; at once where it already has.

    Elsewhere a no-op: there the agent ends its ranks when the advisor ends, but nothing ends them after a kill -9 of the agent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    expected = os.environ.get(PARENT, "")
    if expected.isdigit() and os.getppid() != int(expected):
        os._exit(128 + signal.SIGKILL)  # it ended before the kernel was told


class Watchdog:
    """Ends the process when `beat` is not called for `limit_s`: a thread of the C runtime that needs no Python lock."""

    def __init__(self, limit_s: float, beat_file: Path | None = None) -> None:
        self.limit_s, self._file = limit_s, beat_file

    def beat(self, doing: str) -> None:
        """Progress: what is done next has `limit_s`. The words are left in the beat file for who asks afterwards."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk is told by whoever has something to write
                self._file.write_text(doing, encoding="utf-8")
        faulthandler.dump_traceback_later(self.limit_s, exit=True)

    def stop(self) -> None:
        """No limit any more."""
        faulthandler.cancel_dump_traceback_later()


def redirect(log: Path) -> None:
    """Send everything that this process prints, from C and from Python, to a file of its own."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
    faulthandler.enable()
