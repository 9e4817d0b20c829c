"""What a change of the question would bring: fewer bytes a weight, an NVLink bridge, one more GPU. Each is predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from advisor.roofline.memory import context_shortfall, rank_memory
from advisor.search.ceiling import with_ceiling
from advisor.search.certainty import objective
from advisor.search.changes import NODE_GPUS, filled, smaller_models
from advisor.search.legal import block_refusal, refusal
from advisor.search.order import shape
from advisor.search.place import Placer
from advisor.serving.predict import Predictor
from advisor.specs.advice import Advice, WhatIf
from advisor.specs.cluster import NVLINKS, Link, Node, Pair
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem

SHAPES = 2  # of the best replica shapes are asked about, and the first with half its tp


def what_ifs(predictor: Predictor, advice: Advice) -> tuple[WhatIf, ...]:
    """How many times better the goal's figure is after each change, with the best of the plans that are asked about."""
    if not advice.choices or not advice.limits_met:
        return ()
    first = advice.choices[0]
    found = []
    for change, problem in _changes(predictor.problem):
        best = _best(predictor.about(problem), _shapes(advice))
        if best is not None:
            before, after = objective(first, problem.workload).value, objective(best, problem.workload).value
            found.append(WhatIf(change=change, plan=best.plan, times=before / after))
    return tuple(found)


def _changes(problem: Problem) -> Iterator[tuple[str, Problem]]:
    cluster = problem.cluster
    for name, model in smaller_models(problem):
        yield f"{name} weights", replace(problem, model=model)
        break
    bridged = _bridged(cluster.node)
    if bridged is not None:
        yield "NVLink bridges", replace(problem, cluster=replace(cluster, node=bridged))
    if cluster.nodes == 1 and cluster.gpus < NODE_GPUS and cluster.node.is_uniform and not cluster.node.pairs:
        more = filled(cluster.node, cluster.gpus + 1)
        yield "one more GPU", replace(problem, cluster=replace(cluster, node=more))


def _bridged(node: Node) -> Node | None:
    """The node with an NVLink bridge on each pair of neighbours; None where the GPUs take none or have one."""
    device, links = node.devices[0], (node.default_link, *(pair.link for pair in node.pairs))
    if device.link_kind != "nvlink" or len(node.devices) < 2 or not node.is_uniform or any(x.kind in NVLINKS for x in links):
        return None
    bridge = Link(kind="nvlink", bytes_per_s=device.link_bytes_per_s)
    pairs = {(p.a, p.b): p for p in node.pairs} | {
        (a, a + 1): Pair(a=a, b=a + 1, link=bridge) for a in range(0, len(node.devices) - 1, 2)
    }
    return replace(node, pairs=tuple(pairs[ends] for ends in sorted(pairs)))


def _shapes(advice: Advice) -> list[Plan]:
    """One replica of the best shapes, and of the first with half its tp: smaller weights fit on fewer GPUs."""
    found: dict[tuple[int, ...], Plan] = {}
    for p in advice.choices:
        if len(found) < SHAPES:
            found.setdefault(shape(p.plan), _bare(p.plan))
    first = advice.choices[0].plan
    if first.tp % 2 == 0 and first.ep == first.adp == 1:
        half = replace(_bare(first), tp=first.tp // 2)
        found.setdefault(shape(half), half)
    return list(found.values())


def _bare(plan: Plan) -> Plan:
    return replace(plan, dp=1, gpus=(), layer_split=(), settings=None)


def _best(predictor: Predictor, shapes: list[Plan]) -> Prediction | None:
    """The best of these shapes with as many replicas as the machine and the load take; None where none runs."""
    problem = predictor.problem
    load, placer, found = problem.workload, Placer(problem), []
    for replica in shapes:
        most = problem.cluster.gpus // replica.replica_gpus
        if load.mode in ("single_stream", "closed_loop", "static_batch"):
            most = min(most, load.users)
        if load.goal == "cost":
            most = min(most, 1)  # further replicas make tokens no cheaper
        if not most or refusal(problem, replica) or block_refusal(problem, replica):
            continue
        plan = with_ceiling(problem, placer.placed(replace(replica, dp=most)))
        memory = rank_memory(problem, plan)
        if memory.shortfall_bytes <= 0 and not context_shortfall(problem, plan, memory):
            found.append(predictor.screen(plan))
    kept = [p for p in found if p.within_limits]
    return min(kept, key=lambda p: objective(p, load).value) if kept else None
