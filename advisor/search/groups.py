"""What a group of GPUs of one node costs: the time of its collectives, unequal GPUs, and memory that is missing.

All costs are seconds, so that they add up; penalties that are no times are larger than any time of a link.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

from advisor.roofline.fabric import Fabric, LinkGraph, group_fabric, typical_bytes_per_s
from advisor.search.chains import shortest_chain
from advisor.specs.cluster import LINK_ORDER, Link

# What a group is compared by: one all-reduce of the hidden states of 64 tokens of a wide model (64 x 8192 x 2 bytes).
_PAYLOAD_BYTES = 64 * 8192 * 2.0
# Latency of one copy: peer 0.4 to 1 us, staged through host memory 14 to 15 us (measured on PCIe boxes); a network hop as staged.
_DIRECT_S, _STAGED_S = 1e-6, 15e-6
# A group of unequal GPUs, or with less memory free than others, is worse than any link is slow.
_UNEQUAL_S = 1.0
_MEMORY_S = 1e-1
_SLOWER_S = 1e-2  # then comes the memory bandwidth of different GPUs: a step reads milliseconds of weights
MEMORY_GRAIN = 0.02  # differences in free memory below this share do not count
_FAR_S = 1e-9  # far below any difference in time: it only decides between equal ones


def seconds(fabric: Fabric) -> float:
    """What a group is compared by: latency and bytes of one all-reduce as links usually reach them."""
    n = fabric.ranks
    if n < 2:
        return 0.0
    link = Link(kind=fabric.kind, bytes_per_s=fabric.bytes_per_s, p2p=fabric.p2p)
    hop_s = _DIRECT_S if fabric.p2p else _STAGED_S
    return hop_s * (n - 1) + 2 * _PAYLOAD_BYTES * (n - 1) / n / typical_bytes_per_s(link)


class Groups:
    """The groups of one node for one shape of stage: `adp` groups of `tp` ranks.

    `chain` > 0: groups are pipelines of so many stages of one GPU each instead of one stage.
    """

    def __init__(self, graph: LinkGraph, *, tp: int, adp: int, chain: int = 0) -> None:
        self.graph, self.node, self.tp, self.adp, self.chain = graph, graph.cluster.node, tp, adp, chain
        self.gpus, self.size = len(self.node.devices), chain or tp * adp
        each = range(self.gpus)
        self.links = [[self.node.link(a, b) if a != b else self.node.default_link for b in each] for a in each]
        self.usable = [self.node.usable_bytes(g) for g in each]
        self.hops = [[self._pair_s(a, b) if a != b else 0.0 for b in each] for a in each]
        self.twin = self._twins()
        self._known: dict[tuple[int, ...], float] = {}

    def cost(self, group: tuple[int, ...]) -> float:
        """Seconds of a stage's groups: its tp groups, what spans them, and penalties for unequal GPUs and lack of memory.

        Groups of the same kinds of GPUs cost the same.
        """
        kinds = tuple(sorted(self.twin[g] for g in group))
        found = self._known.get(kinds)
        if found is None:
            found = self._known[kinds] = (self._chain_s(group) if self.chain else self._stage_s(group)) + self._lack_s(group)
        return found

    def ordered(self, group: tuple[int, ...]) -> tuple[int, ...]:
        """A stage's GPUs in rank order: tp groups one after the other, each on the best links among the GPUs left."""
        if self.adp == 1 or self.tp == 1:
            return tuple(sorted(group))
        left, ordered = sorted(group), list[int]()
        while left:
            rest = combinations(left[1:], self.tp - 1)
            chosen = min(rest, key=lambda c: (seconds(group_fabric(self.graph, (left[0], *c))), c))
            ordered += [left[0], *chosen]
            left = [g for g in left if g not in ordered]
        return tuple(ordered)

    def chained(self, group: tuple[int, ...]) -> list[int]:
        """A pipeline of single GPUs in the order of its stages."""
        return shortest_chain(list(group), len(group), self.hops)

    def hop_s(self, a: tuple[int, ...], b: tuple[int, ...]) -> float:
        """Seconds of the slowest transfer from one stage's ranks to the next's."""
        return max(self.hops[x][y] for x, y in zip(a, b, strict=True))

    def _pair_s(self, a: int, b: int) -> float:
        return seconds(group_fabric(self.graph, (a, b))) + _FAR_S * _tier(self.links[a][b])

    def _chain_s(self, group: tuple[int, ...]) -> float:
        hops = [self.hops[a][b] for a, b in pairwise(self.chained(group))]
        return max(hops) + _FAR_S * sum(hops)

    def _stage_s(self, group: tuple[int, ...]) -> float:
        ordered = self.ordered(group)
        total = max(seconds(group_fabric(self.graph, ordered[i : i + self.tp])) for i in range(0, self.size, self.tp))
        if self.adp > 1:
            total += seconds(group_fabric(self.graph, ordered))
        # Among groups as fast as each other: the one whose GPUs are nearer, so that fewer copies cross a far link.
        total += _FAR_S * sum(_tier(self.links[a][b]) for a, b in combinations(group, 2))
        return total + _UNEQUAL_S * (len({self.node.devices[g].name for g in group}) - 1)

    def _lack_s(self, group: tuple[int, ...]) -> float:
        """Penalties for memory that others have more of, and in a box of different GPUs for slower memory."""
        if self.node.is_uniform:
            short = 1 - min(self.usable[g] for g in group) / max(self.usable)
            return _MEMORY_S * short if short > MEMORY_GRAIN else 0.0
        rates = [device.memory_bytes_per_s for device in self.node.devices]
        return _MEMORY_S * (1 - _mean_share(self.usable, group)) + _SLOWER_S * (1 - _mean_share(rates, group))

    def _twins(self) -> list[int]:
        """The first GPU that each may be swapped with without any link, model or memory being different."""
        twin = list(range(self.gpus))
        for b in range(self.gpus):
            twin[b] = next((a for a in range(b) if twin[a] == a and self._alike(a, b)), b)
        return twin

    def _alike(self, a: int, b: int) -> bool:
        if self.node.devices[a].name != self.node.devices[b].name:
            return False
        if abs(self.usable[a] - self.usable[b]) > MEMORY_GRAIN * max(self.usable) or self._uplinks(a) != self._uplinks(b):
            return False
        return all(self.links[a][x] == self.links[b][x] for x in range(self.gpus) if x not in (a, b))

    def _uplinks(self, gpu: int) -> tuple[int, ...]:
        return tuple(i for i, below in enumerate(self.node.uplinks) if gpu in below)


def _mean_share(values: Sequence[float], group: Sequence[int]) -> float:
    """The mean of a group's values as a share of the largest value of the node."""
    return sum(values[g] for g in group) / len(group) / max(values)


def _tier(link: Link) -> int:
    return LINK_ORDER.index(link.kind)
