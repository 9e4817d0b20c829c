"""How many cases a run has, and what each may cost: seconds and memory, an exit code, and at most one sentence."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advisor.cli.app import run
from advisor.errors import AdvisorError

SECONDS = 10.0
BYTES = 500 * 2**20
ALL_CASES = 2000  # of all targets together, in a run without --fuzz
LONGEST_SENTENCE = 2100
CASES = int(os.environ.get("ADVISOR_FUZZ", str(ALL_CASES)))


class TooSlowError(BaseException):
    """A case took longer than it may; no `except Exception` of the program catches it."""


def fuzzed(share: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of one seed, run for `share` of every 2,000 cases. The seeds are the same each time, or new with --fuzz."""
    budget = settings(
        max_examples=max(1, share * CASES // ALL_CASES), deadline=None, derandomize=CASES == ALL_CASES, database=None,
        suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        return budget(given(seed=st.integers(0, 2**48))(test))

    return decorate


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Time and memory for one case; a case that wants more raises TooSlowError or MemoryError."""

    def strike(*_: object) -> None:
        raise TooSlowError(f"more than {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, strike)
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def answer_or_sentence(call: Callable[[], Any]) -> Any:
    """What a function gives, or None where it refused in one good sentence. Anything else that it raises fails the test."""
    try:
        with limited():
            return call()
    except AdvisorError as error:
        assert_sentence(str(error))
        return None


def assert_sentence(text: str) -> None:
    assert text.strip()
    assert "Traceback" not in text


def command(arguments: list[str], *, stdin: bytes = b"") -> tuple[int, str, str]:
    """The command line in this process: exit code, answer and talk, held to what every command promises."""
    out, talk = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    given_in = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    before = sys.stdin
    sys.stdin = given_in
    try:
        with limited(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(talk):
            code = run(arguments)
    finally:
        sys.stdin = before
    for stream in (out, talk):
        stream.flush()
    answer, said = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, talk))  # type: ignore[attr-defined]
    assert code in (0, 1, 2, 3), (code, said)
    assert "Traceback" not in said
    assert "there is not enough memory" not in said, arguments
    for text in (answer, said):
        assert not set(text) & set(map(chr, [*range(9), *range(11, 32), *range(127, 160)])), repr(text[:2000])
    if code in (2, 3):
        assert said.startswith("advisor: "), said
        assert said.count("\n") == 1, said
        assert len(said) < LONGEST_SENTENCE
    return code, answer, said
