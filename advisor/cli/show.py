"""The one place that writes answers: stdout, with what its other end can show."""

from __future__ import annotations

import os
import shutil
import sys

from advisor.errors import MachineError
from advisor.report.screen import NARROWEST, WIDEST, WIDTH, Screen


def emit(text: str) -> None:
    """An answer on stdout. Raises MachineError where that is closed."""
    if sys.stdout is None:
        raise MachineError("the answer cannot be written: standard output is closed.")
    sys.stdout.write(text.rstrip("\n") + "\n")


def screen() -> Screen:
    """What stdout can show: colour and its own width on a terminal, block characters where the encoding has them."""
    if sys.stdout is None:
        return Screen(colour=False, blocks=False)
    terminal = sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = min(WIDEST, max(NARROWEST, shutil.get_terminal_size().columns)) if terminal else WIDTH
    try:
        "█│·".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return Screen(colour=colour, blocks=False, width=width)
    return Screen(colour=colour, width=width)
