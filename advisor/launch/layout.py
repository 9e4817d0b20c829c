"""Which servers a plan needs, and which GPUs of which nodes each of them gets.

A server is one endpoint. It holds one replica, or all replicas of a node where the engine balances between them itself; a
replica larger than a node makes a server that spans nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advisor.errors import PlanError
from advisor.specs.cluster import Cluster
from advisor.specs.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One endpoint: `replicas` inside it, the `nodes` it spans (its head first), and its GPUs of each, in rank order.

    A node is what one operating system runs: a tray where an NVLink domain is made of several.
    """

    index: int
    replicas: int
    nodes: tuple[int, ...]
    gpus: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What a server's command depends on: the nodes it spans, the GPUs on each, and the replicas inside it."""

    nodes: int
    gpus_per_node: int
    replicas: int


def servers(cluster: Cluster, plan: Plan, *, rank_order: Sequence[int], joined: bool) -> tuple[Server, ...]:
    """The servers of `plan`. `rank_order` has the plan's ranks of one replica in the engine's order.

    `joined`: the engine holds several replicas of a node in one server. Raises PlanError where a replica's ranks do not lie on
    its nodes in blocks of one size, which is the only way the engines place them.
    """
    each = cluster.node.gpus_per_host
    size = plan.replica_gpus
    placed = [tuple(plan.gpu(r * size + k) for k in rank_order) for r in range(plan.dp)]
    used = [gpu for gpus in placed for gpu in gpus]
    if len(set(used)) != len(used) or min(used) < 0 or max(used) >= cluster.gpus:
        raise PlanError(f"the placement of {plan.label} names GPUs twice or beyond the {cluster.gpus} of the cluster.")
    found: list[Server] = []
    for gpus in placed:
        nodes, local = _blocks(gpus, each, plan)
        last = found[-1] if found else None
        if joined and last and len(nodes) == 1 and last.nodes == nodes:
            found[-1] = Server(index=last.index, replicas=last.replicas + 1, nodes=nodes, gpus=(last.gpus[0] + local[0],))
        else:
            found.append(Server(index=len(found), replicas=1, nodes=nodes, gpus=local))
    return tuple(found)


def span(server: Server) -> Span:
    """What the server's command depends on."""
    return Span(nodes=len(server.nodes), gpus_per_node=len(server.gpus[0]), replicas=server.replicas)


def _blocks(gpus: tuple[int, ...], each: int, plan: Plan) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    nodes: list[int] = []
    local: list[list[int]] = []
    for gpu in gpus:
        node, index = divmod(gpu, each)
        if not nodes or nodes[-1] != node:
            nodes.append(node)
            local.append([])
        local[-1].append(index)
    if len(set(nodes)) != len(nodes) or len({len(block) for block in local}) != 1:
        raise PlanError(
            f"the ranks of a replica of {plan.label} do not lie on their nodes in equal blocks, as the engine starts them; "
            "choose degrees whose product divides the GPUs of a node."
        )
    return tuple(nodes), tuple(tuple(block) for block in local)
