"""What a group of GPUs shares: the effective bandwidth of its all-reduce, not of one pair, and the kind of its slowest hop.

A node is a weighted graph. A collective runs over rings (or straight through a switch), so a group is as fast as the best ring
through all its members: NVLinks where they close a ring, else the ring whose worst hop is best. Figures are the data sheet's; what
a machine reaches of them is in `Calibration`, and a rule of thumb for words and for placement is `typical_bytes_per_s`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from advisor.errors import PlanError
from advisor.specs.cluster import LINK_ORDER, NVLINKS, Cluster, Link, LinkKind
from advisor.specs.plan import Plan

Wiring = Literal[
    "single", "switch", "mesh", "cube_mesh", "ring", "pcie_switch", "host_bridge", "cross_socket", "network", "unknown"
]

# NCCL copies directly between GPUs whose path stays below a host bridge (its default NCCL_P2P_LEVEL is PXB); others go through host
# memory. Source: NCCL user guide, NCCL_P2P_LEVEL; nccl#814.
PEER_KINDS: frozenset[LinkKind] = frozenset({"pix", "pxb"})
_WIRING: dict[LinkKind, Wiring] = {
    "nvswitch": "switch", "nvlink": "mesh", "xgmi": "mesh", "c2c": "mesh", "pix": "pcie_switch", "pxb": "pcie_switch",
    "phb": "host_bridge", "node": "host_bridge", "sys": "cross_socket", "network": "network", "unknown": "unknown",
}  # fmt: skip

# Shares of the data sheet that large copies usually reach, for words and for comparing links of different kinds.
# NVLink: all-reduce of 8 GPUs, A100 230 of 300 (nccl#527), H100 370 of 450 (nccl#2140). Direct PCIe: NCCL reckons 24 of 31.5 GB/s
# of a gen 4 x16 slot and 48 of 63 of gen 5. Through host memory: 6 to 22 GB/s on gen 4 x16, two equal PHB pairs measured 13.2 and
# 6.5: the geometric mean, 11 of 31.5.
NVLINK_SHARE = 0.8
PEER_SHARE = 0.76
STAGED_SHARE = 0.35

_RING_STEPS = 20_000  # search steps before a ring of a large sparse graph counts as not found


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """What `ranks` GPUs on `nodes` nodes share. `kind` is the slowest hop's.

    `bytes_per_s`: what a ring or all-reduce of the group can use per GPU, one direction, at data-sheet level, shared uplinks and
    the share of the network applied. `point_bytes_per_s`: the same for one rank sending to the worst-placed other rank while all
    do so (stage transfer, all-to-all across nodes). `p2p`: the slowest hop copies directly (RDMA between nodes), not through host
    memory. `peer_access`: each GPU can map the others' memory, which an engine's own all-reduce kernel needs.
    `latency_s`: of a small message over the network, where the group spans nodes.
    """

    kind: LinkKind
    ranks: int
    nodes: int = 1
    bytes_per_s: float
    point_bytes_per_s: float
    p2p: bool
    peer_access: bool
    latency_s: float = 0.0
    wiring: Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabrics:
    """The slowest group of each axis of a plan."""

    tp: Fabric
    pp: Fabric
    ep: Fabric
    adp: Fabric

    def axis(self, name: str) -> Fabric:
        """The fabric of an axis by name."""
        return {"tp": self.tp, "pp": self.pp, "ep": self.ep, "adp": self.adp}[name]


def is_direct(link: Link) -> bool:
    """Whether NCCL copies over this link without host memory: NVLink always, PCIe up to PXB where P2P works."""
    return link.kind in NVLINKS or (link.p2p and link.kind in PEER_KINDS)


def typical_bytes_per_s(link: Link) -> float:
    """What a large copy over a link usually reaches: the data sheet times NVLINK_SHARE, PEER_SHARE or STAGED_SHARE."""
    if link.kind in NVLINKS:
        return link.bytes_per_s * NVLINK_SHARE
    return link.bytes_per_s * (PEER_SHARE if is_direct(link) else STAGED_SHARE)


def group_fabric(graph: LinkGraph, gpus: Sequence[int]) -> Fabric:
    """The fabric of these GPUs (indices over the cluster; GPU g is on node g // GPUs per node). Raises PlanError for others."""
    ordered = tuple(sorted(gpus))
    if not ordered or ordered[0] < 0 or ordered[-1] >= graph.cluster.gpus or len(set(ordered)) < len(ordered):
        raise PlanError(
            f"GPUs {', '.join(map(str, gpus)) or '(none)'} are no group of this machine, which has 0 to {graph.cluster.gpus - 1}."
        )
    return graph.group(ordered).fabric


def plan_fabrics(graph: LinkGraph, plan: Plan) -> Fabrics:
    """The slowest group of each axis of a plan; for pp the slowest hop between neighbouring stages.

    Only replicas that sit differently are looked at. Groups that use one PCIe uplink at the same time share it. Raises PlanError
    where the plan needs more GPUs than there are.
    """
    if plan.world > graph.cluster.gpus:
        raise PlanError(f"{plan.label} needs {plan.world} GPUs and the machine has {graph.cluster.gpus}; use smaller degrees.")
    shape, replicas = plan.replica(), _replicas(graph.cluster, plan)
    key = (shape.tp, shape.pp, shape.ep, shape.adp, tuple(replicas))
    if key not in graph.fabrics:
        graph.fabrics[key] = _fabrics(graph, shape, replicas)
    return graph.fabrics[key]


def _fabrics(graph: LinkGraph, shape: Plan, replicas: list[tuple[int, ...]]) -> Fabrics:
    """The slowest group of each axis over replicas that sit differently."""

    def slowest(axis: str, degree: int) -> Fabric:
        if degree == 1:
            return graph.group((0,)).fabric
        groups = shape.groups(axis)
        found = [[graph.group(tuple(sorted(gpus[r] for r in group))) for group in groups] for gpus in replicas]
        return min((f for part in _shared(found, graph) for f in part), key=_speed)

    return Fabrics(
        tp=slowest("tp", shape.tp), ep=slowest("ep", shape.ep), adp=slowest("adp", shape.adp), pp=_stages(graph, shape, replicas)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A group's fabric with the flows it puts on each shared uplink (node, uplink index) -> flows."""

    fabric: Fabric
    flows: tuple[tuple[tuple[int, int], int], ...] = ()


def _speed(fabric: Fabric) -> tuple[float, int]:
    share = NVLINK_SHARE if fabric.kind in NVLINKS else (PEER_SHARE if fabric.p2p else STAGED_SHARE)
    return fabric.bytes_per_s * share, -LINK_ORDER.index(fabric.kind)


def _replicas(cluster: Cluster, plan: Plan) -> list[tuple[int, ...]]:
    """The GPUs of each replica that sits differently from the ones before it, moved to the first nodes."""
    size, per_node = plan.replica_gpus, len(cluster.node.devices)
    if plan.gpus:
        starts: Iterable[tuple[int, ...]] = (plan.gpus[i : i + size] for i in range(0, plan.world, size))
        return list(dict.fromkeys(_home(gpus, per_node) for gpus in starts))
    if cluster.nodes == 1 and cluster.node.is_uniform and not cluster.node.pairs and not cluster.node.uplinks:
        return [tuple(range(size))]
    # Start positions repeat with period per_node / gcd(size, per_node).
    firsts = dict.fromkeys((r * size) % per_node for r in range(min(plan.dp, per_node)))
    return [tuple(range(first, first + size)) for first in firsts]


def _home(gpus: tuple[int, ...], per_node: int) -> tuple[int, ...]:
    base = min(gpus) // per_node * per_node
    return tuple(g - base for g in gpus)


def _shared(found: list[list[_Group]], graph: LinkGraph) -> list[list[Fabric]]:
    """Fabrics with the uplinks divided among all groups that use them at once."""
    if not graph.uplinks:
        return [[g.fabric for g in groups] for groups in found]
    load: dict[tuple[int, int], int] = {}
    for groups in found:
        for group in groups:
            for uplink, flows in group.flows:
                load[uplink] = load.get(uplink, 0) + flows
    return [[_contended(group, load, graph) for group in groups] for groups in found]


def _contended(group: _Group, load: dict[tuple[int, int], int], graph: LinkGraph) -> Fabric:
    fabric = group.fabric
    if not group.flows:
        return fabric
    shared = min(graph.uplink_bytes_per_s[uplink[1]] / load[uplink] for uplink, _ in group.flows)
    return replace(fabric, bytes_per_s=min(fabric.bytes_per_s, shared), point_bytes_per_s=min(fabric.point_bytes_per_s, shared))


def _stages(graph: LinkGraph, shape: Plan, replicas: list[tuple[int, ...]]) -> Fabric:
    """The slowest hop from a stage to the next; all ranks of a stage send at the same time."""
    if shape.pp == 1:
        return graph.group((0,)).fabric
    size = shape.stage_gpus
    found: list[Fabric] = []
    for gpus in replicas:
        for stage in range(shape.pp - 1):
            here, there = gpus[stage * size : (stage + 1) * size], gpus[(stage + 1) * size : (stage + 2) * size]
            hops = [graph.group((min(a, b), max(a, b))) for a, b in zip(here, there, strict=True)]
            found += _shared([hops], graph)[0]
    return min(found, key=_speed)


class LinkGraph:
    """The links of one cluster, prepared once: a matrix of one node and its shared uplinks."""

    __slots__ = ("cluster", "fabrics", "known", "links", "per_node", "uplink_bytes_per_s", "uplinks")

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        node = cluster.node
        self.per_node = len(node.devices)
        self.uplinks = tuple(frozenset(u) for u in node.uplinks if len(u) > 1)
        self.links: list[list[Link]] | None = None
        if node.pairs or self.uplinks:
            self.links = [[node.default_link] * self.per_node for _ in range(self.per_node)]
            for pair in node.pairs:
                self.links[pair.a][pair.b] = self.links[pair.b][pair.a] = pair.link
        # An uplink is as wide as the widest slot below it.
        self.uplink_bytes_per_s = tuple(max(self._slot(g) for g in uplink) for uplink in self.uplinks)
        self.known: dict[tuple[int, ...], _Group] = {}
        self.fabrics: dict[tuple[int, int, int, int, tuple[tuple[int, ...], ...]], Fabrics] = {}

    def _slot(self, gpu: int) -> float:
        assert self.links is not None
        rates = [x.bytes_per_s for i, x in enumerate(self.links[gpu]) if i != gpu and x.kind not in NVLINKS]
        return max(rates, default=self.cluster.node.devices[gpu].pcie_bytes_per_s)

    def link(self, a: int, b: int) -> Link:
        """The link of two GPUs of a node."""
        return self.links[a][b] if self.links else self.cluster.node.default_link

    def group(self, gpus: tuple[int, ...]) -> _Group:
        """The group of these GPUs in ascending order, remembered."""
        found = self.known.get(gpus)
        if found is None:
            found = self._find(gpus)
            if len(self.known) > 50_000:
                self.known.clear()
            self.known[gpus] = found
        return found

    def _find(self, gpus: tuple[int, ...]) -> _Group:
        by_node: dict[int, list[int]] = {}
        for gpu in gpus:
            by_node.setdefault(gpu // self.per_node, []).append(gpu % self.per_node)
        parts = {node: self._inside(tuple(local)) for node, local in by_node.items()}
        if len(parts) == 1:
            ((node, group),) = parts.items()
            return replace(group, flows=tuple(((node, u), f) for (_, u), f in group.flows))
        return _Group(fabric=self._across(gpus, by_node, [p.fabric for p in parts.values()]))

    def _across(self, gpus: tuple[int, ...], by_node: dict[int, list[int]], parts: list[Fabric]) -> Fabric:
        """Several nodes: rings leave a node through the adapters of all its members, so their shares add up."""
        network = self.cluster.network
        assert network is not None, "a cluster of several nodes has a network"
        fewest = min(len(local) for local in by_node.values())
        inside = min((p.bytes_per_s for p in parts if p.ranks > 1), default=float("inf"))
        return Fabric(
            kind="network", ranks=len(gpus), nodes=len(by_node), bytes_per_s=min(inside, network.bytes_per_s * fewest),
            point_bytes_per_s=network.bytes_per_s, p2p=network.rdma, peer_access=False, latency_s=network.latency_s,
            wiring="network",
        )  # fmt: skip

    def _inside(self, gpus: tuple[int, ...]) -> _Group:
        n, default = len(gpus), self.cluster.node.default_link
        if n == 1:
            return _Group(
                fabric=Fabric(
                    kind=default.kind, ranks=1, bytes_per_s=default.bytes_per_s, point_bytes_per_s=default.bytes_per_s,
                    p2p=True, peer_access=True, wiring="single",
                )
            )  # fmt: skip
        if self.links is None:
            return _Group(fabric=self._uniform(default, n))
        if all(self.links[a][b].kind in NVLINKS for i, a in enumerate(gpus) for b in gpus[i + 1 :]):
            return _Group(fabric=self._nvlinks(gpus, full=True))
        if n > 2 and self._ring(gpus, lambda link: link.kind in NVLINKS):
            return _Group(fabric=self._nvlinks(gpus, full=False))
        return self._mixed(gpus)

    def _uniform(self, link: Link, n: int) -> Fabric:
        """All pairs alike: a switch, a mesh whose links add up to at most what the GPU has, or one PCIe tier."""
        rate = link.bytes_per_s
        if link.kind in NVLINKS and link.kind != "nvswitch":
            total = self.cluster.device.link_bytes_per_s
            rate = min(rate * (n - 1), max(total, rate)) if total else rate * (n - 1)
        return Fabric(
            kind=link.kind, ranks=n, bytes_per_s=rate, point_bytes_per_s=link.bytes_per_s, p2p=is_direct(link),
            peer_access=link.kind in NVLINKS or link.p2p, wiring=_WIRING[link.kind],
        )  # fmt: skip

    def _nvlinks(self, gpus: tuple[int, ...], *, full: bool) -> Fabric:
        """NVLinks that close a ring: rings fill every link, so the weakest cut of the group is the limit."""
        links = [[self.link(a, b) for b in gpus] for a in gpus]
        pairs = [links[i][j] for i in range(len(gpus)) for j in range(i)]
        slowest = min(pairs, key=lambda x: x.bytes_per_s if x.kind in NVLINKS else float("inf"))
        if full and any(x.kind == "nvswitch" for x in pairs):
            rate, wiring = slowest.bytes_per_s, "switch"
        else:
            weights = [[x.bytes_per_s if x.kind in NVLINKS else 0.0 for x in row] for row in links]
            rate = _weakest_cut(weights)
            wiring = "mesh" if full else ("cube_mesh" if len(gpus) == 8 else "ring")
        worst = min(pairs, key=typical_bytes_per_s)
        return Fabric(
            kind="nvswitch" if wiring == "switch" else slowest.kind, ranks=len(gpus), bytes_per_s=rate,
            point_bytes_per_s=worst.bytes_per_s, p2p=True, peer_access=full,
            wiring=wiring,  # type: ignore[arg-type]
        )  # fmt: skip

    def _mixed(self, gpus: tuple[int, ...]) -> _Group:
        """The ring whose worst hop is best; every hop through host memory takes the uplinks of both ends."""
        pairs = [self.link(a, b) for i, a in enumerate(gpus) for b in gpus[i + 1 :]]
        ring: tuple[int, ...] | None = None
        for worst in sorted({_rank(link) for link in pairs}):
            ring = self._ring(gpus, lambda link, worst=worst: _rank(link) <= worst)  # type: ignore[misc]
            if ring:
                break
        ring = ring or gpus
        hops = [(a, b, self.link(a, b)) for a, b in zip(ring, (*ring[1:], ring[0]), strict=True)]
        slowest = max((link for _, _, link in hops), key=_rank)
        farthest = max(pairs, key=_rank)
        flows = self._flows(hops)
        shared = min((self.uplink_bytes_per_s[u] / count for (_, u), count in flows), default=float("inf"))
        fabric = Fabric(
            kind=slowest.kind, ranks=len(gpus), bytes_per_s=min(slowest.bytes_per_s, shared),
            point_bytes_per_s=min(farthest.bytes_per_s, shared), p2p=all(is_direct(link) for _, _, link in hops),
            peer_access=all(x.kind in NVLINKS or x.p2p for x in pairs), wiring=_WIRING[slowest.kind],
        )  # fmt: skip
        return _Group(fabric=fabric, flows=flows)

    def _flows(self, hops: list[tuple[int, int, Link]]) -> tuple[tuple[tuple[int, int], int], ...]:
        """Flows of a ring on each uplink in its busier direction. NVLinks and direct copies below the switch need none."""
        flows = []
        for index, below in enumerate(self.uplinks):
            out = into = 0
            for a, b, link in hops:
                if link.kind in NVLINKS or (is_direct(link) and a in below and b in below):
                    continue
                out, into = out + (a in below), into + (b in below)
            if max(out, into):
                flows.append(((0, index), max(out, into)))
        return tuple(flows)

    def _ring(self, gpus: tuple[int, ...], ok: Callable[[Link], bool]) -> tuple[int, ...] | None:
        """A ring through all GPUs over allowed links, best hops first; None where there is none (or none is found in time)."""
        near = {
            a: sorted((b for b in gpus if b != a and ok(self.link(a, b))), key=lambda b, a=a: (_rank(self.link(a, b)), b))  # type: ignore[misc]
            for a in gpus
        }
        if any(len(found) < min(2, len(gpus) - 1) for found in near.values()):
            return None
        path, seen, steps = [gpus[0]], {gpus[0]}, 0

        def extend() -> bool:
            nonlocal steps
            if len(path) == len(gpus):
                return gpus[0] in near[path[-1]]
            for b in near[path[-1]]:
                if b in seen or steps > _RING_STEPS:
                    continue
                steps += 1
                path.append(b)
                seen.add(b)
                if extend():
                    return True
                seen.remove(path.pop())
            return False

        return tuple(path) if extend() else None


def _rank(link: Link) -> tuple[float, int]:
    """Orders links from best to worst: by what they usually reach, then by tier."""
    return -typical_bytes_per_s(link), LINK_ORDER.index(link.kind)


def _weakest_cut(weights: list[list[float]]) -> float:
    """The smallest sum of links that parts a group in two (Stoer and Wagner, J. ACM 44 (1997) 585)."""
    w = [row[:] for row in weights]
    alive = list(range(len(w)))
    best = float("inf")
    while len(alive) > 1:
        added = [alive[0]]
        pull = {v: w[alive[0]][v] for v in alive[1:]}
        while pull:
            last = max(pull, key=lambda v: pull[v])
            weight = pull.pop(last)
            for v in pull:
                pull[v] += w[last][v]
            added.append(last)
        best = min(best, weight)
        before, last = added[-2], added[-1]
        for v in alive:
            w[before][v] = w[v][before] = w[before][v] + w[last][v]
        alive.remove(last)
    return best
