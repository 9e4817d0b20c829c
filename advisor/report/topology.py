"""The page of `advisor probe`: the GPUs, the matrix as people know it, islands, a drawing, and the verdict in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from advisor.probe.readings import GpuReading, PairReading, Readings
from advisor.report.screen import PLAIN, Screen
from advisor.roofline.fabric import Fabric, LinkGraph, group_fabric, is_direct, typical_bytes_per_s
from advisor.specs.cluster import NVLINKS, Cluster, Link
from advisor.units import show, show_bytes

_COLOURS = {
    "nvswitch": 32,
    "nvlink": 32,
    "xgmi": 32,
    "c2c": 32,
    "pix": 36,
    "pxb": 36,
    "phb": 33,
    "node": 33,
    "sys": 31,
    "unknown": 35,
}
_CLASSES = (
    ("NV#", "nvlink", "NVLinks"), ("XGMI", "xgmi", "xGMI"), ("PIX", "pix", "one PCIe switch"),
    ("PXB", "pxb", "several PCIe switches"), ("PHB", "phb", "host bridge"), ("NODE", "node", "within a socket"),
    ("SYS", "sys", "across sockets"), ("?", "unknown", "unknown"),
)  # fmt: skip
_WIDEST_MATRIX = 16  # GPUs whose matrix fits the page
_SXM = ("SXM", "HBM3")


def page(readings: Readings, cluster: Cluster | None, *, missing: str = "", screen: Screen = PLAIN) -> str:
    """The whole answer as text. `missing` says why there is no cluster to reason with."""
    parts = [_head(readings, screen), _gpus(readings, screen), _matrix(readings, screen), _drawing(readings, screen)]
    words = [screen.bold("Verdict"), *(screen.wrap(s, indent="  ") for s in verdict(readings, cluster))]
    said = [*readings.notes, *([cluster.assumed] if cluster and cluster.assumed else []), *([missing] if missing else [])]
    parts += [words, [screen.wrap(f"Note: {_sentence(s)}", indent="  ", first="") for s in said]]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def data(readings: Readings, cluster: Cluster | None, cluster_file: dict[str, Any] | None) -> dict[str, Any]:
    """The same as plain data for JSON: what is not known is null."""
    worst = readings.worst
    gpus = [{**asdict(gpu), "fabric": list(gpu.fabric) if gpu.fabric else None} for gpu in readings.gpus]
    return {
        "source": readings.source,
        "reason": readings.reason or None,
        "platform": readings.platform or None,
        "driver": readings.driver,
        "cuda": readings.cuda,
        "gpus": gpus,
        "matrix": [
            ["X" if a.index == b.index else readings.pair(a.index, b.index).cell for b in readings.gpus] for a in readings.gpus
        ],
        "islands": [list(island) for island in readings.islands] if readings.known_links or readings.islands else None,
        "best_link": readings.best[0].cell if readings.best else None,
        "worst_link": worst.cell if worst else None,
        "best_pairs": [[p.a, p.b] for p in readings.best],
        "p2p": [[p.a, p.b, p.p2p] for p in readings.all_pairs if p.p2p is not None],
        "verdict": verdict(readings, cluster),
        "notes": list(readings.notes),
        "cluster": cluster_file,
    }


def verdict(readings: Readings, cluster: Cluster | None) -> list[str]:
    """What the links mean for a plan, in words. Speeds are said where the GPUs are known."""
    n = len(readings.gpus)
    if not n:
        return [_sentence(readings.reason or "No GPU was found")]
    said = _mixed(readings, cluster)
    if any(gpu.kind == "mig" for gpu in readings.gpus) and n > 1:
        return [*said, "MIG instances cannot reach each other's memory: run one replica an instance, tp=1 and pp=1."]
    if n == 1:
        return [*said, "There is one GPU, so tp=1 and pp=1; a link has nothing to join."]
    healthy = [g.index for g in readings.gpus if not g.problem]
    if len(healthy) < n:
        said += [f"GPU {g.index} cannot be used: {g.problem.rstrip('.')}." for g in readings.gpus if g.problem]
    speeds = _Speeds(readings, cluster, healthy)
    if len(healthy) > 1:
        said += _links(readings, healthy, speeds)
    return said


class _Speeds:
    """Speeds in words from the cluster, where there is one; GPU indices are the readings'."""

    def __init__(self, readings: Readings, cluster: Cluster | None, healthy: Sequence[int]) -> None:
        self.cluster = cluster
        self.names = {gpu.index: gpu.name for gpu in readings.gpus}
        self.place = {gpu: at for at, gpu in enumerate(healthy)}

    def group(self, gpus: Sequence[int]) -> Fabric | None:
        return group_fabric(LinkGraph(self.cluster), [self.place[g] for g in gpus]) if self.cluster else None

    def link(self, pair: PairReading) -> Link | None:
        return self.cluster.node.link(self.place[pair.a], self.place[pair.b]) if self.cluster else None

    def about(self, pair: PairReading) -> str:
        """` at about 11 GB/s`, or nothing."""
        link = self.link(pair)
        return f" at about {show(typical_bytes_per_s(link), 'B/s', digits=2)}" if link else ""

    def equal(self, pair: PairReading) -> bool:
        """Whether both GPUs are of one model: a tp group takes equal ones."""
        if self.cluster:
            devices = self.cluster.node.devices
            return devices[self.place[pair.a]].name == devices[self.place[pair.b]].name
        return self.names[pair.a] == self.names[pair.b]

    def direct(self, pair: PairReading) -> bool:
        """Whether the pair copies without host memory: a switch does where P2P works; unknown GPUs are taken to have it."""
        link = self.link(pair)
        return is_direct(link) if link else pair.tier in ("pix", "pxb") and pair.p2p is not False


