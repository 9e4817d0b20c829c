"""A scatter plot in text: the front in the terminal, without a library (the peers' plotting imports take 0.2 s)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from advisor.report.screen import Screen


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A labelled point; `on_front` joins the front."""

    x: float
    y: float
    label: str
    on_front: bool


def scatter(
    dots: Sequence[Dot],
    *,
    title: str,
    x_name: str,
    x_ticks: Sequence[str],
    screen: Screen,
    width: int = 72,
    height: int = 12,
) -> list[str]:
    """Lines of the plot. The x axis is logarithmic when its values differ tenfold; `x_ticks` label its two ends.

    A dot of the front is its label, any other a point. A label that would run into another moves up to two rows or to the left,
    and where there is no room its dot is a star.
    """
    xs, ys = [d.x for d in dots], [d.y for d in dots]
    log = min(xs) > 0 and max(xs) > 10 * min(xs)
    place = math.log if log else float
    x0, x1 = place(min(xs)), place(max(xs))
    y1 = max(ys) * 1.05 or 1.0
    grid = [[" "] * width for _ in range(height)]
    point = "·" if screen.blocks else "."
    labelled: list[tuple[int, int, str]] = []
    for dot in dots:
        column = round((place(dot.x) - x0) / (x1 - x0) * (width - 4)) + 1 if x1 > x0 else width // 2
        row = height - 1 - round(dot.y / y1 * (height - 1))
        grid[row][column] = point
        if dot.on_front:
            labelled.append((row, column, dot.label))
    _write_labels(grid, sorted(set(labelled), key=lambda item: (-item[0], item[1])), point)
    side, corner, floor = ("│", "└", "─") if screen.blocks else ("|", "+", "-")
    top = _short(y1)
    pad = max(len(top), 6)
    lines = [title]
    for index, cells in enumerate(grid):
        tick = top if index == 0 else ("0" if index == height - 1 else (_short(y1 / 2) if index == height // 2 else ""))
        lines.append(f"{tick.rjust(pad)} {side}{''.join(cells).rstrip()}")
    lines.append(" " * pad + " " + corner + floor * width)
    left, right = x_ticks
    middle = f"{x_name}{' (log)' if log else ''}"
    space = width - len(left) - len(right)
    lines.append(" " * (pad + 2) + left + middle.center(max(space, len(middle) + 2)) + right)
    return [line.rstrip() for line in lines]


def _write_labels(grid: list[list[str]], labels: Sequence[tuple[int, int, str]], point: str) -> None:
    """Each label where it hides no other: at its dot, in the rows beside it, or to the left of it; else a star."""
    for row, column, label in labels:
        at = next(((r, c) for r, c in _places(grid, row, column, label) if _is_free(grid[r], c, label, point)), None)
        if at is None and grid[row][column] == point:
            grid[row][column] = "*"
        elif at is not None:
            grid[at[0]][at[1] : at[1] + len(label)] = label


def _places(grid: list[list[str]], row: int, column: int, label: str) -> Iterator[tuple[int, int]]:
    width = len(grid[0])
    for shift in (0, -1, 1, -2, 2):
        for start in (column, column - len(label) + 1):
            if 0 <= row + shift < len(grid):
                yield row + shift, max(0, min(start, width - len(label)))


def _is_free(cells: Sequence[str], start: int, label: str, point: str) -> bool:
    """Whether a label and a blank on either side of it meet nothing but blanks and points."""
    return all(cell in (" ", point) for cell in cells[max(0, start - 1) : start + len(label) + 1])


def _short(value: float) -> str:
    """An axis figure of three digits: 12,300 or 0.45."""
    if value >= 1000:
        places = 2 - math.floor(math.log10(value))
        return f"{round(value, places):,.0f}"
    return f"{value:.3g}"
