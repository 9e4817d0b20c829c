"""Which GPU is which rank: tp groups on the best links, pipeline neighbours next, replicas apart, the rest idle.

The search is exact for nodes of up to 16 GPUs: the best worst group first, then the least sum, by dynamic programming over sets of
GPUs; groups that differ only by interchangeable GPUs are looked at once. Larger nodes are filled greedily, tightest links first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise, permutations

from advisor.roofline.fabric import Fabric, LinkGraph, group_fabric, is_direct, plan_fabrics, typical_bytes_per_s
from advisor.specs.cluster import LINK_ORDER, Cluster, Device, Link
from advisor.specs.plan import Plan

EXACT_GPUS = 16
# What a group is compared by: one all-reduce of the hidden states of 64 tokens of a wide model (64 x 8192 x 2 bytes).
_PAYLOAD_BYTES = 64 * 8192 * 2.0
# Latency of one copy: peer 0.4 to 1 us, staged through host memory 14 to 15 us (measured on PCIe boxes); a network hop as staged.
_DIRECT_S, _STAGED_S = 1e-6, 15e-6
# A group of unequal GPUs, or with less memory free than others, is worse than any link is slow.
_UNEQUAL_S = 1.0
_MEMORY_S = 1e-1
_SLOWER_S = 1e-2  # then comes the memory bandwidth of different GPUs: a step reads milliseconds of weights
_MEMORY_GRAIN = 0.02  # differences in free memory below this share do not count
_FAR_S = 1e-9  # far below any difference in time: it only decides between equal ones
_KINDS = 600  # kinds of groups that are all looked at; a node with more is searched by swaps
_TIES = 48  # equally good partitions whose pipelines are compared
_PATHS_EXACT = 8  # stages in a pipeline whose order is found exactly


def place(cluster: Cluster, plan: Plan, *, layers: int, engine_can_split: bool) -> Plan:
    """The plan with the GPU of each rank and, where stages are of different GPUs and the engine can split unevenly, the layers of
    each stage.

    Deterministic. A plan that already names its GPUs keeps them. Where all GPUs and links are alike, rank r is on GPU r.
    """
    if not plan.gpus and plan.world <= cluster.gpus:
        plan = replace(plan, gpus=_gpus(cluster, plan))
    if plan.layer_split or plan.pp == 1 or not engine_can_split or cluster.node.is_uniform or plan.pp > layers:
        return plan
    split = layer_split(cluster, plan, layers)
    return replace(plan, layer_split=split) if split else plan


def layer_split(cluster: Cluster, plan: Plan, layers: int) -> tuple[int, ...]:
    """Layers of each stage in proportion to what its GPUs have: of the shares of memory and of bandwidth the smaller one; () where
    the stages are alike. The slowest and smallest rank of any replica binds its stage."""
    stages = [[_device(cluster, plan.gpu(r)) for r in range(plan.world) if plan.coordinates(r).stage == s] for s in range(plan.pp)]
    ranks = [[r for r in range(plan.world) if plan.coordinates(r).stage == s] for s in range(plan.pp)]
    memory = [min(_usable(cluster, plan.gpu(r)) for r in part) for part in ranks]
    rate = [min(d.memory_bytes_per_s for d in part) for part in stages]
    weights = [min(m / sum(memory), b / sum(rate)) for m, b in zip(memory, rate, strict=True)]
    if max(weights) - min(weights) < 1e-3 * max(weights):
        return ()
    exact = [w / sum(weights) * layers for w in weights]
    split = [max(1, math.floor(x)) for x in exact]
    while sum(split) > layers:
        split[max(range(plan.pp), key=lambda s: (split[s], -s))] -= 1
    for s in sorted(range(plan.pp), key=lambda s: (split[s] - exact[s], s)):
        if sum(split) == layers:
            break
        split[s] += 1
    split[0] += layers - sum(split)
    return tuple(split)


def unequal(cluster: Cluster, plan: Plan) -> str:
    """Why the tp groups of a plan cannot all be of equal GPUs, and what can; "" where they can."""
    counts: dict[str, int] = {}
    for device in cluster.node.devices:
        counts[device.name] = counts.get(device.name, 0) + 1
    size = plan.stage_gpus
    if len(counts) == 1 or size > len(cluster.node.devices) or size == 1:
        return ""
    room = cluster.nodes * sum(count // size for count in counts.values())
    if room >= plan.pp * plan.dp:
        return ""
    have = " and ".join(f"{count} x {name}" for name, count in counts.items())
    return (
        f"{plan.pp * plan.dp} tensor-parallel groups of {size} equal GPUs are not in this machine of {have}; "
        f"use a smaller tp, or replicas"
    )


def left_idle(cluster: Cluster, plan: Plan) -> str:
    """A sentence on the GPUs that a plan leaves idle in a machine of different GPUs; "" where there is nothing to say."""
    if cluster.node.is_uniform or cluster.nodes > 1 or plan.world >= cluster.gpus:
        return ""
    used = {plan.gpu(r) for r in range(plan.world)}
    kinds: dict[str, list[int]] = {}
    for gpu in range(cluster.gpus):
        if gpu not in used:
            kinds.setdefault(cluster.node.devices[gpu].name, []).append(gpu)
    parts = [f"GPU{'s' if len(g) > 1 else ''} {', '.join(map(str, g))} ({name})" for name, g in kinds.items()]
    one = sum(len(g) for g in kinds.values()) == 1
    return f"{' and '.join(parts)} {'stays' if one else 'stay'} idle: tp takes equal GPUs; run another model or replica there"


def _gpus(cluster: Cluster, plan: Plan) -> tuple[int, ...]:
    """The GPU of each rank: groups found on one node, repeated over the nodes."""
    node, size = cluster.node, plan.stage_gpus
    each = len(node.devices)
    if _alike(cluster) or size > each:
        return tuple(range(plan.world))
    wanted = plan.pp * plan.dp
    per_node = min(each // size, wanted)
    search = _search(_one_node(cluster), plan)
    chain = min(plan.pp, per_node)
    if wanted <= per_node:
        return _flat(search.best(plan.dp, plan.pp))
    # Several nodes: every node holds equally many stages, in one chain.
    if per_node % chain:
        chain = 1
    local = _flat(search.best(per_node // chain, chain))
    gpus: list[int] = []
    for start in range(cluster.nodes):
        gpus += [start * each + g for g in local]
    return tuple(gpus[: plan.world]) if len(gpus) >= plan.world else tuple(range(plan.world))


def _alike(cluster: Cluster) -> bool:
    node = cluster.node
    usable = [node.usable_bytes(g) for g in range(len(node.devices))]
    even = max(usable) - min(usable) <= _MEMORY_GRAIN * max(usable)
    return node.is_uniform and not node.pairs and not node.uplinks and even


_nodes: dict[int, tuple[Cluster, Cluster]] = {}


def _one_node(cluster: Cluster) -> Cluster:
    """One node of a cluster, the same object each time; a bounded memo that keeps the cluster alive, so that no id is reused."""
    if cluster.nodes == 1:
        return cluster
    if id(cluster) not in _nodes:
        if len(_nodes) >= 8:
            _nodes.clear()
        _nodes[id(cluster)] = cluster, replace(cluster, nodes=1)
    return _nodes[id(cluster)][1]


def _flat(chains: Sequence[Sequence[tuple[int, ...]]]) -> tuple[int, ...]:
    return tuple(g for chain in chains for group in chain for g in group)


def _device(cluster: Cluster, gpu: int) -> Device:
    return cluster.node.devices[gpu % len(cluster.node.devices)]


def _usable(cluster: Cluster, gpu: int) -> float:
    return cluster.node.usable_bytes(gpu % len(cluster.node.devices))


def seconds(fabric: Fabric) -> float:
    """What a group is compared by: latency and bytes of one all-reduce as links usually reach them."""
    n = fabric.ranks
    if n < 2:
        return 0.0
    link = Link(kind=fabric.kind, bytes_per_s=fabric.bytes_per_s, p2p=fabric.p2p)
    hop_s = _DIRECT_S if fabric.p2p else _STAGED_S
    return hop_s * (n - 1) + 2 * _PAYLOAD_BYTES * (n - 1) / n / typical_bytes_per_s(link)


_searches: dict[tuple[int, int, int, int], _Search] = {}


def _search(cluster: Cluster, plan: Plan, *, width: int = 0) -> _Search:
    """The search of one shape of stage on one machine: plans that differ in pp and dp share what it knows. A bounded memo that
    keeps the cluster alive, so that no id is reused."""
    key = (id(cluster), plan.tp, plan.adp, width)
    if key not in _searches:
        if len(_searches) >= 64:
            _searches.clear()
        _searches[key] = _Search(cluster, plan, width=width)
    return _searches[key].shaped(plan)


class _Search:
    """The best groups of one node for one shape of plan."""

    def __init__(self, cluster: Cluster, plan: Plan, *, width: int = 0) -> None:
        """`width`: groups are chains of so many stages of one GPU each, instead of one stage."""
        self.graph = LinkGraph(cluster)
        self.cluster, self.node, self.plan, self.width = cluster, cluster.node, plan, width
        self.n, self.size = len(cluster.node.devices), width or plan.stage_gpus
        self.links = [[self.node.link(a, b) if a != b else self.node.default_link for b in range(self.n)] for a in range(self.n)]
        self.usable = [self.node.usable_bytes(g) for g in range(self.n)]
        pair = [
            [seconds(group_fabric(self.graph, (a, b))) + _FAR_S * _tier(self.links[a][b]) if a != b else 0.0 for b in range(self.n)]
            for a in range(self.n)
        ]
        self.hops = pair
        self.twin = self._twins()
        self.known: dict[tuple[int, ...], float] = {}
        self.groups: list[list[tuple[float, int, tuple[int, ...]]]] = []

    def shaped(self, plan: Plan) -> _Search:
        """The same search for a plan of other pp and dp."""
        self.plan = plan
        return self

    def best(self, dp: int, pp: int) -> list[list[tuple[int, ...]]]:
        """`dp` chains of `pp` groups, each group's GPUs in rank order."""
        wanted = dp * pp
        if self.size == 1 and pp > 1:
            return self._single_chains(dp, pp)
        found = self._partitions(wanted) if self._is_small() else iter([self._improved(self._greedy(wanted))])
        plans: list[tuple[tuple[float, ...], list[list[tuple[int, ...]]]]] = []
        for groups in found:
            chains = self._chains([self._ordered(g) for g in groups], dp, pp)
            plans.append((self._score(chains, dp, pp), chains))
            if len(plans) >= _TIES or pp == 1:
                break
        return min(plans, key=lambda item: (item[0], _flat(item[1])))[1]

    def _single_chains(self, dp: int, pp: int) -> list[list[tuple[int, ...]]]:
        """Stages of one GPU: each replica is a group of pp GPUs, as good as the best chain through it."""
        chains = _search(self.cluster, replace(self.plan, tp=1, adp=1, pp=1, dp=1, ep=1, gpus=(), layer_split=()), width=pp)
        found = next(chains._partitions(dp)) if chains._is_small() else chains._improved(chains._greedy(dp))
        return [[(g,) for g in self._chained(group)] for group in found]

    def _chained(self, group: tuple[int, ...]) -> list[int]:
        hop = [[self.hops[a][b] for b in range(self.n)] for a in range(self.n)]
        return _path(list(group), hop) if len(group) <= _PATHS_EXACT else _nearest(list(group), len(group), hop)

    def _is_small(self) -> bool:
        """Whether all groups can be looked at: few GPUs, or few kinds of groups."""
        if self.n > EXACT_GPUS:
            return False
        kinds = {tuple(sorted(self.twin[g] for g in group)) for group in combinations(range(self.n), self.size)}
        return len(kinds) <= _KINDS

    def _improved(self, groups: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Swap GPUs between groups, and with idle ones, while that lessens the worst cost or the sum."""
        if self.n > EXACT_GPUS:
            return groups
        idle = tuple(g for g in range(self.n) if not any(g in group for group in groups))
        parts = [*groups, idle]

        def total(items: Sequence[tuple[int, ...]]) -> tuple[float, float]:
            costs = [self.cost(p) for p in items[:-1]]
            return max(costs), sum(costs)

        best = total(parts)
        for _ in range(self.n):
            before = best
            for i, j in combinations(range(len(parts)), 2):
                for a in parts[i]:
                    for b in parts[j]:
                        if a not in parts[i] or b not in parts[j] or self.twin[a] == self.twin[b]:
                            continue
                        one = tuple(sorted((*(g for g in parts[i] if g != a), b)))
                        two = tuple(sorted((*(g for g in parts[j] if g != b), a)))
                        option = [*parts[:i], one, *parts[i + 1 : j], two, *parts[j + 1 :]]
                        if (cost := total(option)) < best:
                            best, parts = cost, option
            if best == before:
                break
        return sorted(parts[:-1])

    def _score(self, chains: list[list[tuple[int, ...]]], dp: int, pp: int) -> tuple[float, ...]:
        """Time of the slowest group of each axis, shared uplinks counted, then the sum of hops."""
        placed = replace(self.plan, dp=dp, pp=pp, gpus=_flat(chains), layer_split=(), settings=None)
        fabrics = plan_fabrics(self.graph, placed)
        hops = sum(self._hop(a, b) for chain in chains for a, b in pairwise(chain))
        return seconds(fabrics.tp), seconds(fabrics.adp) + seconds(fabrics.ep), seconds(fabrics.pp), hops

    def _twins(self) -> list[int]:
        """The first GPU that each may be swapped with without any link, model or memory being different."""
        grain = _MEMORY_GRAIN * max(self.usable)
        twin = list(range(self.n))
        for b in range(self.n):
            for a in range(b):
                same = self.node.devices[a].name == self.node.devices[b].name and abs(self.usable[a] - self.usable[b]) <= grain
                if (
                    twin[a] == a
                    and same
                    and all(
                        self.links[a][x] == self.links[b][x] and self._uplinks(a) == self._uplinks(b)
                        for x in range(self.n)
                        if x not in (a, b)
                    )
                ):
                    twin[b] = a
                    break
        return twin

    def _uplinks(self, gpu: int) -> tuple[int, ...]:
        return tuple(i for i, below in enumerate(self.node.uplinks) if gpu in below)

    def cost(self, group: tuple[int, ...]) -> float:
        """Seconds of a stage's groups: its tp groups, what spans them, and penalties for unequal GPUs and lack of memory.

        Groups of the same kinds of GPUs cost the same.
        """
        kinds = tuple(sorted(self.twin[g] for g in group))
        found = self.known.get(kinds)
        if found is None:
            found = self.known[kinds] = self._cost(group)
        return found

    def _cost(self, group: tuple[int, ...]) -> float:
        plan = self.plan
        if self.width:
            chain = [self.hops[a][b] for a, b in pairwise(self._chained(group))]
            total = max(chain) + _FAR_S * sum(chain)
        else:
            ordered = self._ordered(group)
            tps = [ordered[i : i + plan.tp] for i in range(0, self.size, plan.tp)]
            total = max(seconds(group_fabric(self.graph, tp)) for tp in tps)
            if plan.adp > 1:
                total += seconds(group_fabric(self.graph, ordered))
            # Among groups as fast as each other: the one whose GPUs are nearer, so that fewer copies cross a far link.
            total += _FAR_S * sum(_tier(self.links[a][b]) for a, b in combinations(group, 2))
            names = {self.node.devices[g].name for g in group}
            total += _UNEQUAL_S * (len(names) - 1)
        if self.node.is_uniform:
            short = 1 - min(self.usable[g] for g in group) / max(self.usable)
            return total + (_MEMORY_S * short if short > _MEMORY_GRAIN else 0.0)
        rates = [device.memory_bytes_per_s for device in self.node.devices]
        memory = sum(self.usable[g] for g in group) / len(group) / max(self.usable)
        rate = sum(rates[g] for g in group) / len(group) / max(rates)
        return total + _MEMORY_S * (1 - memory) + _SLOWER_S * (1 - rate)

    def _ordered(self, group: tuple[int, ...]) -> tuple[int, ...]:
        """A stage's GPUs in rank order: tp groups one after the other, each on the best links among the GPUs left."""
        tp = self.plan.tp
        if self.plan.adp == 1 or tp == 1:
            return tuple(sorted(group))
        left, ordered = sorted(group), list[int]()
        while left:
            rest = combinations(left[1:], tp - 1)
            chosen = min(rest, key=lambda c: (seconds(group_fabric(self.graph, (left[0], *c))), c))
            ordered += [left[0], *chosen]
            left = [g for g in left if g not in ordered]
        return tuple(ordered)

    def _partitions(self, wanted: int) -> Iterator[list[tuple[int, ...]]]:
        """Disjoint groups, equally good ones one after the other: least worst cost, then least sum."""
        full = (1 << self.n) - 1
        groups = self._groups()
        limits = sorted({cost for by in groups for cost, _, _ in by})
        low, high = 0, len(limits) - 1
        while low < high:
            middle = (low + high) // 2
            if self._sums(groups, limits[middle], wanted)(0, wanted) < math.inf:
                high = middle
            else:
                low = middle + 1
        sums = self._sums(groups, limits[low], wanted)

        def walk(mask: int, left: int) -> Iterator[list[tuple[int, ...]]]:
            if left == 0:
                yield []
                return
            first = _lowest(~mask & full)
            target = sums(mask, left)
            for cost, bits, group in groups[first]:
                if bits & mask or cost > limits[low]:
                    continue
                if cost + sums(mask | bits, left - 1) <= target * (1 + 1e-12):
                    yield from ([group, *rest] for rest in walk(mask | bits, left - 1))
            if sums(mask | 1 << first, left) <= target * (1 + 1e-12):
                yield from walk(mask | 1 << first, left)

        yield from walk(0, wanted)

    def _groups(self) -> list[list[tuple[float, int, tuple[int, ...]]]]:
        """By lowest GPU: cost, bits and GPUs of every group, one for each choice of interchangeable partners, best first.

        Of interchangeable GPUs the lower ones are taken first, which loses nothing: the walk visits GPUs in ascending order.
        """
        if self.groups:
            return self.groups
        found = self.groups
        for first in range(self.n):
            groups = []
            for rest in combinations(range(first + 1, self.n), self.size - 1):
                group = (first, *rest)
                groups.append((self.cost(group), sum(1 << g for g in group), group))
            groups.sort(key=lambda item: (item[0], item[2]))
            found.append(groups)
        return found

    def _sums(
        self, groups: list[list[tuple[float, int, tuple[int, ...]]]], limit: float, wanted: int
    ) -> Callable[[int, int], float]:
        """Least sum of costs of `left` groups from the GPUs not in `mask`, each group within the limit; infinity where none."""
        full, size, n, twin = (1 << self.n) - 1, self.size, self.n, self.twin
        allowed = [[(cost, bits, group) for cost, bits, group in by if cost <= limit] for by in groups]
        kinds: dict[tuple[int, ...], float] = {}
        counts = [0] * n
        for g in range(n):
            counts[twin[g]] += 1
        classes = [g for g in range(n) if counts[g]]
        members = [sum(1 << g for g in range(n) if twin[g] == c) for c in classes]

        def sums(mask: int, left: int) -> float:
            if left == 0:
                return 0.0
            if (full & ~mask).bit_count() < left * size:
                return math.inf
            key = (left, *((mask & m).bit_count() for m in members))
            found = kinds.get(key)
            if found is not None:
                return found
            first = _lowest(~mask & full)
            best = math.inf
            for cost, bits, _ in allowed[first]:
                if bits & mask or cost >= best:
                    if cost >= best:
                        break
                    continue
                best = min(best, cost + sums(mask | bits, left - 1))
            if (full & ~mask).bit_count() > left * size:
                best = min(best, sums(mask | 1 << first, left))
            kinds[key] = best
            return best

        return sums

    def _greedy(self, wanted: int) -> list[tuple[int, ...]]:
        """Groups from the tightest links out: within each component of the best links first, then of wider ones."""
        found: list[tuple[int, ...]] = []
        free = sorted(range(self.n), key=lambda g: (-self.usable[g] if self.node.is_uniform else 0.0, g))
        tiers = sorted({_rank(self.links[a][b]) for a in range(self.n) for b in range(a)})
        for equal in (True, False):
            for tier in [*tiers, (math.inf, 0)]:
                for part in self._components(free, tier, equal=equal):
                    while len(part) >= self.size and len(found) < wanted:
                        found.append(tuple(sorted(part[: self.size])))
                        part = part[self.size :]
                free = [g for g in free if not any(g in group for group in found)]
        return sorted(found)

    def _components(self, gpus: list[int], tier: tuple[float, float], *, equal: bool) -> list[list[int]]:
        home = {g: g for g in gpus}
        for a, b in combinations(gpus, 2):
            if home[a] != home[b] and _rank(self.links[a][b]) <= tier:
                if equal and self.node.devices[a].name != self.node.devices[b].name:
                    continue
                low, high = home[a], home[b]
                home = {g: low if h == high else h for g, h in home.items()}
        return [[g for g in gpus if home[g] == h] for h in dict.fromkeys(home.values())]

    def _hop(self, a: tuple[int, ...], b: tuple[int, ...]) -> float:
        """Seconds of the slowest transfer from one stage's ranks to the next's."""
        return max(self.hops[x][y] for x, y in zip(a, b, strict=True))

    def _chains(self, groups: list[tuple[int, ...]], dp: int, pp: int) -> list[list[tuple[int, ...]]]:
        """Groups as `dp` pipelines: the least worst hop, then the least sum."""
        if pp == 1:
            return [[g] for g in groups]
        hop = [[self._hop(a, b) if a != b else 0.0 for b in groups] for a in groups]
        if len({h for i, row in enumerate(hop) for j, h in enumerate(row) if i != j}) <= 1:
            return [groups[i * pp : (i + 1) * pp] for i in range(dp)]
        left, chains = list(range(len(groups))), list[list[int]]()
        if dp > 1 and len(groups) <= EXACT_GPUS and math.comb(len(groups) - 1, pp - 1) <= 500 and pp <= 4:
            chains = _matched(len(groups), pp, hop)
        else:
            while left:
                chain = _path(left, hop) if len(left) == pp and pp <= _PATHS_EXACT else _nearest(left, pp, hop)
                chains.append(chain)
                left = [g for g in left if g not in chain]
        return [[groups[i] for i in chain] for chain in sorted(chains)]


_Way = tuple[float, float, tuple[int, ...]]  # worst hop, sum of hops, and the order


def _matched(count: int, pp: int, hop: list[list[float]]) -> list[list[int]]:
    """Chains that together have the least worst hop, then the least sum, by dynamic programming over sets of groups."""
    full = (1 << count) - 1
    paths: dict[int, tuple[tuple[float, float], list[int]]] = {}
    for part in combinations(range(count), pp):
        chain = _path(list(part), hop)
        costs = [hop[a][b] for a, b in pairwise(chain)]
        paths[sum(1 << g for g in part)] = (max(costs), sum(costs)), chain
    by_first: list[list[int]] = [[m for m in paths if m & -m == 1 << first] for first in range(count)]

    @cache
    def best(mask: int) -> tuple[float, float, tuple[int, ...]]:
        if mask == full:
            return 0.0, 0.0, ()
        found: tuple[float, float, tuple[int, ...]] | None = None
        for part in by_first[_lowest(~mask & full)]:
            if part & mask:
                continue
            (worst, total), _ = paths[part]
            rest = best(mask | part)
            option = (max(worst, rest[0]), total + rest[1], (part, *rest[2]))
            if found is None or option < found:
                found = option
        assert found is not None
        return found

    return [paths[part][1] for part in best(0)[2]]


def _path(groups: list[int], hop: list[list[float]]) -> list[int]:
    """The order of few groups with the least worst hop, then the least sum (dynamic programming over sets, Held and Karp 1962)."""
    if len(groups) <= 4:
        return list(
            min(
                permutations(groups),
                key=lambda p: (
                    max(hop[a][b] for a, b in pairwise(p)),
                    sum(hop[a][b] for a, b in pairwise(p)),
                    p,
                ),
            )
        )
    best: dict[tuple[int, int], _Way] = {(1 << i, i): (0.0, 0.0, (g,)) for i, g in enumerate(groups)}
    for _ in range(len(groups) - 1):
        longer: dict[tuple[int, int], _Way] = {}
        for (mask, last), (worst, total, path) in best.items():
            for i, g in enumerate(groups):
                if mask >> i & 1:
                    continue
                step = hop[groups[last]][g]
                option = (max(worst, step), total + step, (*path, g))
                key = (mask | 1 << i, i)
                if key not in longer or option < longer[key]:
                    longer[key] = option
        best = longer
    return list(min(best.values())[2])


def _nearest(groups: list[int], pp: int, hop: list[list[float]]) -> list[int]:
    """A chain that goes on to the nearest group each time, from the start that ends best."""
    best: tuple[float, float, list[int]] | None = None
    for start in groups:
        chain, worst, total = [start], 0.0, 0.0
        while len(chain) < pp:
            after = min((g for g in groups if g not in chain), key=lambda g: (hop[chain[-1]][g], g))
            worst, total = max(worst, hop[chain[-1]][after]), total + hop[chain[-1]][after]
            chain.append(after)
        if best is None or (worst, total, chain) < best:
            best = worst, total, chain
    assert best is not None
    return best[2]


def _tier(link: Link) -> int:
    return LINK_ORDER.index(link.kind)


def _rank(link: Link) -> tuple[float, float]:
    staged = 0.0 if is_direct(link) else 1.0
    return staged - 1e-15 * typical_bytes_per_s(link), LINK_ORDER.index(link.kind)


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
