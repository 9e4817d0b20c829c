"""Seconds of one collective over one axis: the payload, the fabric its ranks share, and what a Calibration says that links reach.

Legend: `p` payload bytes of one rank, `n` ranks, `B` data-sheet bytes/s of the link (one direction, one GPU). Every algorithm is a
few straight lines, one for each protocol that the library switches between (low latency first), and it picks the fastest:

    t = min over lines of (alpha + alpha_per_rank (n - 2) + wire(p, n) / (B bandwidth))                                       (C1)

Source of the coefficients: `advisor.calibrate.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from advisor.errors import ProfileError
from advisor.specs.calibration import Calibration, WireReach

if TYPE_CHECKING:
    from advisor.roofline.fabric import Fabric

Op = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p"]
LinkClass = Literal["nvswitch", "nvlink", "pcie", "host", "network"]

# The class whose lines stand for a kind of link. Below a host bridge GPUs reach each other; beyond it NCCL copies through host memory.
CLASS: dict[str, LinkClass] = {
    "nvswitch": "nvswitch",
    "nvlink": "nvlink",
    "xgmi": "nvlink",
    "c2c": "nvlink",
    "pix": "pcie",
    "pxb": "pcie",
    "phb": "host",
    "node": "host",
    "sys": "host",
    "network": "network",
    "unknown": "host",
}
# Where a class has no lines of its own: the classes that behave most like it, nearest first.
NEAREST_CLASS: dict[str, tuple[str, ...]] = {
    "nvswitch": ("nvlink",),
    "nvlink": ("nvswitch",),
    "pcie": ("host",),
    "host": ("pcie",),
    "network": (),
}
# Bytes a rank sends for a payload p of n ranks by the algorithm that sends least.
WIRE: dict[str, Callable[[float, int], float]] = {
    "all_reduce": lambda p, n: 2 * p * (n - 1) / n,
    "all_gather": lambda p, n: p * (n - 1),
    "reduce_scatter": lambda p, n: p * (n - 1) / n,
    "all_to_all": lambda p, n: p * (n - 1) / n,
    "p2p": lambda p, n: p,
}
_CACHED = 64


class _Prepared:
    """Lines of one calibration, looked up once."""

    __slots__ = ("calibration", "known", "lines")

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self.known: dict[str, dict[int, list[WireReach]]] = {}
        for key, reach in calibration.wires:  # op/algorithm/class/ranks[/line]
            op, algorithm, link, ranks, *_ = key.split("/")
            self.known.setdefault(f"{op}/{algorithm}/{link}", {}).setdefault(int(ranks), []).append(reach)
        self.lines: dict[tuple[str, str, str, int], tuple[tuple[float, float, float], ...] | None] = {}

    def of(self, op: str, algorithm: str, link: str, ranks: int) -> tuple[tuple[float, float, float], ...] | None:
        """(alpha seconds, share of B, up to bytes) of each line; None when nothing like it is known."""
        key = (op, algorithm, link, ranks)
        if key not in self.lines:
            self.lines[key] = self._find(op, algorithm, link, ranks)
        return self.lines[key]

    def _find(self, op: str, algorithm: str, link: str, ranks: int) -> tuple[tuple[float, float, float], ...] | None:
        for near in (link, *NEAREST_CLASS.get(link, ())):
            by_ranks = self.known.get(f"{op}/{algorithm}/{near}")
            if by_ranks:
                nearest = max((r for r in by_ranks if r <= ranks), default=min(by_ranks))
                extra = max(0, ranks - nearest)
                return tuple(
                    (line.alpha_s + line.alpha_per_rank_s * extra, line.bandwidth, line.up_to_bytes) for line in by_ranks[nearest]
                )
        return None


_prepared: dict[int, _Prepared] = {}


def _prepare(calibration: Calibration) -> _Prepared:
    """The prepared lines of this object; a bounded memo that keeps it alive, so that an id is never another's."""
    found = _prepared.get(id(calibration))
    if found is None:
        if len(_prepared) >= _CACHED:
            _prepared.clear()
        found = _prepared[id(calibration)] = _Prepared(calibration)
    return found


def collective_s(op: Op, payload_bytes: float, fabric: Fabric, calibration: Calibration, *, custom: bool) -> float:
    """Seconds of one collective, (C1). `payload_bytes` as in `work.Collective`; one rank needs none.

    `custom`: the engine brings its own all-reduce kernels for this group (it must also run inside one node, over NVLink or
    between exactly two peers). Raises ProfileError when the calibration knows no such collective.
    """
    n = fabric.ranks
    if n <= 1:
        return 0.0
    prepared = _prepare(calibration)
    link = CLASS[fabric.kind]
    if link in ("pcie", "host"):
        link = "pcie" if fabric.p2p else "host"
    if fabric.nodes > 1:
        link = "network"
    wire = WIRE[op](payload_bytes, n)
    best = float("inf")
    lines = prepared.of(op, "nccl", link, n)
    if lines is None:
        raise ProfileError(f"calibration {calibration.name} has no coefficients for {op}/nccl/{link}: add that key to the file.")
    for alpha, share, _ in lines:
        best = min(best, alpha + wire / (fabric.bytes_per_s * share))
    own = prepared.of(op, "custom", link, n) if custom and (link in ("nvswitch", "nvlink") or (n == 2 and fabric.p2p)) else None
    for alpha, share, limit in own or ():
        if payload_bytes <= limit:
            best = min(best, alpha + wire / (fabric.bytes_per_s * share))
    return best
