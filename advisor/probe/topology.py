"""Readings -> Cluster (pure): what was read, joined with the data sheets of the GPUs, as the machine that plans are made for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from advisor.errors import MachineError, QuestionError
from advisor.probe.readings import GpuReading, PairReading, Readings
from advisor.specs.cluster import Cluster, Device, Link, LinkKind, Node, Pair

Find = Callable[[str, float | None], Device | None]

# Payload bytes/s of one PCIe lane, one direction: 2.5, 5 GT/s x 8/10; 8, 16, 32 GT/s x 128/130; 64 GT/s x 242/256 (PCI-SIG base
# specifications 1.0 to 6.0), divided by 8.
PCIE_LANE_BYTES_PER_S = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
# The weight that rocm-smi gives one xGMI hop; further hops add as much.
XGMI_HOP_WEIGHT = 15
_SAME_MEMORY = 0.9  # less than this share of the sheet's memory is a slice of a GPU
_MIG = re.compile(r"\s*MIG\s+(?:\d+c\.)?(\d)g\.(\d+)gb", re.IGNORECASE)
_MIG_SLICES = 7  # compute slices of a whole GPU (NVIDIA MIG user guide)
_TIER_UPLINKS: tuple[tuple[LinkKind, ...], ...] = (("pix",), ("pix", "pxb"))


def cluster_from(
    readings: Readings, devices: Sequence[Device], *, find: Find | None = None, device: Device | None = None
) -> Cluster:
    """The machine that was read, as one node.

    `devices` are the data sheets to choose from by name, `find` a better way to look one up (name, memory bytes), `device` the
    user's word for all of them. GPUs that failed are left out and named in `assumed`, as is what had to be assumed of links.
    Raises QuestionError where a GPU has no data sheet or the text names none, MachineError where there is no GPU.
    """
    alive = [gpu for gpu in readings.gpus if not gpu.problem]
    if not alive:
        raise MachineError(_nothing(readings))
    sheets = tuple(_sheet(gpu, devices, find, device) for gpu in alive)
    slots = tuple(slot_bytes_per_s(gpu, sheet) for gpu, sheet in zip(alive, sheets, strict=True))
    sheets = tuple(replace(s, pcie_bytes_per_s=slot) for s, slot in zip(sheets, slots, strict=True))
    pairs = [readings.pair(alive[i].index, alive[j].index) for i in range(len(alive)) for j in range(i + 1, len(alive))]
    ends = [(i, j) for i in range(len(alive)) for j in range(i + 1, len(alive))]
    degree = _degrees(len(alive), ends, pairs)
    links = [
        _link(pair, sheets[i], sheets[j], alive=(alive[i], alive[j]), peers=max(degree[i], degree[j]), readings=readings)
        for (i, j), pair in zip(ends, pairs, strict=True)
    ]
    links = _switched(links, ends, sheets)
    default = Counter(links).most_common(1)[0][0] if links else _alone(sheets[0])
    free = tuple(gpu.free_bytes for gpu in alive)
    numa = tuple(gpu.numa for gpu in alive)
    node = Node(
        name="here" if readings.source == "nvml" else "pasted",
        devices=sheets,
        default_link=default,
        pairs=tuple(Pair(a=i, b=j, link=link) for (i, j), link in zip(ends, links, strict=True) if link != default),
        numa=numa if any(n is not None for n in numa) else (),
        uplinks=uplinks(len(alive), ends, pairs),
        free_bytes=free if any(f is not None for f in free) else (),
        ids=tuple(gpu.visible_as for gpu in alive) if any(gpu.visible_as for gpu in alive) else (),
    )
    return Cluster(node=node, assumed=_assumed(readings, alive, pairs))


def slot_bytes_per_s(gpu: GpuReading, sheet: Device) -> float:
    """PCIe bytes/s of the slot: generation x current lanes where read, else the data sheet's."""
    lane = PCIE_LANE_BYTES_PER_S.get(gpu.pcie_generation or 0)
    return lane * gpu.pcie_width if lane and gpu.pcie_width else sheet.pcie_bytes_per_s


def nvlink_bytes_per_s(sheet: Device) -> float:
    """Bytes/s of one NVLink of this GPU, one direction. Raises QuestionError where its sheet names no links."""
    if not sheet.link_count:
        raise QuestionError(
            f"{sheet.name} shows NVLinks and its sheet has none; add `link:` with their count and bandwidth to a sheet of your own "
            "and name it with --gpu, or describe the links in a cluster file."
        )
    return sheet.link_bytes_per_s / sheet.link_count


