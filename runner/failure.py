"""Why a rank failed, in one sentence, left as a file for whoever started it."""

from __future__ import annotations

import contextlib
import errno
import time
from pathlib import Path

from advisor.errors import AdvisorError
from advisor.specs import wire
from advisor.specs.experiment import RankFailure
from runner.watchdog import FULL_DISK

# Words in the messages of torch, CUDA and NCCL -> what they mean for the user. First match counts.
_MEANINGS = (
    (("out of memory", "can't allocate memory", "cannot allocate memory", "bad alloc"), "ran out of memory"),
    (("address already in use", "eaddrinuse"), "found its port in use"),
    (("unspecified launch failure", "uncorrectable ecc", "device-side", "illegal memory access", "gpu is lost",
      "device unavailable", "all cuda-capable devices are busy"), "lost its GPU"),
    (("no cuda gpus", "invalid device ordinal", "no nvidia driver", "torch not compiled with cuda"), "found no GPU"),
    (("timed out", "timeout"), "waited too long for the others in a collective"),
    (("ncclsystemerror", "ncclunhandledcudaerror", "nccl error", "ncclinternalerror"), "could not start or use NCCL"),
    (("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused"),
     "lost its connection to another rank"),
)  # fmt: skip


def is_full(error: BaseException) -> bool:
    """Whether a file could not be written because there is no room; the error of `advisor.files` has the system's as its cause."""
    cause = error.__cause__ if isinstance(error, AdvisorError) else error
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def exit_code(error: BaseException) -> int:
    """What the rank's process ends with."""
    return FULL_DISK if is_full(error) else 1


def sentence(error: BaseException) -> str:
    """What happened, then the message's first line."""
    if isinstance(error, AdvisorError):
        cause = _meaning(error.__cause__) if error.__cause__ is not None else ""
        return cause or str(error)
    if isinstance(error, MemoryError):
        return "ran out of memory"
    if is_full(error):
        return f"could not write: {str(error)[:300]}"
    return _meaning(error) or f"failed: {type(error).__name__}: {_first_line(error)}"


def _meaning(error: BaseException) -> str:
    """What a message of torch, CUDA or NCCL means, with its first line; empty where that is not known."""
    low = f"{type(error).__name__} {error}".lower()
    for words, meaning in _MEANINGS:
        if any(word in low for word in words):
            return f"{meaning}: {_first_line(error)}"
    return ""


def _first_line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).strip().splitlines()[:1])[:300]


def leave(folder: Path, rank: int, error: BaseException) -> None:
    """Leave the sentence in `folder`; where the disk is full the exit code says so."""
    failure = RankFailure(rank=rank, at_s=time.time(), reason=sentence(error))
    with contextlib.suppress(OSError):
        (folder / f"rank{rank}.failure").write_text(wire.to_json(failure), encoding="utf-8")
