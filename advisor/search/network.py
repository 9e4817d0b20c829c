"""What the network between nodes must give, where tensor parallelism crosses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from advisor.search.certainty import objective
from advisor.serving.predict import Predictor
from advisor.specs.advice import NetworkNeed
from advisor.specs.prediction import Prediction

NEAR = 1.1  # the bandwidth is found to within a tenth: networks differ by factors of two
LEAST = 1e-3  # of the network's bandwidth is the least that is looked at


def network_need(predictor: Predictor, choices: Sequence[Prediction]) -> NetworkNeed | None:
    """The bandwidth below which the best plan whose tp stays inside a node overtakes the first, whose tp does not.

    None where the first plan's tp stays inside a node, or where there is no such other plan. By bisection over the bandwidth of
    the network; its latency and kind stay.
    """
    problem = predictor.problem
    network, node = problem.cluster.network, len(problem.cluster.node.devices)
    inside = [p for p in choices if p.plan.tp <= node]
    if network is None or not choices or choices[0].plan.tp <= node or not inside:
        return None
    first, other = choices[0], inside[0]

    def ahead(bytes_per_s: float) -> bool:
        slower = replace(problem, cluster=replace(problem.cluster, network=replace(network, bytes_per_s=bytes_per_s)))
        pair = [predictor.about(slower).screen(p.plan) for p in (first, other)]
        return objective(pair[0], problem.workload).value < objective(pair[1], problem.workload).value

    low, high = network.bytes_per_s * LEAST, network.bytes_per_s
    if ahead(low):
        return NetworkNeed(bytes_per_s=0.0, rdma=network.rdma, other=other.plan)
    while high > low * NEAR:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if ahead(middle) else (middle, high)
    return NetworkNeed(bytes_per_s=high, rdma=network.rdma, other=other.plan)
