"""Which GPU is which rank: tp groups on the best links, pipeline neighbours next, replicas apart, the rest idle.

The search is exact for nodes of up to 16 GPUs (`partition`), with the stages put in order by `chains`; larger nodes are filled
greedily, tightest links first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from advisor.roofline.fabric import LinkGraph, plan_fabrics
from advisor.search.chains import chains
from advisor.search.greedy import filled, improved
from advisor.search.groups import MEMORY_GRAIN, Groups, seconds
from advisor.search.layers import layer_split
from advisor.search.partition import Partitions
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem

_TIES = 48  # equally good partitions whose pipelines are compared

_Chains = list[list[tuple[int, ...]]]


class Placer:
    """Places the plans of one problem; plans that differ only in pp and dp share what it has found."""

    def __init__(self, problem: Problem) -> None:
        self._cluster, self._layers = problem.cluster, len(problem.model.layers)
        self._can_split = problem.engine.uneven_layers
        self._node = LinkGraph(replace(problem.cluster, nodes=1))
        self._partitions: dict[tuple[int, int, int], tuple[Groups, Partitions]] = {}

    def placed(self, plan: Plan) -> Plan:
        """The plan with the GPU of each rank, where links, devices or free memory differ, and the layers of each stage, where
        stages are of different GPUs and the engine can split unevenly.

        Deterministic. A plan that already names its GPUs keeps them.
        """
        cluster = self._cluster
        node = cluster.node
        if node.is_uniform and not node.pairs and not any(b is not None for b in node.free_bytes):
            return plan
        if not plan.gpus and plan.world <= cluster.gpus:
            plan = replace(plan, gpus=self._gpus(plan))
        if plan.layer_split or plan.pp == 1 or not self._can_split or node.is_uniform or plan.pp > self._layers:
            return plan
        split = layer_split(cluster, plan, self._layers)
        return replace(plan, layer_split=split) if split else plan

    def _gpus(self, plan: Plan) -> tuple[int, ...]:
        """The GPU of each rank: groups found on one node, repeated over the nodes."""
        size, each, wanted = plan.stage_gpus, len(self._cluster.node.devices), plan.pp * plan.dp
        if self._alike() or size > each:
            return tuple(range(plan.world))
        per_node = min(each // size, wanted)
        chain = min(plan.pp, per_node)
        if wanted <= per_node:
            return _flat(self._on_node(plan, plan.dp, plan.pp))
        # Several nodes: every node holds equally many stages, in one chain.
        if per_node % chain:
            chain = 1
        local = _flat(self._on_node(plan, per_node // chain, chain))
        gpus = [start * each + g for start in range(self._cluster.nodes) for g in local]
        return tuple(gpus[: plan.world]) if len(gpus) >= plan.world else tuple(range(plan.world))

    def _alike(self) -> bool:
        node = self._cluster.node
        usable = [node.usable_bytes(g) for g in range(len(node.devices))]
        even = max(usable) - min(usable) <= MEMORY_GRAIN * max(usable)
        return node.is_uniform and not node.pairs and not node.uplinks and even

    def _on_node(self, plan: Plan, dp: int, pp: int) -> _Chains:
        """`dp` chains of `pp` groups of one node, each group's GPUs in rank order."""
        if plan.stage_gpus == 1 and pp > 1:
            # Stages of one GPU: each replica is a group of pp GPUs, as good as the best chain through it.
            groups, found = self._found(1, 1, pp, wanted=dp)
            return [[(g,) for g in groups.chained(group)] for group in next(found)]
        groups, found = self._found(plan.tp, plan.adp, 0, wanted=dp * pp)
        options: list[tuple[tuple[float, ...], _Chains]] = []
        for parts in found:
            ordered = [groups.ordered(part) for part in parts]
            hop = [[groups.hop_s(a, b) if a != b else 0.0 for b in ordered] for a in ordered]
            placed = [[ordered[i] for i in chain] for chain in chains(len(ordered), dp=dp, pp=pp, hop=hop)]
            options.append((self._score(groups, placed, replace(plan, dp=dp, pp=pp)), placed))
            if len(options) >= _TIES or pp == 1:
                break
        return min(options, key=lambda item: (item[0], _flat(item[1])))[1]

    def _found(self, tp: int, adp: int, chain: int, *, wanted: int) -> tuple[Groups, Iterator[list[tuple[int, ...]]]]:
        """Groups of a shape, and equally good partitions of a node into `wanted` of them."""
        key = (tp, adp, chain)
        if key not in self._partitions:
            new = Groups(self._node, tp=tp, adp=adp, chain=chain)
            self._partitions[key] = new, Partitions(new)
        groups, partitions = self._partitions[key]
        return groups, (partitions.best(wanted) if partitions.is_small else iter([improved(groups, filled(groups, wanted))]))

    def _score(self, groups: Groups, placed: _Chains, plan: Plan) -> tuple[float, ...]:
        """Time of the slowest group of each axis, shared uplinks counted, then the sum of hops."""
        fabrics = plan_fabrics(self._node, replace(plan, gpus=_flat(placed), layer_split=(), settings=None))
        hops = sum(groups.hop_s(a, b) for chain in placed for a, b in pairwise(chain))
        return seconds(fabrics.tp), seconds(fabrics.adp) + seconds(fabrics.ep), seconds(fabrics.pp), hops


def _flat(placed: Sequence[Sequence[tuple[int, ...]]]) -> tuple[int, ...]:
    return tuple(g for chain in placed for group in chain for g in group)
