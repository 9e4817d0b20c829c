"""`rocm-smi --showtopo` as people paste it: weights, hops, link types and NUMA nodes -> Readings (pure).

The tables are those of ROCm's own documentation of rocm-smi. The weight is KFD's distance: 15 for one xGMI hop, 30 and 45 for more;
MI250 reports xGMI and one hop for every pair, so that only the weight tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from advisor.errors import QuestionError
from advisor.probe.grid import Grid, GridError, Words, blocks_of, read_grid
from advisor.probe.readings import GpuReading, PairReading, Readings
from advisor.specs.cluster import LinkKind

_TYPES = Words(cell=re.compile(r"XGMI|PCIE|N/A|0(?![\d.])"), diagonal="0")
_NUMBERS = Words(cell=re.compile(r"\d+"), diagonal="0")
_TITLES = (("weight", "Weight between two GPUs"), ("hops", "Hops between two GPUs"), ("type", "Link Type between two GPUs"))
_OTHER = re.compile(r"=\s*(?:Numa Nodes|End of ROCm|Accessible)|=[^=]*Bandwidth", re.IGNORECASE)
_NUMA = re.compile(r"GPU\[(\d+)\]\s*:\s*\(Topology\)\s*Numa Node:\s*(-?\d+)")
_SERIES = re.compile(r"GPU\[(\d+)\]\s*:\s*Card (?:series|Series|model|SKU):\s*(\S.{0,99})")
_HOPS_ACROSS = 3  # GPU to host, host to host, host to GPU


def is_rocm(lines: Sequence[str]) -> bool:
    """Whether the text is rocm-smi's."""
    return any(
        "Link Type between two GPUs" in line or "Weight between two GPUs" in line or "(Topology) Numa" in line for line in lines
    )


def read_rocm(lines: Sequence[str]) -> Readings:
    """The machine in a rocm-smi text. Raises QuestionError where a table is damaged or missing."""
    parts = _parts(lines)
    if "type" not in parts:
        raise QuestionError("This rocm-smi text has no table `Link Type between two GPUs`; paste all of `rocm-smi --showtopo`.")
    types = _grid(parts["type"], _TYPES, "link type table")
    weights = _optional(parts.get("weight"), "weight table", types.size)
    hops = _optional(parts.get("hops"), "hops table", types.size)
    numa = {int(m[1]): int(m[2]) for line in lines if (m := _NUMA.search(line))}
    names = {int(m[1]): m[2].rstrip() for line in lines if (m := _SERIES.search(line))}
    gpus = tuple(
        GpuReading(index=i, visible_as=str(i), name=names.get(i), numa=numa.get(i) if numa.get(i, -1) >= 0 else None)
        for i in range(types.size)
    )
    pairs = tuple(_pair(a, b, types, weights, hops, gpus) for a, b in sorted(types.cells))
    notes = tuple(
        f"row GPU{a} and row GPU{b} of the link type table disagree; the worse counts"
        for (a, b), cell in types.cells.items()
        if "|" in cell
    )
    return Readings(source="rocm-smi", vendor="amd", gpus=gpus, pairs=pairs, notes=(*types.notes, *notes))


def _parts(lines: Sequence[str]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        title = next((name for name, words in _TITLES if words in line), None)
        if title and title not in parts:
            current = parts[title] = []
        elif title or _OTHER.search(line):
            current = None
        elif current is not None:
            current.append(line)
    return parts


def _grid(lines: list[str], words: Words, what: str) -> Grid:
    blocks = blocks_of(lines, words)
    try:
        if not blocks:
            raise GridError(f"the {what} has no rows")
        return read_grid(blocks[0], words, what=what)
    except GridError as error:
        raise QuestionError(
            f"This rocm-smi text is damaged: {error}; paste `rocm-smi --showtopo` again, whole and unwrapped."
        ) from None


def _optional(lines: list[str] | None, what: str, size: int) -> Grid | None:
    """A table that only adds detail: left out where it is damaged or of another size."""
    if lines is None:
        return None
    try:
        grid = _grid(lines, _NUMBERS, what)
    except QuestionError:
        return None
    return grid if grid.size == size else None


def _pair(a: int, b: int, types: Grid, weights: Grid | None, hops: Grid | None, gpus: Sequence[GpuReading]) -> PairReading:
    kinds = types.cells[a, b].split("|")
    weight, hop = _number(weights, a, b), _number(hops, a, b)
    if all(kind == "XGMI" for kind in kinds):
        return PairReading(a=a, b=b, joined="xgmi", weight=weight)
    if not all(kind in ("XGMI", "PCIE") for kind in kinds):
        return PairReading(a=a, b=b)
    here, there = gpus[a].numa, gpus[b].numa
    tier: LinkKind | None = None
    if hop is not None:
        tier = "sys" if hop >= _HOPS_ACROSS else "phb"
    elif here is not None and there is not None:
        tier = "phb" if here == there else "sys"
    return PairReading(a=a, b=b, nvlinks=0, tier=tier, weight=weight)


def _number(grid: Grid | None, a: int, b: int) -> int | None:
    cell = grid.cells[a, b] if grid else ""
    return int(cell) if cell.isdigit() else None
