"""A square table of GPUs in a damaged text: header, rows, and cells put back in their places where that is certain.

Cells that are there twice (both halves of a symmetric table) repair each other. What cannot be certain raises `GridError`, whose
sentence names the row and the column: a wrong table is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_COLUMN = re.compile(r"GPU(\d{1,3})|NIC\d{1,3}|[^\s]+?(?=GPU\d|NIC\d|\s|$)")
_NO_COLUMN = frozenset({"CPU", "NUMA", "Affinity", "ID", "GPU"})
_OTHER_ROW = re.compile(r"\s*(?!GPU\d)(?=[A-Za-z])[\w\-.:]+\s+")
_NUMBERS = re.compile(r"(?:\d[\d,\-]*+\s*+)*+(?:N/A)?\s*\Z")  # possessive: read once, in linear time
_AFTER_LABEL = re.compile(r"[ \t>:,;\"']*")


class GridError(ValueError):
    """The table cannot be read for certain; the message names row and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What stands in the cells of one kind of table: `cell` matches one cell (no groups), `diagonal` the ones on it."""

    cell: re.Pattern[str]
    diagonal: str


@dataclass(slots=True, kw_only=True)
class Block:
    """One table as lines: the labels of its header in order (None: a column of no GPU), the text of each row's pieces, and the
    number of rows of other things (adapters)."""

    header: list[int | None] = field(default_factory=list)
    rows: dict[int, list[str]] = field(default_factory=dict)
    others: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """`cells[a, b]` for every a < b; `tails` is what followed the cells of each row; `notes` tells repairs."""

    size: int
    cells: dict[tuple[int, int], str]
    tails: tuple[str, ...]
    notes: tuple[str, ...]


def blocks_of(lines: Sequence[str], words: Words) -> list[Block]:
    """The tables of a text. A row starts with `GPUn` and a cell; a line of labels without cells is a header."""
    found: list[Block] = []
    header: list[int | None] = []
    current: Block | None = None
    open_row: list[str] | None = None
    last = -1
    for line in lines:
        start = _row_start(line, words)
        if start is not None:
            row, rest = start
            if current and not header and row == last and current.rows.get(row) == [rest]:
                continue  # a line pasted twice
            last = row
            if current is None or header or row in current.rows:
                current = Block(header=header)
                header = []
                found.append(current)
            open_row = current.rows[row] = [rest]
            continue
        labels = _labels(line)
        if labels:
            header = header + labels if open_row is None else labels
            open_row = None
        elif open_row is not None and line.strip() and _continues(line, words):
            open_row.append(line)
        elif header and line.strip() and open_row is None and not _continues_header(line):
            header = []
        elif line.strip():
            open_row = None
            other = _OTHER_ROW.match(line)
            if current and other and words.cell.match(line[other.end() :]) and "=" not in line[: other.end() + 4]:
                current.others += 1
    return found


def read_grid(block: Block, words: Words, *, what: str) -> Grid:
    """The cells of a block. Raises GridError with one sentence where they are not certain."""
    columns = _columns(block, words, what)
    size = len(columns)
    options = {row: _options(pieces, words) for row, pieces in block.rows.items()}
    seen: dict[tuple[int, int], str] = {}
    tails = [""] * size
    counts = sorted(len(found[0].cells) for found in options.values())
    links = max(len(block.header), size, counts[len(counts) // 2] if counts else 0)
    order = sorted((r for r in options if r < size), key=lambda r: (len(options[r]), r))
    for row in order:
        choice = _best(options[row], row, columns, seen, words)
        placed = _placed(choice, row, columns, links, words=words)
        seen |= {(row, column): cell for column, cell in placed.items()}
        tails[row] = choice.tail
    return _agreed(size, seen, tails=tuple(tails), missing=[r for r in range(size) if r not in options], what=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    cells: tuple[str, ...]
    tail: str


def _row_start(line: str, words: Words) -> tuple[int, str] | None:
    """The row number and the text after its label, where a cell follows a label at once."""
    for match in re.finditer(r"(?<![A-Za-z0-9_])GPU(\d{1,3})", line):
        start = _end_of(_AFTER_LABEL, line, match.end())
        if words.cell.match(line, start):
            return int(match[1]), line[start:]
    return None


def _end_of(pattern: re.Pattern[str], line: str, start: int) -> int:
    match = pattern.match(line, start)
    return match.end() if match else start


def _labels(line: str) -> list[int | None]:
    """The columns of a header line in order."""
    if not re.search(r"(?<![A-Za-z0-9_/\[\-])GPU\d{1,3}(?![\d\]%]|\s*:)", line) or re.search(r"GPU\d+\s*[:=]", line):
        return []
    first = line.index("GPU")
    prefix = line[:first]
    labels: list[int | None] = [None] * len(re.findall(r"\b(?:NIC\d+|mlx\d+_\w+)", prefix))
    body = re.sub(r"CPU\s*Affinity|GPU\s*NUMA\s*ID|NUMA\s*Affinity", " ", line[first:])
    strange = 0
    for match in _COLUMN.finditer(body):
        if match[0] in _NO_COLUMN:
            continue
        labels.append(int(match[1]) if match[1] is not None else None)
        strange += match[1] is None and match[0].isalpha()
    # Prose that mentions a GPU has more other words than labels.
    return labels if strange <= sum(x is not None for x in labels) // 2 else []


def _continues_header(line: str) -> bool:
    rest = re.sub(r"CPU|GPU|NUMA|Affinity|ID|NIC\d*|mlx\d+_\w+|[\s\d_]", "", line)
    return len(rest) <= 2


def _continues(line: str, words: Words) -> bool:
    """Whether a line is the rest of a wrapped row: nothing in it but cells and affinities, after a word that the wrap cut."""
    text = re.sub(r"^\s*(?!NIC)[A-Z]{1,3}\d{0,2}(?=\s|$)", " ", line) if not words.cell.match(line.lstrip()) else line
    return bool(_NUMBERS.fullmatch(words.cell.sub(" ", text).strip()))


def _options(pieces: list[str], words: Words) -> list[_Row]:
    """A row read in each way its pieces can be joined: at a blank, and through a word that the wrap cut."""
    joined = {" ".join(pieces)}
    if len(pieces) > 1:
        joined.add("".join([pieces[0], *(p.lstrip() for p in pieces[1:])]))
        joined.add("".join(pieces))
    return [_row(text, words) for text in sorted(joined, key=lambda t: (t != " ".join(pieces), t))]


def _row(text: str, words: Words) -> _Row:
    cells, end = [], 0
    for match in words.cell.finditer(text):
        end = match.end()
        # A number glued to the next column's (NV1 and 28-31, or NV12 and 8-31) is for the other half to say.
        glued = match[0][-1].isdigit() and text[end : end + 1].isdigit()
        cells.append(match[0] + "?" if glued else match[0])
    return _Row(cells=tuple(cells), tail=text[end:])


def _columns(block: Block, words: Words, what: str) -> list[int]:
    """The position of each GPU's column among a row's cells: from the header, or from the diagonal where the header is damaged."""
    positions = {gpu: at for at, gpu in enumerate(block.header) if gpu is not None}
    rows = sorted(block.rows)
    widest = max(len(_row(" ".join(pieces), words).cells) for pieces in block.rows.values())
    if widest > max(len(block.header), max(rows) + 1) + block.others:
        raise GridError(f"row GPU{rows[0]} of the {what} has {widest} cells, and nothing tells what column GPU{max(rows) + 1} is")
    if positions and sorted(positions) == list(range(len(positions))) and all(r in positions for r in rows):
        return [positions[g] for g in range(len(positions))]
    diagonal: dict[int, int] = {}
    for row, pieces in block.rows.items():
        cells = _row(" ".join(pieces), words).cells
        if cells.count(words.diagonal) == 1:
            diagonal[row] = cells.index(words.diagonal)
    shifts = {at - row for row, at in diagonal.items()}
    beyond = max(positions, default=-1) >= len(rows) or (not positions and len(rows) == 1)
    if (
        not beyond
        and rows == list(range(len(rows)))
        and len(shifts) == 1
        and min(diagonal.values()) >= 0
        and len(diagonal) == len(rows)
    ):
        shift = shifts.pop()
        return [g + shift for g in range(len(rows))]
    if not positions:
        raise GridError(f"the {what} has no header line and its rows do not start at GPU0 with X on the diagonal")
    lost = next((g for g in range(max([*positions, *rows]) + 1) if g not in positions), 0)
    raise GridError(f"the header of the {what} lacks column GPU{lost}")


def _best(options: list[_Row], row: int, columns: list[int], seen: dict[tuple[int, int], str], words: Words) -> _Row:
    """The reading of a row that contradicts the least of what other rows say, and has most cells in place."""

    def cost(option: _Row) -> tuple[int, int]:
        off = sum(
            1
            for column, at in enumerate(columns)
            if column != row and at < len(option.cells) and seen.get((column, row), option.cells[at]) != option.cells[at]
        )
        diagonal = columns[row]
        in_place = diagonal < len(option.cells) and option.cells[diagonal] == words.diagonal
        return off + (0 if in_place else 1), -len(option.cells)

    return min(options, key=cost)


def _placed(choice: _Row, row: int, columns: list[int], links: int, *, words: Words) -> dict[int, str]:
    """Cells by column whose place is sure; those that may have slipped because others are missing are left out.

    The cell on the diagonal anchors the row: what stands before it is in place when their number is right. After it, all is in
    place when the number is right, or when the row simply ends there (cut off: nothing follows the last cell).
    """
    anchor, cells = columns[row], choice.cells
    at_diagonal = [i for i, cell in enumerate(cells) if cell == words.diagonal]
    cut_off = not choice.tail.strip()
    if not at_diagonal and len(cells) == links - 1:  # a table whose diagonal is empty
        cells, at_diagonal = (*cells[:anchor], words.diagonal, *cells[anchor:]), [anchor]
    sure: dict[int, str] = {}
    for column, at in enumerate(columns):
        if column == row or at >= len(cells) or cells[at] == words.diagonal or cells[at].endswith("?"):
            continue
        if not at_diagonal:
            good = at < anchor and cut_off and len(cells) <= anchor
        else:
            good = at_diagonal == [anchor] and (at < anchor or len(cells) >= links or cut_off)
        if good:
            sure[column] = cells[at]
    return sure


def _agreed(
    size: int,
    seen: dict[tuple[int, int], str],
    *,
    tails: tuple[str, ...],
    missing: list[int],
    what: str,
) -> Grid:
    """One cell a pair, from both halves. Raises GridError where a pair is in neither."""
    cells: dict[tuple[int, int], str] = {}
    notes = [f"row GPU{r} of the {what} is missing; it was filled from the other rows" for r in missing]
    for a in range(size):
        for b in range(a + 1, size):
            here, there = seen.get((a, b)), seen.get((b, a))
            if here is None and there is None:
                raise GridError(f"the {what} has no certain cell in row GPU{a}, column GPU{b} (nor in row GPU{b}, column GPU{a})")
            if here is not None and there is not None and here != there:
                cells[a, b] = f"{here}|{there}"
            else:
                cells[a, b] = here or there or ""
                if (here is None or there is None) and a not in missing and b not in missing:
                    lost = (a, b) if here is None else (b, a)
                    notes.append(f"the cell in row GPU{lost[0]}, column GPU{lost[1]} was taken from the other half of the {what}")
    if len(notes) > 4:
        notes = [*notes[:3], f"{len(notes) - 3} more cells of the {what} were taken from its other half"]
    return Grid(size=size, cells=cells, tails=tails, notes=tuple(notes))
