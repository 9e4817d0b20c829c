"""The machine as a graph: devices, the links between them, nodes, and the network between nodes.

Bandwidth is per device and one direction; figures here are the data sheet's, what a machine reaches is in `Calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LinkKind = Literal["nvswitch", "nvlink", "xgmi", "c2c", "pix", "pxb", "phb", "node", "sys", "network", "unknown"]

MOST_GPUS = 131_072  # the largest training clusters announced by 2025; beyond it is a typing mistake
# Links of the GPUs' own, beside PCIe.
NVLINKS: frozenset[LinkKind] = frozenset({"nvswitch", "nvlink", "xgmi", "c2c"})
# Best first: the order in which a group of ranks prefers its links.
LINK_ORDER: tuple[LinkKind, ...] = (
    "nvswitch", "nvlink", "xgmi", "c2c", "pix", "pxb", "phb", "node", "sys", "network", "unknown",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU's data sheet. `peak_flop_per_s` holds dense (not sparse) peaks by compute format, as sorted pairs.

    `link_bytes_per_s` is the sum of its `link_count` NVLink/xGMI links in one direction (0: none); `pcie_bytes_per_s` its slot.
    `p2p` says whether PCIe peer-to-peer works between two of them (GeForce from Ada on: no). `driver_names` is how the driver
    calls it, as cluster labels do; empty where no sheet says so.
    """

    name: str
    architecture: str
    vendor: str
    compute_capability: str
    memory_bytes: float
    memory_bytes_per_s: float
    peak_flop_per_s: tuple[tuple[str, float], ...]
    sms: int
    l2_bytes: float
    link_kind: LinkKind | None
    link_bytes_per_s: float
    pcie_bytes_per_s: float
    p2p: bool
    power_w: float
    price_usd_per_hour: float | None = None
    price_date: str = ""
    link_count: int = 0
    driver_names: tuple[str, ...] = ()

    def peak(self, compute: str) -> float:
        """Dense FLOP/s in this compute format; 0.0 when the tensor cores lack it."""
        return dict(self.peak_flop_per_s).get(compute, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The best path between two GPUs of a node. `count` is the number of NVLinks; bandwidth is for one GPU, one direction."""

    kind: LinkKind
    bytes_per_s: float
    count: int = 0
    p2p: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A link between GPU `a` and GPU `b` (a < b) that differs from the node's default."""

    a: int
    b: int
    link: Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """GPUs in one machine (or one NVLink domain). Every pair not in `pairs` has `default_link`.

    `uplinks` are groups of GPUs that share one upstream PCIe port (a switch); `numa` the socket of each GPU, `free_bytes`
    the memory free now, `ids` what CUDA_VISIBLE_DEVICES calls each; all empty when unknown. `host_gpus` is how many GPUs one
    operating system has where the domain spans several (a tray of an NVL72); 0: all of them.
    """

    name: str
    devices: tuple[Device, ...]
    default_link: Link
    pairs: tuple[Pair, ...] = ()
    numa: tuple[int | None, ...] = ()
    uplinks: tuple[tuple[int, ...], ...] = ()
    free_bytes: tuple[float | None, ...] = ()
    ids: tuple[str, ...] = ()
    host_gpus: int = 0

    def __post_init__(self) -> None:
        n = len(self.devices)
        if n < 1:
            raise ValueError("a node has at least one GPU")
        if any(not 0 <= p.a < p.b < n for p in self.pairs):
            raise ValueError(f"pairs must name GPUs 0..{n - 1}, the smaller first")
        for label, values in (("numa", self.numa), ("free_bytes", self.free_bytes), ("ids", self.ids)):
            if values and len(values) != n:
                raise ValueError(f"{label} has {len(values)} entries for {n} GPUs")

    def link(self, a: int, b: int) -> Link:
        """The link between two different GPUs."""
        low, high = min(a, b), max(a, b)
        for pair in self.pairs:
            if pair.a == low and pair.b == high:
                return pair.link
        return self.default_link

    def usable_bytes(self, gpu: int) -> float:
        """Memory that can be used on a GPU: what is free now where that is known, else all of it."""
        free = self.free_bytes[gpu] if self.free_bytes else None
        return self.devices[gpu].memory_bytes if free is None else min(free, self.devices[gpu].memory_bytes)

    @property
    def gpus_per_host(self) -> int:
        """GPUs that one operating system sees; the last host may have fewer."""
        return min(self.host_gpus or len(self.devices), len(self.devices))

    @property
    def is_uniform(self) -> bool:
        """Whether all GPUs are the same model."""
        return all(d.name == self.devices[0].name for d in self.devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What joins nodes: bandwidth is per GPU (its share of the node's adapters), one direction. `assumed`: nobody stated it."""

    name: str
    bytes_per_s: float
    latency_s: float
    rdma: bool
    assumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """`nodes` equal nodes on one network (None for a single node). `assumed` is said first in every answer when not empty."""

    node: Node
    nodes: int = 1
    network: Network | None = None
    assumed: str = ""

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError("a cluster has at least one node")
        if self.nodes > 1 and self.network is None:
            raise ValueError("several nodes need a network")

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * len(self.node.devices)

    @property
    def device(self) -> Device:
        """The first GPU: the GPU where all are equal."""
        return self.node.devices[0]
