"""`nvidia-smi topo -m` as people paste it, alone or inside a bug report: text -> Readings (pure).

The cells are those of the legend that nvidia-smi prints: NV# (bonded NVLinks), PIX, PXB, PHB, NODE, SYS, and SOC of old drivers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from advisor.errors import QuestionError
from advisor.probe.grid import Block, Grid, GridError, Words, blocks_of, read_grid
from advisor.probe.paste import lines_of
from advisor.probe.readings import GpuKind, GpuReading, PairReading, Readings
from advisor.probe.rocm_smi import is_rocm, read_rocm
from advisor.specs.cluster import LinkKind

WORDS = Words(cell=re.compile(r"NV(?:3[0-6]|[12]\d|[1-9])(?![\-,])|NV[1-9]|SYS|SOC|NODE|PHB|PXB|PIX|ERR!|X(?![a-z])"), diagonal="X")
_P2P = re.compile(r"(?:\b|(?<=X))(?:OK|CNS|GNS|TNS|NS|DR|U)\b")
_TIERS: dict[str, LinkKind] = {"PIX": "pix", "PXB": "pxb", "PHB": "phb", "NODE": "node", "SYS": "sys", "SOC": "sys"}
# Words of the matrix that `nvidia-smi topo -p2p` prints: OK works, the others name what does not.
P2P_WORDS = Words(cell=re.compile(r"OK|CNS|GNS|TNS|NS|DR|U|X(?![a-z])"), diagonal="X")

_NAME = re.compile(r"(?:^|\s)GPU (\d{1,3})\s*:\s*(\S.*)", re.IGNORECASE)
_UUID = re.compile(r"\(UUID:\s*((?:GPU|MIG)-[0-9a-f\-]+)\)?\Z", re.IGNORECASE)
_MIG_NAME = re.compile(r"^\s*MIG\s+(\S+)\s+Device\s+\d+\s*:\s*\(UUID:\s*(MIG-[^)]+)\)")
_TABLE_NAME = re.compile(
    r"^\s*(\d{1,3})\s+((?:NVIDIA|Tesla|Quadro|GeForce|GRID|A\d|H\d|B\d|L\d|RTX|TITAN)\b(?:\s?\S)*?)\s+(?:On|Off|N/A|TCC|WDDM)\s"
)
_TABLE_MEMORY = re.compile(r"(\d+)\s*MiB\s*/\s*(\d+)\s*MiB")
_DRIVER = re.compile(r"(?:Nvidia driver version|Driver Version)\s*:\s*(\d+\.\d+(?:\.\d+)?)", re.IGNORECASE)
_CUDA = re.compile(r"(?:CUDA Version|CUDA runtime version)\s*:\s*(\d+\.\d+)", re.IGNORECASE)
_MIB = 2.0**20
_LONGEST_NAME = 100


def read_topology_text(text: str) -> Readings:
    """The machine in a pasted text. Raises QuestionError (one sentence, row and column named) where the table is not certain.

    A text without a table but with GPU names gives Readings whose links are unknown and say why.
    """
    if "\x00" in text[:4000]:
        text = text.replace("\x00", "")
    lines = lines_of(text)
    if is_rocm(lines):
        return read_rocm(lines)
    named = _names(lines)
    driver, cuda = _first(_DRIVER, lines), _first(_CUDA, lines)
    blocks = blocks_of(lines, WORDS)
    peers = [b for b in blocks if _is_p2p(b)]
    tables = [b for b in blocks if not _is_p2p(b)]
    platform = _platform(lines)
    if not tables:
        return replace(_without_table(lines, named), driver=driver, cuda=cuda, platform=platform)
    grid, note = _readable(tables)
    pairs, notes = _pairs(grid)
    pairs = _with_peers(pairs, blocks_of(lines, P2P_WORDS), grid.size) if peers else pairs
    gpus = tuple(_gpu(index, named.get(index), grid.tails[index]) for index in range(grid.size))
    if named and len(named) != grid.size:
        notes.append(f"the text names {len(named)} GPUs and its table has {grid.size}; the table counts")
    return Readings(
        source="nvidia-smi", gpus=gpus, pairs=pairs, driver=driver, cuda=cuda, platform=platform, notes=(*note, *grid.notes, *notes)
    )


def _readable(tables: Sequence[Block]) -> tuple[Grid, tuple[str, ...]]:
    """The first table that can be read, and a word about others."""
    first_error: GridError | None = None
    for block in tables:
        try:
            grid = read_grid(block, WORDS, what="table")
        except GridError as error:
            first_error = first_error or error
            continue
        others = len(tables) - 1
        return grid, (f"the text holds {others + 1} tables; the first readable one counts",) if others else ()
    raise QuestionError(f"This topology text is damaged: {first_error}; paste `nvidia-smi topo -m` again, whole and unwrapped.")


def _pairs(grid: Grid) -> tuple[tuple[PairReading, ...], list[str]]:
    """Pairs of the cells; where the halves contradict each other the worse one counts, and is said."""
    pairs, notes = [], []
    for (a, b), cell in sorted(grid.cells.items()):
        readings = [_pair(a, b, half) for half in cell.split("|")]
        worse = max(readings, key=lambda p: p.order)
        if len(readings) > 1:
            here, there = cell.split("|")
            notes.append(
                f"row GPU{a} says {here} of GPU{b} and row GPU{b} says {there} of GPU{a}: {worse.cell or 'unknown'} counts, "
                f"a link that one end does not see is not used"
            )
        pairs.append(worse)
    return tuple(pairs), notes


def _pair(a: int, b: int, cell: str) -> PairReading:
    if cell.startswith("NV"):
        return PairReading(a=a, b=b, nvlinks=int(cell[2:]))
    return PairReading(a=a, b=b, nvlinks=0, tier=_TIERS.get(cell)) if cell in _TIERS else PairReading(a=a, b=b)


def _is_p2p(block: Block) -> bool:
    return any(_P2P.search(piece) for pieces in block.rows.values() for piece in pieces)


def _with_peers(pairs: tuple[PairReading, ...], blocks: Sequence[Block], size: int) -> tuple[PairReading, ...]:
    """Pairs with what a second `topo -p2p` table says of peer access, where it is whole and of the same GPUs."""
    for block in blocks:
        if not _is_p2p(block):
            continue
        try:
            grid = read_grid(block, P2P_WORDS, what="p2p table")
        except GridError:
            continue
        if grid.size == size:
            return tuple(replace(p, p2p=grid.cells[p.a, p.b] == "OK") for p in pairs)
    return pairs


def _gpu(index: int, named: GpuReading | None, tail: str) -> GpuReading:
    gpu = named or GpuReading(index=index)
    return replace(gpu, index=index, visible_as=str(index), numa=_numa(tail))


def _numa(tail: str) -> int | None:
    """The NUMA node in what follows the cells: `0-23,48-71  0  N/A`, `NUMA 1`; None where it is missing or glued."""
    named = re.search(r"NUMA\s+(\d+)\s*$", tail)
    if named:
        return int(named[1])
    if "\t" in tail:
        columns = [c.strip() for c in tail.strip("\n").split("\t")]
        columns = columns[1:] if columns and not columns[0] else columns
        return int(columns[1]) if len(columns) > 1 and re.fullmatch(r"\d{1,2}", columns[1]) else None
    words = tail.split()
    return int(words[1]) if len(words) > 1 and re.search(r"[\-,]", words[0]) and re.fullmatch(r"\d{1,2}", words[1]) else None


def _names(lines: Sequence[str]) -> dict[int, GpuReading]:
    """GPUs that the text names: collect_env's and `nvidia-smi -L`'s lines, else the rows of the nvidia-smi table."""
    found: dict[int, GpuReading] = {}
    parents: dict[int, list[tuple[str, str]]] = {}
    last = -1
    for line in lines:
        match = _NAME.search(line)
        if match and not re.match(r"\s*(?:0x|\d)", match[2]):
            last = int(match[1])
            name, uuid = _name_and_uuid(match[2].rstrip())
            found.setdefault(last, GpuReading(index=last, name=name, uuid=uuid, kind=_kind(name)))
            continue
        mig = _MIG_NAME.match(line)
        if mig and last >= 0:
            parents.setdefault(last, []).append((mig[1], mig[2]))
    for index, instances in parents.items():
        profile, uuid = instances[0]
        found[index] = replace(found[index], mig=True, kind="mig", name=f"{found[index].name} MIG {profile}", uuid=uuid)
    return found or _table(lines)


def _name_and_uuid(text: str) -> tuple[str, str | None]:
    at = text.lower().rfind("(uuid:")
    match = _UUID.match(text, at) if at > 0 else None
    name = text[:at].rstrip() if match else text
    return name[:_LONGEST_NAME], match[1] if match else None


def _table(lines: Sequence[str]) -> dict[int, GpuReading]:
    found: dict[int, GpuReading] = {}
    for number, line in enumerate(lines):
        match = _TABLE_NAME.match(line)
        if not match or int(match[1]) in found:
            continue
        memory = next((m for near in lines[number : number + 3] if (m := _TABLE_MEMORY.search(near))), None)
        total = float(memory[2]) * _MIB if memory else None
        free = (float(memory[2]) - float(memory[1])) * _MIB if memory else None
        index = int(match[1])
        found[index] = GpuReading(
            index=index, name=match[2][:_LONGEST_NAME], memory_bytes=total, free_bytes=free, kind=_kind(match[2][:_LONGEST_NAME])
        )
    return found


def _kind(name: str) -> GpuKind:
    if re.search(r"\bMIG\b|\d+g\.\d+gb", name):
        return "mig"
    return "vgpu" if re.search(r"\bGRID\b|-\d+[ABCQ]\b", name) else "gpu"


def _first(pattern: re.Pattern[str], lines: Sequence[str]) -> str | None:
    return next((m[1] for line in lines if (m := pattern.search(line))), None)


def _platform(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    if re.search(r"microsoft-standard|WSL2", text):
        return "wsl2"
    return "vm" if re.search(r"Hypervisor vendor:\s*\S|Virtualization type:\s*full", text) else ""


def _without_table(lines: Sequence[str], named: dict[int, GpuReading]) -> Readings:
    """GPUs named without a table: links unknown, unless there is one GPU and so none to know."""
    could_not = any("Could not collect" in line for line in lines)
    why = "it says `Could not collect`" if could_not else "it holds no table with rows GPU0, GPU1, ..."
    if not named:
        raise QuestionError(f"No GPU topology was found in this text: {why}; paste the output of `nvidia-smi topo -m`.")
    gpus = tuple(replace(gpu, index=i, visible_as=str(g)) for i, (g, gpu) in enumerate(sorted(named.items())))
    reason = "" if len(gpus) == 1 else f"The links between GPUs are not in this text: {why}."
    return Readings(source="nvidia-smi", gpus=gpus, reason=reason)