def _links(readings: Readings, healthy: Sequence[int], speeds: _Speeds) -> list[str]:
    pairs = [readings.pair(a, b) for a, b in combinations(healthy, 2)]
    islands = [tuple(g for g in island if g in healthy) for island in readings.islands]
    islands = [island for island in islands if len(island) > 1]
    unknown = [p for p in pairs if p.kind == "unknown"]
    said = []
    if islands:
        said = _with_islands(readings, healthy, islands, pairs, speeds)
    elif not unknown:
        said = _without_islands(healthy, pairs, speeds)
        if any(word in (g.name or "") for g in readings.gpus for word in _SXM):
            said.append(
                "These boards are made with NVLink and none of it is up: check `nvidia-smi nvlink -s` and the fabric manager "
                "before giving up tp."
            )
    if unknown:
        which = "The links" if len(unknown) == len(pairs) else f"{len(unknown)} of {len(pairs)} links"
        why = f" ({readings.reason.rstrip('.')})" if readings.reason else ""
        said.append(
            f"{which} between GPUs could not be read{why}; that does not mean there is no NVLink. Paste `nvidia-smi topo -m` "
            f"with --from, "
            f"or describe the links in a cluster file."
        )
    return said


def _with_islands(
    readings: Readings, healthy: Sequence[int], islands: Sequence[tuple[int, ...]], pairs: Sequence[PairReading], speeds: _Speeds
) -> list[str]:
    """NVLink or xGMI joins some or all GPUs."""
    what = "xGMI" if any(p.kind == "xgmi" for p in pairs) else "NVLink"
    alone = [g for g in healthy if not any(g in island for island in islands)]
    across = [p for p in pairs if p.kind not in NVLINKS and not any(p.a in i and p.b in i for i in islands)]
    said = []
    if not alone and len(islands) == 1:
        said.append(_one_island(readings, islands[0], what, speeds))
        return said
    whole = [i for i in islands if _complete(readings, i)]
    pairs_only = {len(i) for i in islands} == {2}
    if whole:
        several = len(whole) > 1
        noun = ("pair" if {len(i) for i in whole} == {2} else "island") + ("s" if several else "")
        article = "" if several else "one "
        said.append(f"GPUs {_and([_span(i) for i in whole])} are {article}{what} {noun}{_rate(whole[0], speeds)}.")
    said += [_incomplete(readings, i, what, speeds) for i in islands if not _complete(readings, i)]
    if alone:
        said.append(f"{_gpus_word(alone)} {_and([str(g) for g in alone])} {'has' if len(alone) == 1 else 'have'} no {what}.")
    most = _power(max((len(i) for i in whole), default=2))
    if across:
        worst = max(across, key=lambda p: p.order)
        where = "across pairs" if pairs_only and not alone else "elsewhere"
        said.append(f"{where.capitalize()} {_how(worst, speeds)}: keep tp <= {most}, use pp or replicas {where}.")
    return said


