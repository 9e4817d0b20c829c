"""What would help where nothing fits: each change is tried, never guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from advisor.catalog.models import requantise
from advisor.roofline.memory import rank_memory
from advisor.search.legal import block_refusal, refusal
from advisor.search.space import replicas
from advisor.specs.advice import Remedy
from advisor.specs.cluster import Cluster, Network, Node
from advisor.specs.formats import FORMATS
from advisor.specs.model import ModelSpec
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.units import show_count

MOST_NODES = 64
NODE_GPUS = 8  # what a node of today's servers holds at most; larger domains keep their own size
_SMALLER = ("fp8", "int4-awq")  # engines serve both from published checkpoints; fp8 only where the tensor cores have it
_ANY_NETWORK = Network(name="any network", bytes_per_s=50e9, latency_s=5e-6, rdma=True)


def remedies(problem: Problem) -> tuple[Remedy, ...]:
    """Changes of the question after which a plan fits: quantised weights, an fp8 cache, a shorter context, more GPUs.

    One of each kind, and quantised weights with more GPUs where no single one is enough.
    """
    found = list(_quantised(problem))
    cache = _smaller_cache(problem)
    found += [cache] if cache else []
    shorter = _shorter(problem)
    found += [shorter] if shorter else []
    more = _more_gpus(problem)
    found += [more] if more else []
    if not any(remedy.change.startswith("--dtype") for remedy in found):
        for name, model in _smaller_models(problem):
            both = _more_gpus(replace(problem, model=model))
            if both and (more is None or both.plan.world < more.plan.world):
                found.append(replace(both, change=f"--dtype {name} and {both.change}"))
                break
    return tuple(found)


def fitting(problem: Problem) -> Plan | None:
    """The plan with the fewest stages, then the fewest GPUs, that fits; None where none does."""
    for plan in sorted(replicas(problem, spanning=False), key=lambda p: (p.pp, p.adp, p.ep, p.replica_gpus)):
        refused = refusal(problem, plan) or block_refusal(problem, plan)
        if not refused and rank_memory(problem, plan).shortfall_bytes <= 0:
            return plan
    return None


def _smaller_models(problem: Problem) -> Iterator[tuple[str, ModelSpec]]:
    model, device = problem.model, problem.cluster.device
    now = _weight_bytes(model)
    for name in _SMALLER:
        if name == "fp8" and not device.peak("fp8"):
            continue
        smaller = requantise(model, dtype=name, kv_dtype=None)
        if _weight_bytes(smaller) < 0.9 * now:
            yield name, smaller


def _weight_bytes(model: ModelSpec) -> float:
    return FORMATS[model.formats.experts if model.is_moe else model.formats.ffn].bytes_per_value


def _quantised(problem: Problem) -> Iterator[Remedy]:
    for name, model in _smaller_models(problem):
        plan = fitting(replace(problem, model=model))
        if plan:
            yield Remedy(change=f"--dtype {name}", plan=plan)


def _smaller_cache(problem: Problem) -> Remedy | None:
    if FORMATS[problem.model.kv_format].bytes_per_value <= 1:
        return None
    plan = fitting(replace(problem, model=requantise(problem.model, dtype=None, kv_dtype="fp8")))
    return Remedy(change="--kv-dtype fp8", plan=plan) if plan else None


def _shorter(problem: Problem) -> Remedy | None:
    """The longest prompt that fits, by bisection, when the output stays as it is."""
    load = problem.workload

    def fits(tokens: int) -> Plan | None:
        cached = min(load.prefix_cached_tokens, tokens - 1)
        return fitting(replace(problem, workload=replace(load, input_tokens=tokens, prefix_cached_tokens=cached)))

    low, high, best = 1, int(load.input_tokens), fits(1)
    if best is None or high <= 2:
        return None
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        plan = fits(middle)
        low, high, best = (middle, high, plan) if plan else (low, middle, best)
    if low < 16:
        return None
    tokens = low // 16 * 16
    return Remedy(change=f"--input-tokens {tokens}", plan=best)


def _more_gpus(problem: Problem) -> Remedy | None:
    """The fewest GPUs of the same kind that hold it: a fuller node first, then more nodes."""
    for cluster in _larger(problem.cluster):
        plan = fitting(replace(problem, cluster=cluster))
        if plan:
            node = len(cluster.node.devices)
            nodes = f" --nodes {cluster.nodes}" if cluster.nodes > 1 else ""
            total = f" ({show_count(cluster.gpus)} GPUs)" if nodes else ""
            return Remedy(change=f"--gpus {node}{nodes}{total}", plan=plan)
    return None


def _larger(cluster: Cluster) -> Iterator[Cluster]:
    here = len(cluster.node.devices)
    if cluster.nodes == 1 and cluster.node.is_uniform:
        for gpus in range(here + 1, NODE_GPUS + 1):
            yield replace(cluster, node=_filled(cluster.node, gpus))
    size = max(here, NODE_GPUS) if cluster.nodes == 1 and cluster.node.is_uniform else here
    node = cluster.node if size == here else _filled(cluster.node, size)
    nodes = cluster.nodes + 1
    while nodes <= MOST_NODES:
        yield Cluster(node=node, nodes=nodes, network=cluster.network or _ANY_NETWORK)
        nodes += 1 if nodes < NODE_GPUS else nodes // 2


def _filled(node: Node, gpus: int) -> Node:
    """A node of so many GPUs of the same kind; memory is all that is asked of it, so its links stay the default."""
    return Node(name=node.name, devices=(node.devices[0],) * gpus, default_link=node.default_link)
