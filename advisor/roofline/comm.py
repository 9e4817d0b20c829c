"""Seconds of one collective over one axis: the payload, the fabric its ranks share, and what a Calibration says that links reach.

Legend: `p` payload bytes of one rank, `n` ranks, `B` data-sheet bytes/s of the link (one direction, one GPU). Every algorithm is a
few straight lines, one for each protocol that a library switches between (low latency first), and the fastest is taken:

    t = min over lines of (alpha + wire(p, n) / (B bandwidth))                                                              (C1)

A line of an engine's own kernels ("custom", "lamport") ends at `up_to_bytes`. Source of the coefficients:
`fitting.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2
from typing import TYPE_CHECKING

from advisor.errors import ProfileError
from advisor.specs.calibration import Calibration, WireReach
from advisor.specs.keys import LinkClass, Op

if TYPE_CHECKING:
    from advisor.roofline.fabric import Fabric

# The class whose lines stand for a kind of link. NCCL reaches a peer directly up to a PCIe bridge (PXB); behind a host bridge it
# copies through host memory, and between sockets over their link too.
CLASS: dict[str, LinkClass] = {
    "nvswitch": "nvswitch",
    "nvlink": "nvlink",
    "xgmi": "nvlink",
    "c2c": "nvlink",
    "pix": "pcie",
    "pxb": "pcie",
    "phb": "host",
    "node": "host",
    "sys": "sys",
    "network": "network",
    "unknown": "host",
}
# Where a class has no lines of its own: the classes that behave most like it, nearest first.
NEAREST_CLASS: dict[LinkClass, tuple[LinkClass, ...]] = {
    "nvswitch": ("nvlink",),
    "nvlink": ("nvswitch",),
    "pcie": ("host", "sys"),
    "host": ("sys", "pcie"),
    "sys": ("host", "pcie"),
    "staged": ("host", "sys", "pcie"),
    "network": (),
    "tcp": ("network",),
}
# A reduce-scatter is an all-gather run backwards: the same wire bytes and, in the tables, the same times within 5%.
NEAREST_OP: dict[Op, Op] = {"reduce_scatter": "all_gather"}
WIRE: dict[Op, Callable[[float, int], float]] = {
    "all_reduce": lambda p, n: 2 * p * (n - 1) / n,
    "all_gather": lambda p, n: p * (n - 1),
    "reduce_scatter": lambda p, n: p * (n - 1) / n,
    "all_to_all": lambda p, n: p * (n - 1) / n,
    "p2p": lambda p, n: p,
}


# One-way latency of a small message on the networks that the lines between nodes stand for: adapters of one rack (perftest, 1 to
# 3 us) and TCP through the kernel (20 to 50 us); profiles/networks/ has the sources.
LINE_LATENCY_S: dict[LinkClass, float] = {"network": 3e-6, "tcp": 30e-6}


def network_latency_s(op: Op, fabric: Fabric) -> float:
    """(C4) What a network of latency L adds to a line that was measured at L0, for N nodes: steps (L - L0), none where L < L0.

    Messages that follow each other, as NCCL counts them (src/graph/tuning.cc): an all-reduce climbs a tree and descends it,
    2 log2 N; an all-gather and a reduce-scatter pass round a ring, N - 1; an all-to-all and a send are one. Adapters and switches
    that a long network adds are in L; congestion is left out.
    """
    if fabric.nodes < 2:
        return 0.0
    steps = {"all_reduce": 2 * log2(fabric.nodes), "all_to_all": 1.0, "p2p": 1.0}.get(op, fabric.nodes - 1.0)
    return steps * max(0.0, fabric.latency_s - LINE_LATENCY_S[link_class(fabric)])


def more_ranks(ranks: int, known: int) -> float:
    """(C3) Steps of latency that `ranks` have beyond `known`: one a rank (rings) up to twice as many, then as many at every
    further doubling (trees)."""
    return max(0.0, min(ranks - known, known * log2(ranks / known))) if ranks > known else 0.0


Line = tuple[float, float, float]
"""(alpha seconds, share of B, up to bytes)."""


def wire_bytes(op: Op, payload_bytes: float, ranks: int) -> float:
    """(C2) Bytes one rank sends for a payload p of n ranks by the algorithm that sends least: all-reduce 2 p (n - 1) / n,
    all-gather p (n - 1), reduce-scatter and all-to-all p (n - 1) / n, point to point p."""
    return WIRE[op](payload_bytes, ranks)


def link_class(fabric: Fabric) -> LinkClass:
    """The class whose lines a group of ranks follows: its slowest hop's; `staged` where GPUs cannot map each other's memory at
    all (GeForce); the network's, with RDMA or not, when it spans nodes."""
    if fabric.nodes > 1:
        return "network" if fabric.p2p else "tcp"
    link = CLASS[fabric.kind]
    if link in ("nvswitch", "nvlink"):
        return link
    if not fabric.peer_access:
        return "staged"
    return "host" if link == "pcie" and not fabric.p2p else link


