"""Why a rank failed, in one sentence, left as a file for whoever started it."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from advisor.errors import AdvisorError
from advisor.specs import wire
from advisor.specs.experiment import RankFailure

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


def sentence(error: BaseException) -> str:
    """What happened, then the message's first line."""
    text = " ".join((str(error) or type(error).__name__).strip().splitlines()[:1])[:300]
    if isinstance(error, AdvisorError):
        return str(error)
    if isinstance(error, MemoryError):
        return "ran out of memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"could not write {error.filename or 'its results'}: {os.strerror(error.errno).lower()}"
    low = f"{type(error).__name__} {error}".lower()
    for words, meaning in _MEANINGS:
        if any(word in low for word in words):
            return f"{meaning}: {text}"
    return f"failed: {type(error).__name__}: {text}"


def leave(folder: Path, rank: int, error: BaseException) -> None:
    """Leave the sentence in `folder`; a disk that is full leaves it to the log."""
    failure = RankFailure(rank=rank, at_s=time.time(), reason=sentence(error))
    try:
        (folder / f"rank{rank}.failure").write_text(wire.to_json(failure), encoding="utf-8")
    except OSError:
        os.write(2, f"{failure.reason}\n".encode())