def _one_island(readings: Readings, island: tuple[int, ...], what: str, speeds: _Speeds) -> str:
    """NVLink joins all GPUs."""
    n = len(island)
    if not _complete(readings, island):
        return _incomplete(readings, island, what, speeds)
    fabric = speeds.group(island)
    how = ""
    if n > 2 and fabric:
        how = " through a switch" if fabric.wiring == "switch" else ", each pair by its own links"
    both = "Both GPUs" if n == 2 else f"All {n} GPUs"
    return f"{both} are joined by {what}{how}{_rate(island, speeds)}: any tp up to {n} that divides the model is good."


def _incomplete(readings: Readings, island: tuple[int, ...], what: str, speeds: _Speeds) -> str:
    """An island some of whose pairs have no link of their own."""
    fabric = speeds.group(island)
    inside = [readings.pair(a, b) for a, b in combinations(island, 2)]
    missing = [p for p in inside if p.kind not in NVLINKS]
    groups = _cliques(readings, island)
    best = _and([_span(g) for g in groups]) if groups else " or ".join([f"{p.a}-{p.b}" for p in inside if p.kind in NVLINKS][:3])
    ring = fabric.kind in NVLINKS if fabric else all(sum(p.kind in NVLINKS for p in inside if g in (p.a, p.b)) > 1 for g in island)
    shape = "a cube mesh" if len(island) == 8 and ring else ("a ring" if ring else "a chain")
    text = (
        f"GPUs {_span(island)} are one {what} island in {shape}: {len(missing)} of {len(inside)} pairs have no link of their own. "
        f"tp is best within {best}"
    )
    if ring:
        return (
            f"{text}; tp={len(island)} still runs over rings of {what}{_rate(island, speeds)}, without the engine's own all-reduce."
        )
    worst = max(missing, key=lambda p: p.order)
    return f"{text}; all {len(island)} together are as slow as their missing link, which {_how(worst, speeds, verb=False)}."


def _without_islands(healthy: Sequence[int], pairs: Sequence[PairReading], speeds: _Speeds) -> list[str]:
    """PCIe only."""
    n = len(healthy)
    direct = [p for p in pairs if speeds.direct(p)]
    if not direct:
        equal = [p for p in pairs if speeds.equal(p)] or list(pairs)
        slow, quick = max(pairs, key=lambda p: p.order), min(equal, key=lambda p: p.order)
        switched = [p for p in pairs if p.tier in ("pix", "pxb")]
        why = " (these GPUs have no peer access, the switch they share does not help)" if switched else ""
        who = "the two GPUs reach" if n == 2 else "the GPUs reach"
        text = f"There is no NVLink: {who} each other through host memory{speeds.about(slow)}{why}."
        said = [text]
        if quick.tier != slow.tier:
            groups = _components(healthy, [p for p in equal if p.order == quick.order])
            said.append(f"GPUs {_and([_span(g) for g in groups])} are nearest ({quick.cell}); take tp groups from there.")
        said.append("tp=2 can lower the latency of one user; for throughput use replicas, or pp where the model does not fit.")
        return said
    groups = _components(healthy, [p for p in direct if speeds.equal(p)] or direct)
    rest = [p for p in pairs if p not in direct]
    best = min(direct, key=lambda p: p.order)
    where = "a PCIe switch" if len(groups) == 1 else "PCIe switches"
    text = f"There is no NVLink. GPUs {_and([_span(g) for g in groups])} copy directly below {where}{speeds.about(best)}"
    if not rest:
        return [f"{text}: tp=2 to {min(4, _power(n))} is possible at PCIe speed; for throughput use replicas."]
    worst = max(rest, key=lambda p: p.order)
    most = _power(max(len(g) for g in groups))
    shared = max((len(g) for g in groups), default=1)
    uplink = f", and up to {shared} GPUs share one uplink" if shared > 1 else ""
    return [f"{text}.", f"Beyond them {_how(worst, speeds)}{uplink}: keep tp <= {most} inside a switch, use pp or replicas across."]


