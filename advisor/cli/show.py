"""The one place that writes answers: stdout, with what its other end can show."""

from __future__ import annotations

import os
import sys

from advisor.report.screen import Screen


def emit(text: str) -> None:
    """An answer on stdout."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def screen() -> Screen:
    """Colour on a terminal without NO_COLOR; block characters where the encoding has them."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    try:
        "█│·".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return Screen(colour=colour, blocks=False)
    return Screen(colour=colour, blocks=True)
