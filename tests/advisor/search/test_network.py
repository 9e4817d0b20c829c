"""What the network must give for tensor parallelism across nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.api.question import question
from advisor.search.advise import advise
from advisor.search.network import network_need
from advisor.serving.predict import Predictor


def test_tp_across_nodes_is_first_on_a_stated_network_and_says_what_it_needs() -> None:
    asked = question(model="405b", gpu="h100-80g-sxm", gpus=8, nodes=2, network="ib-400g", users=1)
    advice = advise(Predictor(asked.problem, asked.calibration))
    assert advice.choices[0].plan.tp == 16
    need = network_need(Predictor(asked.problem, asked.calibration), advice.choices)
    assert need is not None
    assert need.other.tp == 8
    assert 0 < need.bytes_per_s < 50e9
    network = asked.problem.cluster.network
    assert network is not None
    slow = replace(asked.problem.cluster, network=replace(network, bytes_per_s=need.bytes_per_s / 2))
    assert advise(Predictor(replace(asked.problem, cluster=slow), asked.calibration)).choices[0].plan.tp == 8


@pytest.mark.parametrize("network", ["", "eth-10g"])
def test_tp_stays_inside_where_the_network_is_not_stated_or_too_slow(network: str) -> None:
    asked = question(model="405b", gpu="h100-80g-sxm", gpus=8, nodes=2, network=network, users=1)
    advice = advise(Predictor(asked.problem, asked.calibration))
    assert advice.choices[0].plan.tp == 8
    assert network_need(Predictor(asked.problem, asked.calibration), advice.choices) is None