def _how(pair: PairReading, speeds: _Speeds, *, verb: bool = True) -> str:
    """How traffic of a pair goes: `traffic goes through host memory at about 11 GB/s`."""
    start = "traffic goes " if verb else "goes "
    if pair.kind == "unknown":
        return f"{start}an unknown way"
    if speeds.direct(pair):
        return f"{start}through PCIe switches{speeds.about(pair)}"
    across = " across sockets" if pair.tier == "sys" else ""
    return f"{start}through host memory{across}{speeds.about(pair)}"


def _mixed(readings: Readings, cluster: Cluster | None) -> list[str]:
    """Different GPUs in one machine."""
    kinds: dict[str, list[int]] = {}
    names = [g.name or "" for g in readings.gpus]
    if cluster and len(cluster.node.devices) == len(names):
        names = [d.name for d in cluster.node.devices]
    for gpu, name in zip(readings.gpus, names, strict=True):
        kinds.setdefault(name, []).append(gpu.index)
    if len(kinds) < 2 or "" in kinds:
        return []
    listed = _and([f"{_span(tuple(g))} ({name})" for name, g in kinds.items()])
    return [f"The GPUs differ: {listed}. tp only among equals; pp with layers in proportion, or separate replicas, across them."]


def _rate(island: Sequence[int], speeds: _Speeds) -> str:
    fabric = speeds.group(island)
    if not fabric or fabric.kind not in NVLINKS:
        return ""
    link = Link(kind=fabric.kind, bytes_per_s=fabric.bytes_per_s)
    return f" (about {show(typical_bytes_per_s(link), 'B/s', digits=2)} a GPU)"


def _complete(readings: Readings, gpus: Sequence[int]) -> bool:
    return all(readings.pair(a, b).kind in NVLINKS for a, b in combinations(gpus, 2))