def uplinks(gpus: int, ends: Sequence[tuple[int, int]], pairs: Sequence[PairReading]) -> tuple[tuple[int, ...], ...]:
    """GPUs below one PCIe switch (PIX), and below one tree of switches (PXB): each group shares one port to the host."""
    found: list[tuple[int, ...]] = []
    for tiers in _TIER_UPLINKS:
        home = list(range(gpus))
        for (a, b), pair in zip(ends, pairs, strict=True):
            if pair.tier in tiers and home[a] != home[b]:
                low, high = sorted((home[a], home[b]))
                home = [low if h == high else h for h in home]
        groups = (tuple(g for g in range(gpus) if home[g] == h) for h in dict.fromkeys(home))
        found += [group for group in groups if len(group) > 1 and group not in found]
    return tuple(found)


def _nothing(readings: Readings) -> str:
    if readings.gpus:
        problems = "; ".join(f"GPU {g.visible_as or g.index}: {g.problem}" for g in readings.gpus)
        return f"No GPU of this machine can be used ({problems}); reset or reboot it, or name one with --gpu."
    return readings.reason or "No GPU was found."


def _sheet(gpu: GpuReading, devices: Sequence[Device], find: Find | None, device: Device | None) -> Device:
    """The data sheet of one GPU, cut to its slice where it is a MIG instance or a virtual GPU."""
    name = gpu.name or ""
    sheet = device
    if sheet is None:
        if not name:
            raise QuestionError("The text does not name its GPUs; add --gpu, e.g. --gpu h100-80g-sxm (see `advisor gpus`).")
        plain = _MIG.sub("", name)
        whole = gpu.memory_bytes if gpu.kind == "gpu" else None
        sheet = find(plain, whole) if find else None
        sheet = sheet or nearest(plain, whole, devices)
    if sheet is None:
        raise QuestionError(
            f"GPU {name!r} is not in the GPU catalogue; name the one it equals with --gpu (see `advisor gpus`), or write its sheet."
        )
    return _slice(gpu, sheet)


def _slice(gpu: GpuReading, sheet: Device) -> Device:
    """A MIG instance has its slices of compute and memory; a virtual GPU its memory and, alone on the card, all of the rest."""
    mig = _MIG.search(gpu.name or "")
    memory = gpu.memory_bytes
    if mig:
        compute = int(mig[1]) / _MIG_SLICES
        memory = memory or float(mig[2]) * 1e9
        # Memory comes in eighths of the card, and bandwidth with it.
        eighths = min(8, max(1, round(8 * float(mig[2]) * 1e9 / sheet.memory_bytes)))
        return replace(
            sheet, name=f"{sheet.name}-mig-{mig[1]}g", memory_bytes=memory,
            memory_bytes_per_s=sheet.memory_bytes_per_s * eighths / 8,
            peak_flop_per_s=tuple((n, p * compute) for n, p in sheet.peak_flop_per_s), sms=max(1, round(sheet.sms * compute)),
            l2_bytes=sheet.l2_bytes * eighths / 8, link_kind=None, link_bytes_per_s=0.0, link_count=0, p2p=False,
        )  # fmt: skip
    profile = re.search(r"-(\d+)[ABCQ]$", gpu.name or "") if gpu.kind == "vgpu" else None
    if profile and memory is None:
        memory = float(profile[1]) * 2**30  # the profile's number is its GiB of memory (NVIDIA vGPU guide)
    if memory and memory < _SAME_MEMORY * sheet.memory_bytes:
        suffix = "vgpu" if gpu.kind == "vgpu" else f"{memory / 2**30:.0f}gib"
        return replace(sheet, name=f"{sheet.name}-{suffix}", memory_bytes=memory)
    return sheet


def _degrees(gpus: int, ends: Sequence[tuple[int, int]], pairs: Sequence[PairReading]) -> list[int]:
    """NVLink or xGMI neighbours of each GPU."""
    degree = [0] * gpus
    for (a, b), pair in zip(ends, pairs, strict=True):
        if pair.nvlinks or pair.joined:
            degree[a] += 1
            degree[b] += 1
    return degree


