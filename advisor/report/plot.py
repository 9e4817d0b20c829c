"""A scatter plot in text: the front in the terminal, without a library (the peers' plotting imports take 0.2 s)."""

from __future__ import annotations

import math
from collections.abc import Sequence
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

    A dot of the front is its label, any other a point; the label wins where both fall on one cell.
    """
    xs, ys = [d.x for d in dots], [d.y for d in dots]
    log = min(xs) > 0 and max(xs) > 10 * min(xs)
    place = math.log if log else float
    x0, x1 = place(min(xs)), place(max(xs))
    y1 = max(ys) * 1.05 or 1.0
    grid = [[" "] * width for _ in range(height)]
    for dot in sorted(dots, key=lambda d: (d.on_front, -len(d.label))):
        column = round((place(dot.x) - x0) / (x1 - x0) * (width - 4)) + 1 if x1 > x0 else width // 2
        row = height - 1 - round(dot.y / y1 * (height - 1))
        mark = dot.label if dot.on_front else ("·" if screen.blocks else ".")
        column = min(column, width - len(mark))
        grid[row][column : column + len(mark)] = mark
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


def _short(value: float) -> str:
    """An axis figure of three digits: 12,300 or 0.45."""
    if value >= 1000:
        places = 2 - math.floor(math.log10(value))
        return f"{round(value, places):,.0f}"
    return f"{value:.3g}"
