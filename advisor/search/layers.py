"""The layers of each stage where stages are of different GPUs."""

from __future__ import annotations

import math

from advisor.specs.cluster import Cluster
from advisor.specs.plan import Plan


def layer_split(cluster: Cluster, plan: Plan, layers: int) -> tuple[int, ...]:
    """Layers of each stage in proportion to what its GPUs have: of the shares of memory and of bandwidth the smaller one; () where
    the stages are alike. The slowest and smallest rank of any replica binds its stage."""
    devices = cluster.node.devices
    stages = [[plan.gpu(r) % len(devices) for r in range(plan.world) if plan.coordinates(r).stage == s] for s in range(plan.pp)]
    memory = [min(cluster.node.usable_bytes(g) for g in gpus) for gpus in stages]
    rate = [min(devices[g].memory_bytes_per_s for g in gpus) for gpus in stages]
    weights = [min(m / sum(memory), b / sum(rate)) for m, b in zip(memory, rate, strict=True)]
    if max(weights) - min(weights) < 1e-3 * max(weights):
        return ()
    return _rounded([w / sum(weights) * layers for w in weights], layers)


def _rounded(exact: list[float], layers: int) -> tuple[int, ...]:
    """Whole layers, at least one a stage, that add up: the largest stages give, the ones rounded down most take."""
    stages = range(len(exact))
    split = [max(1, math.floor(x)) for x in exact]
    while sum(split) > layers:
        split[max(stages, key=lambda s: (split[s], -s))] -= 1
    for s in sorted(stages, key=lambda s: (split[s] - exact[s], s)):
        if sum(split) == layers:
            break
        split[s] += 1
    split[0] += layers - sum(split)
    return tuple(split)