def _link(pair: PairReading, a: Device, b: Device, *, alive: tuple[GpuReading, GpuReading], peers: int, readings: Readings) -> Link:
    slow = min((a, b), key=lambda d: d.link_bytes_per_s)
    if pair.joined in ("xgmi", "c2c"):
        hops = max(1, round((pair.weight or XGMI_HOP_WEIGHT) / XGMI_HOP_WEIGHT))
        return Link(kind=pair.joined, bytes_per_s=(slow.link_bytes_per_s or slow.pcie_bytes_per_s) / max(1, peers) / hops)
    if pair.nvlinks:
        rate = min(nvlink_bytes_per_s(a), nvlink_bytes_per_s(b))
        return Link(kind="nvswitch" if pair.switch else "nvlink", bytes_per_s=pair.nvlinks * rate, count=pair.nvlinks)
    if pair.joined:
        # Joined, but the driver hides how many links: all of the GPU's through a switch, an even share of them without.
        switch = pair.switch or slow.link_kind == "nvswitch"
        total = slow.link_bytes_per_s or slow.pcie_bytes_per_s
        return Link(kind="nvswitch" if switch else "nvlink", bytes_per_s=total if switch else total / max(1, peers))
    slot = min(a.pcie_bytes_per_s, b.pcie_bytes_per_s)
    works = a.p2p and b.p2p and pair.p2p is not False and readings.platform != "wsl2"
    works = works and all(gpu.kind == "gpu" for gpu in alive)
    kind = pair.tier or "unknown"
    return Link(kind=kind, bytes_per_s=slot, p2p=works and kind != "unknown")


def _switched(links: list[Link], ends: Sequence[tuple[int, int]], sheets: tuple[Device, ...]) -> list[Link]:
    """NVLinks through a switch: each GPU shows more links to all others together than it has, or all it has to the only other."""
    shown = [0] * len(sheets)
    for (a, b), link in zip(ends, links, strict=True):
        if link.kind == "nvlink":
            shown[a] += link.count
            shown[b] += link.count

    def through(a: int, b: int, link: Link) -> bool:
        if link.kind != "nvlink" or not link.count:
            return False
        most = [sheets[g].link_count for g in (a, b)]
        if all(0 < m < shown[g] for m, g in zip(most, (a, b), strict=True)):
            return True
        # Two GPUs of a board that is made with a switch show all their links to each other.
        return all(sheets[g].link_kind == "nvswitch" and m == link.count for m, g in zip(most, (a, b), strict=True))

    return [replace(link, kind="nvswitch") if through(a, b, link) else link for (a, b), link in zip(ends, links, strict=True)]


def _alone(sheet: Device) -> Link:
    return Link(kind="phb", bytes_per_s=sheet.pcie_bytes_per_s, p2p=sheet.p2p)


def _assumed(readings: Readings, alive: Sequence[GpuReading], pairs: Sequence[PairReading]) -> str:
    said = [f"GPU {g.visible_as or g.index} is left out: {g.problem.rstrip('.')}." for g in readings.gpus if g.problem]
    unknown = sum(1 for pair in pairs if pair.kind == "unknown")
    if unknown:
        why = f" ({readings.reason.rstrip('.')})" if readings.reason else ""
        which = "all links" if unknown == len(pairs) else f"{unknown} of {len(pairs)} links"
        said.append(f"Unknown {which} between GPUs are taken as copies through host memory{why}.")
    return " ".join(said)


# Words of a driver's name that mean the same as a word of a sheet's name.
_SAME = {
    "hbm3": "sxm",
    "sxm2": "sxm",
    "sxm3": "sxm",
    "sxm4": "sxm",
    "sxm5": "sxm",
    "geforce": "",
    "nvidia": "",
    "tesla": "",
    "amd": "",
    "instinct": "",
}
_CHIP = re.compile(r"(?:rtx)?(?=[a-z]*\d)[a-z]{0,3}\d{2,4}[a-z]{0,2}")


def nearest(name: str, memory_bytes: float | None, devices: Sequence[Device]) -> Device | None:
    """The data sheet that shares the chip and most words with a driver's name; None where no sheet has the chip.

    Of sheets that share as much, the one with the nearest memory.
    """
    words = _words(name)
    joined = "".join(words)
    best: tuple[tuple[int, float], Device] | None = None
    for sheet in devices:
        own = _words(sheet.name)
        chip = next((w for w in own if _CHIP.fullmatch(w)), own[0] if own else "")
        if not chip or not (chip in words or (chip in joined.replace("rtx", "rtx") and chip.startswith("rtx"))):
            continue
        extra = sum(1 for w in own if w not in words and w not in joined)
        off = abs(sheet.memory_bytes / memory_bytes - 1) if memory_bytes else 0.0
        key = (extra, off)
        if best is None or key < best[0]:
            best = key, sheet
    return best[1] if best else None


def _words(name: str) -> list[str]:
    plain = re.sub(r"(\d+)gb?\b", r"\1g", name.lower())
    words = (_SAME.get(w, w) for w in re.split(r"[\s\-_/]+", plain))
    return [w for w in words if w]
