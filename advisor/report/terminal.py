"""What only a terminal shows: tables that fit its width, and progress bars. rich is slow to import, so a pipe never imports it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int], gap: int, width: int) -> list[str]:
    """Lines of a table within `width`, with a bold head; a cell that does not fit is broken over lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for column, name in enumerate(head):
        made.add_column(Text(name), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    console = Console(width=width, color_system="standard", force_terminal=True, no_color=False)
    with console.capture() as captured:
        console.print(made)
    return [line.rstrip() for line in captured.get().splitlines()]


def progress(work: Iterable[T], title: str, *, total: int) -> Iterator[T]:
    """The work as it is, with a bar on stderr that goes when it is done, where stderr is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield from work
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(work, title, total=total, console=Console(stderr=True), transient=True)