def _cliques(readings: Readings, island: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Disjoint groups of four (else two) whose every pair is linked, in order; [] where the island does not part into such."""
    for size in (4, 2):
        left, found = list(island), []
        while left:
            first = left[0]
            choices = (c for c in combinations(left[1:], size - 1) if _complete(readings, (first, *c)))
            group = max(choices, key=lambda c: (_links_inside(readings, (first, *c)), tuple(-g for g in c)), default=None)
            if group is None:
                break
            found.append((first, *group))
            left = [g for g in left if g not in (first, *group)]
        if not left:
            return found
    return []


def _links_inside(readings: Readings, gpus: Sequence[int]) -> int:
    return sum(readings.pair(a, b).nvlinks or 0 for a, b in combinations(gpus, 2))


def _components(gpus: Sequence[int], pairs: Sequence[PairReading]) -> list[tuple[int, ...]]:
    """Groups of two and more that these pairs join."""
    home = {g: g for g in gpus}
    for p in pairs:
        low, high = sorted((home[p.a], home[p.b]))
        home = {g: low if h == high else h for g, h in home.items()}
    groups = [tuple(g for g in gpus if home[g] == h) for h in dict.fromkeys(home.values())]
    return [g for g in groups if len(g) > 1]


def _head(readings: Readings, screen: Screen) -> list[str]:
    kinds: dict[str, int] = {}
    for gpu in readings.gpus:
        name = gpu.name or "GPU (not named)"
        kinds[name] = kinds.get(name, 0) + 1
    what = " + ".join(f"{count} x {name}" for name, count in kinds.items()) or "No GPU"
    more = [f"driver {readings.driver}" if readings.driver else "", f"CUDA {readings.cuda}" if readings.cuda else ""]
    place = {"wsl2": "WSL2", "vm": "virtual machine"}.get(readings.platform, "")
    how = {"nvml": "read from the driver", "nvidia-smi": "read from a text", "rocm-smi": "read from a rocm-smi text"}[
        readings.source
    ]
    return [screen.wrap(", ".join(filter(None, [what, *more, place, how])), indent="  ", first="")]


def _gpus(readings: Readings, screen: Screen) -> list[str]:
    """The table of GPUs, of the columns about which something is known."""
    columns: list[tuple[str, Callable[[GpuReading], str]]] = [
        ("GPU", lambda g: str(g.index)),
        ("name", lambda g: _short(g.name or "?", 34)),
        ("memory", lambda g: show_bytes(g.memory_bytes) if g.memory_bytes else ""),
        ("free", lambda g: show_bytes(g.free_bytes) if g.free_bytes is not None else ""),
        ("PCIe", _slot),
        ("NUMA", lambda g: "" if g.numa is None else str(g.numa)),
        ("NVLinks", lambda g: "" if g.nvlinks is None else str(g.nvlinks)),
        ("in use by", lambda g: f"{g.busy_processes} processes" if g.busy_processes else ""),
        ("state", lambda g: "not usable" if g.problem else ""),
    ]
    cells = {title: [read(g) for g in readings.gpus] for title, read in columns}
    kept = [title for title, _ in columns if title == "GPU" or any(c not in ("", "?") for c in cells[title])]
    if kept in (["GPU"], ["GPU", "name"], ["GPU", "name", "NUMA"], ["GPU", "NUMA"]) and len({g.name for g in readings.gpus}) == 1:
        return []
    return screen.table(kept, list(zip(*(cells[t] for t in kept), strict=True)))


def _slot(gpu: GpuReading) -> str:
    if not gpu.pcie_generation or not gpu.pcie_width:
        return ""
    narrow = f" of x{gpu.pcie_width_most}" if (gpu.pcie_width_most or 0) > gpu.pcie_width else ""
    return f"gen{gpu.pcie_generation} x{gpu.pcie_width}{narrow}"


def _matrix(readings: Readings, screen: Screen) -> list[str]:
    n = len(readings.gpus)
    if n < 2:
        return []
    if n > _WIDEST_MATRIX:
        return [f"The matrix of {n} GPUs is wider than the page; --json has it."]
    lines = [" " * 7 + "".join(f"GPU{g.index}".ljust(5) if n > 10 else f"GPU{g.index}".ljust(7) for g in readings.gpus).rstrip()]
    width = 5 if n > 10 else 7
    for a in readings.gpus:
        cells = []
        for b in readings.gpus:
            pair = readings.pair(a.index, b.index)
            text = "X" if a.index == b.index else (pair.cell or "?")
            cells.append(_coloured(text.ljust(width), "" if a.index == b.index else pair.kind, screen))
        lines.append(f"GPU{a.index}".ljust(7) + "".join(cells).rstrip())
    present = {p.kind for p in readings.all_pairs}
    present = {"nvlink" if k in ("nvswitch", "nvlink") else k for k in present}
    legend = [f"{_coloured(mark, kind, screen)} {words}" for mark, kind, words in _CLASSES if kind in present]
    return [*lines, "", "  " + "   ".join(legend)]


def _coloured(text: str, kind: str, screen: Screen) -> str:
    return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if screen.colour and kind in _COLOURS else text


def _drawing(readings: Readings, screen: Screen) -> list[str]:
    """Sockets, switches and GPUs as a tree, and the NVLink islands below it."""
    n = len(readings.gpus)
    lines: list[str] = []
    if 1 < n <= 2 * _WIDEST_MATRIX:
        lines = ["host", *_branches(_sockets(readings), readings, screen)]
    what = "xGMI" if any(p.kind == "xgmi" for p in readings.pairs) else "NVLink"
    if readings.islands:
        lines.append(f"{what} islands: " + "  |  ".join(_span(i) for i in readings.islands))
    elif n > 1 and readings.known_links:
        lines.append(f"{what} islands: none")
    return lines


def _sockets(readings: Readings) -> list[tuple[str, tuple[int, ...]]]:
    """GPUs by NUMA node where all are known, else by what is joined without crossing sockets."""
    gpus = [g.index for g in readings.gpus]
    numa = [g.numa for g in readings.gpus]
    if all(n is not None for n in numa):
        nodes = sorted({n for n in numa if n is not None})
        return [(f"NUMA node {node}", tuple(g for g, n in zip(gpus, numa, strict=True) if n == node)) for node in nodes]
    near = [p for p in readings.pairs if p.tier in ("pix", "pxb", "phb", "node")]
    groups = _components(gpus, near)
    loose = [(g,) for g in gpus if not any(g in group for group in groups)]
    if not groups or len(groups) + len(loose) == 1 or not any(p.tier == "sys" for p in readings.pairs):
        return [("", tuple(gpus))]
    return [("socket (by its links)", group) for group in sorted([*groups, *loose])]


def _branches(sockets: list[tuple[str, tuple[int, ...]]], readings: Readings, screen: Screen) -> list[str]:
    tee, corner, bar = ("├─ ", "└─ ", "│  ") if screen.blocks else ("|- ", "`- ", "|  ")
    lines: list[str] = []
    for number, (label, gpus) in enumerate(sockets):
        last = number == len(sockets) - 1
        below = _below(gpus, readings)
        stem = ""
        if label:
            lines.append((corner if last else tee) + label)
            stem = "   " if last else bar
        for item, text in enumerate(below):
            lines.append(stem + (corner if item == len(below) - 1 else tee) + text)
    return lines


def _below(gpus: tuple[int, ...], readings: Readings) -> list[str]:
    """Switches with their GPUs, then GPUs on slots of their own."""
    inside = [readings.pair(a, b) for a, b in combinations(gpus, 2)]
    trees = _components(gpus, [p for p in inside if p.tier in ("pix", "pxb")])
    lines = []
    for tree in trees:
        switches = _components(tree, [p for p in inside if p.tier == "pix" and p.a in tree and p.b in tree])
        loose = [g for g in tree if not any(g in s for s in switches)]
        parts = [f"[{_names(s)}]" for s in switches] if len(switches) + len(loose) > 1 else [_names(tree)]
        parts += [f"GPU{g}" for g in loose] if len(switches) + len(loose) > 1 else []
        lines.append(("switch: " if len(parts) == 1 else "switches: ") + "  ".join(parts))
    slots = [g for g in gpus if not any(g in tree for tree in trees)]
    return lines + ([_names(tuple(slots))] if slots else [])


def _names(gpus: Sequence[int]) -> str:
    return " ".join(f"GPU{g}" for g in gpus)


def _span(gpus: Sequence[int]) -> str:
    """`0-3` for 0, 1, 2, 3; `0,3` for 0, 3."""
    parts: list[list[int]] = []
    for g in gpus:
        if parts and g == parts[-1][-1] + 1:
            parts[-1].append(g)
        else:
            parts.append([g])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _gpus_word(gpus: Sequence[int]) -> str:
    return "GPU" if len(gpus) == 1 else "GPUs"


def _power(n: int) -> int:
    """The largest power of two up to n."""
    return 1 << (max(1, n).bit_length() - 1)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
