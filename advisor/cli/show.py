"""The one place that writes answers: stdout, with what its other end can show."""

from __future__ import annotations

import os
import sys

from advisor.errors import MachineError
from advisor.report.screen import Screen


def emit(text: str) -> None:
    """An answer on stdout. Raises MachineError where that is closed."""
    if sys.stdout is None:
        raise MachineError("the answer cannot be written: standard output is closed.")
    sys.stdout.write(text.rstrip("\n") + "\n")


def screen() -> Screen:
    """Colour on a terminal without NO_COLOR; block characters where the encoding has them."""
    if sys.stdout is None:
        return Screen(colour=False, blocks=False)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    try:
        "█│·".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return Screen(colour=colour, blocks=False)
    return Screen(colour=colour, blocks=True)
