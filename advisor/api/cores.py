"""Work spread over the cores, in processes that end with this one however it ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from advisor.errors import MachineError

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def on_cores(work: Callable[..., T], *arguments: Sequence[Any], cores: int) -> list[T]:
    """`work` of each group of arguments, in order, in so many processes. Raises MachineError where one of them is killed."""
    pool = ProcessPoolExecutor(
        max_workers=cores, mp_context=_context(), initializer=end_with_parent, initargs=(os.getpid(),)
    )  # fmt: skip
    try:
        return list(pool.map(work, *arguments))
    except BrokenProcessPool:
        raise MachineError(
            "a process that computed was killed from outside (out of memory?); try again with fewer rows, or more memory."
        ) from None
    except BaseException:
        for child in multiprocessing.active_children():
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """Forked processes on Linux, whose parent is this one, as `end_with_parent` needs; fresh ones elsewhere."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def end_with_parent(parent: int) -> None:
    """Have this process end with its parent: killed by the kernel on Linux, and by a thread. Ctrl-C is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):  # not the parent's way of cleaning up
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel was told
    threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    mother = multiprocessing.parent_process()
    if mother is not None:
        multiprocessing.connection.wait([mother.sentinel])
    os._exit(1)
