"""The secret by which several machines know each other: from a file that only its owner may read, or from the environment."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from advisor.errors import QuestionError
from advisor.files import read_bounded, shown

VARIABLE = "ADVISOR_SECRET"
_LEAST, _MOST = 16, 4096  # bytes
_MAKE = "make one with `(umask 077; openssl rand -hex 32 > secret)` and copy it to each machine"


def secret_of(path: Path | None) -> str:
    """The secret, without the white space around it. Raises QuestionError where there is none, or where others may read it."""
    if path is None:
        text = os.environ.get(VARIABLE, "")
        if not text:
            raise QuestionError(f"several machines measure together only with a secret: {_MAKE}, then say --secret-file secret.")
    else:
        raw = read_bounded(path, most_bytes=_MOST, what="a file with a secret")
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            raise QuestionError(f"{shown(path)} may be read by others (mode {mode & 0o777:o}): run `chmod 600` on it.")
        text = raw.decode("utf-8", "surrogateescape")
    text = text.strip()
    if len(text) < _LEAST:
        raise QuestionError(f"the secret has {len(text)} characters, at least {_LEAST} are needed: {_MAKE}.")
    return text
