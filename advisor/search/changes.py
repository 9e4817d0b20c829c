"""Changes of a question that may help: fewer bytes a weight, a larger machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from advisor.catalog.models import requantise
from advisor.specs.cluster import Cluster, Network, Node
from advisor.specs.formats import FORMATS
from advisor.specs.model import ModelSpec
from advisor.specs.problem import Problem
from advisor.units import show_count

MOST_NODES = 64
NODE_GPUS = 8  # what a node of today's servers holds at most; larger domains keep their own size
_SMALLER = ("fp8", "int4-awq")  # engines serve both from published checkpoints; fp8 only where the tensor cores have it
_ANY_NETWORK = Network(name="any network", bytes_per_s=50e9, latency_s=5e-6, rdma=True)


def smaller_models(problem: Problem) -> Iterator[tuple[str, ModelSpec]]:
    """The model in formats of fewer bytes a weight that the device computes with or reads."""
    model, device = problem.model, problem.cluster.device
    now = _weight_bytes(model)
    for name in _SMALLER:
        if name == "fp8" and not device.peak("fp8"):
            continue
        smaller = requantise(model, dtype=name, kv_dtype=None)
        if _weight_bytes(smaller) < 0.9 * now:
            yield name, smaller


def _weight_bytes(model: ModelSpec) -> float:
    return FORMATS[model.weight_format].bytes_per_value


def gpus_option(cluster: Cluster) -> str:
    """The options that ask for as many GPUs: `--gpus 8 --nodes 3 (24 GPUs)`."""
    nodes = f" --nodes {cluster.nodes}" if cluster.nodes > 1 else ""
    total = f" ({show_count(cluster.gpus)} GPUs)" if nodes else ""
    return f"--gpus {len(cluster.node.devices)}{nodes}{total}"


def larger(cluster: Cluster) -> Iterator[Cluster]:
    """Machines of more GPUs of the same kind: a node of 2, 4 or 8, then more nodes."""
    here = len(cluster.node.devices)
    if cluster.nodes == 1 and cluster.node.is_uniform:
        for gpus in (2, 4, NODE_GPUS):
            if gpus > here:
                yield replace(cluster, node=filled(cluster.node, gpus))
    size = max(here, NODE_GPUS) if cluster.nodes == 1 and cluster.node.is_uniform else here
    node = cluster.node if size == here else filled(cluster.node, size)
    nodes = cluster.nodes + 1
    while nodes <= MOST_NODES:
        yield Cluster(node=node, nodes=nodes, network=cluster.network or _ANY_NETWORK)
        nodes += 1 if nodes < NODE_GPUS else nodes // 2


def filled(node: Node, gpus: int) -> Node:
    """A node of so many GPUs of the same kind; memory is all that is asked of it, so its links stay the default."""
    return Node(name=node.name, devices=(node.devices[0],) * gpus, default_link=node.default_link)
