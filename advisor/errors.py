"""Exception hierarchy: what a user can meet. Each message is one sentence: what, why, how to fix it."""

from __future__ import annotations

from collections.abc import Iterable


class AdvisorError(Exception):
    """Base of every error that is shown as one sentence; `exit_code` is what the command line returns."""

    exit_code = 3


class QuestionError(AdvisorError):
    """The question cannot be answered as asked: a bad option, file, name or combination (exit 2)."""

    exit_code = 2


class ProfileError(QuestionError):
    """A model, hardware, engine, cluster or calibration file does not say what it must (exit 2)."""


class PlanError(QuestionError):
    """A plan that the user gave cannot run: degrees that do not divide, or an axis the engine lacks (exit 2)."""


class NoPlanFitsError(AdvisorError):
    """Every plan was rejected (exit 1)."""

    exit_code = 1


class MachineError(AdvisorError):
    """The machine failed: no driver, a rank died, a disk is full (exit 3)."""

    exit_code = 3


def unknown(what: str, text: str, known: Iterable[str]) -> QuestionError:
    """The error of a word that is none of `known`; it names the nearest where one is near, and then all."""
    import difflib

    words = list(known)
    near = difflib.get_close_matches(text[:60].lower(), words, n=1)
    nearest = f", nearest is {near[0]}" if near else ""
    listed = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    return QuestionError(f"unknown {what} {text[:60]!r}{nearest}; use {listed}.")


def one_line(text: str, *, most: int = 1000) -> str:
    """Text from outside as it may be shown: one line, control characters and undecodable bytes escaped, `most` characters at most.

    A terminal takes control characters as commands.
    """
    if len(text) > most:
        text = text[: most - 3] + "..."
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