class Lines:
    """The lines of one calibration by collective; each is looked up once."""

    __slots__ = ("_found", "_known", "name")

    def __init__(self, calibration: Calibration) -> None:
        self.name = calibration.name
        self._known: dict[tuple[Op, str, LinkClass], dict[int, list[WireReach]]] = {}
        for key, reach in calibration.wires:
            self._known.setdefault((key.op, key.algorithm, key.link), {}).setdefault(key.ranks, []).append(reach)
        self._found: dict[tuple[Op, str, LinkClass, int], tuple[Line, ...]] = {}

    def of(self, op: Op, algorithm: str, link: LinkClass, ranks: int) -> tuple[Line, ...]:
        """Lines of a collective; empty when nothing like it is known."""
        key = (op, algorithm, link, ranks)
        if key not in self._found:
            self._found[key] = self._find(op, algorithm, link, ranks)
        return self._found[key]

    def _find(self, op: Op, algorithm: str, link: LinkClass, ranks: int) -> tuple[Line, ...]:
        for near in (link, *NEAREST_CLASS[link]):
            for like in (op, NEAREST_OP.get(op, op)):
                by_ranks = self._known.get((like, algorithm, near))
                if by_ranks:
                    nearest = max((r for r in by_ranks if r <= ranks), default=min(by_ranks))
                    extra = more_ranks(ranks, nearest)
                    return tuple((x.alpha_s + x.alpha_per_rank_s * extra, x.bandwidth, x.up_to_bytes) for x in by_ranks[nearest])
        return ()


def collective_s(op: Op, payload_bytes: float, fabric: Fabric, known: Lines, *, kernels: Sequence[str]) -> float:
    """Seconds of one collective, (C1) and (C4). `payload_bytes` as in `work.Collective`; one rank needs none.

    `kernels`: the engine's all-reduce kernels beside NCCL's; they run inside one node, over NVLink or between exactly two GPUs
    that map each other's memory, up to the size where the engine itself turns to NCCL. Between nodes the lines are those of the
    number of nodes. Raises ProfileError when the calibration knows no such collective.
    """
    n = fabric.ranks
    if n <= 1:
        return 0.0
    link = link_class(fabric)
    wire, inside = WIRE[op](payload_bytes, n), fabric.nodes == 1
    rate = fabric.point_bytes_per_s if op == "p2p" or (op == "all_to_all" and not inside) else fabric.bytes_per_s
    lines = known.of(op, "nccl", link, n if inside else fabric.nodes)
    if not lines:
        raise ProfileError(f"calibration {known.name} has no coefficients for {op}/nccl/{link}: add that key to the file.")
    best = min([alpha + wire / (rate * share) for alpha, share, _ in lines]) + network_latency_s(op, fabric)
    if kernels and inside and fabric.peer_access and (n == 2 or link in ("nvswitch", "nvlink")):
        for algorithm in kernels:
            faster = known.of(op, algorithm, link, n)
            best = min([best, *[alpha + wire / (rate * share) for alpha, share, up_to in faster if payload_bytes <= up_to]])
    return best
