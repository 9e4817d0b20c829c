"""What was read of a machine, field by field: None is unknown, and unknown is never "no"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from advisor.specs.cluster import LINK_ORDER, NVLINKS, LinkKind

Source = Literal["nvml", "nvidia-smi", "rocm-smi"]
GpuKind = Literal["gpu", "mig", "vgpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU (or MIG instance, or virtual GPU) as the driver or a text shows it.

    `index` counts in the order in which a CUDA program sees them; `visible_as` is what CUDA_VISIBLE_DEVICES calls it.
    `pcie_generation` is the highest that GPU and slot share, `pcie_width` the lanes that are up now. `fabric` is the NVLink
    domain across hosts as (cluster UUID, clique). `problem` says why fields are missing where the GPU itself failed.
    """

    index: int
    name: str | None = None
    kind: GpuKind = "gpu"
    parent: str | None = None
    visible_as: str = ""
    uuid: str | None = None
    pci_address: str | None = None
    memory_bytes: float | None = None
    free_bytes: float | None = None
    compute_capability: str | None = None
    sms: int | None = None
    sm_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    bus_width_bits: int | None = None
    power_limit_w: float | None = None
    ecc: bool | None = None
    mig: bool | None = None
    nvlinks: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_width_most: int | None = None
    numa: int | None = None
    fabric: tuple[str, int] | None = None
    busy_processes: int | None = None
    busy_bytes: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReading:
    """How GPU `a` reaches GPU `b` (a < b).

    `nvlinks`: NVLinks between them (0: known to be none). `tier`: the class of their PCIe path. `joined` when NVLink (or xGMI)
    is known to join them though not by how many links. `switch`: through an NVSwitch. `p2p`: peer reads and writes work.
    `weight` is rocm-smi's.
    """

    a: int
    b: int
    nvlinks: int | None = None
    joined: LinkKind | None = None
    tier: LinkKind | None = None
    switch: bool | None = None
    p2p: bool | None = None
    weight: int | None = None

    @property
    def kind(self) -> LinkKind:
        """The best path: NVLink or xGMI where known, the PCIe tier where there is known to be no NVLink, else unknown."""
        if self.joined in ("xgmi", "c2c"):
            return self.joined
        if self.nvlinks or self.joined:
            return "nvswitch" if self.switch else "nvlink"
        return (self.tier if self.nvlinks == 0 else None) or "unknown"

    @property
    def cell(self) -> str | None:
        """The cell of the matrix as `nvidia-smi topo -m` writes it; None when unknown."""
        kind = self.kind
        if kind == "unknown":
            return None
        if kind in ("nvlink", "nvswitch"):
            return f"NV{self.nvlinks}" if self.nvlinks else "NV?"
        return kind.upper()

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts from best to worst: NVLink by the number of links, then the tiers; an unknown path last."""
        kind = "nvlink" if self.kind == "nvswitch" else self.kind
        return LINK_ORDER.index(kind), -(self.nvlinks or 0), self.weight or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """A machine as read. `reason` says in one sentence why nothing (or no link) could be read; `notes` what was repaired or
    left out; `platform` is "wsl2", "vm" or "" (bare metal or unknown)."""

    source: Source
    gpus: tuple[GpuReading, ...] = ()
    pairs: tuple[PairReading, ...] = ()
    vendor: str = "nvidia"
    driver: str | None = None
    cuda: str | None = None
    platform: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()

    def pair(self, a: int, b: int) -> PairReading:
        """The pair of two GPUs; all of it unknown where it was not read."""
        low, high = min(a, b), max(a, b)
        return next((p for p in self.pairs if p.a == low and p.b == high), PairReading(a=low, b=high))

    @property
    def all_pairs(self) -> tuple[PairReading, ...]:
        """Every pair of GPUs, unread ones as unknown."""
        known = {(p.a, p.b): p for p in self.pairs}
        n = len(self.gpus)
        return tuple(known.get((a, b), PairReading(a=a, b=b)) for a in range(n) for b in range(a + 1, n))

    @property
    def islands(self) -> tuple[tuple[int, ...], ...]:
        """GPUs that NVLink (or xGMI) joins, directly or through each other: connected components of two and more."""
        home = list(range(len(self.gpus)))

        def root(g: int) -> int:
            while home[g] != g:
                g = home[g]
            return g

        for pair in self.pairs:
            if pair.kind in NVLINKS:
                a, b = sorted((root(pair.a), root(pair.b)))
                home[b] = a
        groups: dict[int, list[int]] = {}
        for g in range(len(home)):
            groups.setdefault(root(g), []).append(g)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    @property
    def known_links(self) -> bool:
        """Whether every pair has a known path."""
        return all(p.kind != "unknown" for p in self.all_pairs)

    @property
    def best(self) -> tuple[PairReading, ...]:
        """The pairs that no other beats; empty where a path is unknown or there is one GPU."""
        pairs = self.all_pairs
        if not pairs or not self.known_links:
            return ()
        first = min(p.order for p in pairs)
        return tuple(p for p in pairs if p.order == first)

    @property
    def worst(self) -> PairReading | None:
        """A pair that no other is worse than; None where a path is unknown or there is one GPU."""
        return max(self.all_pairs, key=lambda p: p.order) if self.pairs and self.known_links else None
