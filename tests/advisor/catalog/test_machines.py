from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog.devices import device_sheet
from advisor.catalog.machines import assumed_cluster, list_networks, list_nodes, load_cluster
from advisor.catalog.nodes import build_node, carries, network_of, network_sheet
from advisor.catalog.shipped import sheet_names
from advisor.errors import QuestionError


def test_sxm_gpus_come_on_a_switch_and_nothing_is_assumed() -> None:
    for gpu, bandwidth in {"a100": 300e9, "h100": 450e9, "h200": 450e9, "b200": 900e9, "h800": 200e9}.items():
        cluster = load_cluster(gpu=gpu, gpus=8)
        assert cluster.node.default_link.kind == "nvswitch"
        assert cluster.node.default_link.bytes_per_s == bandwidth
        assert not cluster.node.pairs
        assert not cluster.assumed
        assert cluster.network is None
        assert cluster.node.numa == (0, 0, 0, 0, 1, 1, 1, 1)


def test_pcie_gpus_come_on_one_socket_up_to_four_and_on_two_beyond_and_it_is_said() -> None:
    four, eight = load_cluster(gpu="4090", gpus=4), load_cluster(gpu="4090", gpus=8)
    assert {four.node.link(a, b).kind for a in range(4) for b in range(a)} == {"phb"}
    assert eight.node.link(0, 3).kind == "node"
    assert eight.node.link(0, 4).kind == "sys"
    assert not eight.node.link(0, 4).p2p
    assert "two CPUs" in eight.assumed
    assert load_cluster(gpu="4090", gpus=8, node="pcie-2-socket").assumed == ""
    assert load_cluster(gpu="4090", gpus=1).assumed == ""


def test_bridged_pairs_and_fours() -> None:
    node = load_cluster(gpu="3090", gpus=4, node="bridged-pairs").node
    assert [(p.a, p.b, p.link.kind, p.link.bytes_per_s, p.link.count) for p in node.pairs if p.link.kind == "nvlink"] == [
        (0, 1, "nvlink", 56.25e9, 4),
        (2, 3, "nvlink", 56.25e9, 4),
    ]
    assert node.link(1, 2).kind == "sys"
    assert not node.link(1, 2).p2p
    four = load_cluster(gpu="h200-nvl", gpus=4).node
    assert {p.link.bytes_per_s for p in four.pairs} == {150e9}  # 18 links over three peers
    pair = load_cluster(gpu="h100-nvl", gpus=2).node
    assert pair.link(0, 1).bytes_per_s == 300e9
    assert pair.numa == (0, 0)  # a bridge does not span sockets


def test_the_cube_mesh_of_a_dgx_1_has_six_links_a_gpu_and_four_neighbours() -> None:
    node = load_cluster(gpu="v100", gpus=8).node
    linked = [p for p in node.pairs if p.link.kind == "nvlink"]
    for gpu in range(8):
        mine = [p for p in linked if gpu in (p.a, p.b)]
        assert len(mine) == 4
        assert sum(p.link.count for p in mine) == 6
    assert node.link(0, 5).kind == "sys"
    assert node.link(0, 3).bytes_per_s == 50e9
    assert node.link(0, 3).count == 2


def test_behind_switches_four_share_an_uplink() -> None:
    node = load_cluster(gpu="a100-pcie", gpus=8, node="pcie-switch").node
    assert node.uplinks == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert node.link(0, 3).kind == "pxb"
    assert node.link(0, 4).kind == "sys"


def test_a_rack_is_one_domain() -> None:
    rack = load_cluster(gpu="gb200", gpus=72)
    assert (len(rack.node.devices), rack.nodes, rack.node.default_link.bytes_per_s) == (72, 1, 900e9)
    assert load_cluster(gpu="gb300", gpus=144).nodes == 2
    trays = load_cluster(gpu="gb200", gpus=4, nodes=2)
    assert (trays.nodes, len(trays.node.devices)) == (1, 8)
    assert "one NVLink domain" in trays.assumed
    apart = load_cluster(gpu="gb200", gpus=4, nodes=2, network="ib-400g")
    assert (apart.nodes, len(apart.node.devices)) == (2, 4)
    assert load_cluster(gpu="gb200", gpus=72, nodes=2).nodes == 2


def test_more_gpus_than_a_node_holds_become_nodes_and_it_is_said() -> None:
    cluster = load_cluster(gpu="h100", gpus=16)
    assert (cluster.nodes, len(cluster.node.devices)) == (2, 8)
    assert "2 nodes of 8" in cluster.assumed
    assert "400 Gb/s" in cluster.assumed
    assert load_cluster(gpu="h100", gpus=12).nodes == 2
    with pytest.raises(QuestionError, match="use 16 or 24"):
        load_cluster(gpu="h100", gpus=17)
    with pytest.raises(QuestionError, match="each of 2 nodes"):
        load_cluster(gpu="h100", gpus=16, nodes=2)


def test_the_usual_network_follows_the_gpu() -> None:
    shares = {gpu: load_cluster(gpu=gpu, gpus=8, nodes=2).network for gpu in ("h100", "a100", "l40s")}
    assert [(net.name, net.bytes_per_s) for net in shares.values() if net] == [
        ("ib-400g", 50e9),
        ("ib-200g", 25e9),
        ("eth-100g", 12.5e9 / 8),  # of the node, shared by its GPUs
    ]
    other = load_cluster(gpu="h100", gpus=8, nodes=2, network="ndr")
    assert other.network is not None
    assert other.network.name == "ib-400g"
    assert "network" not in other.assumed
    with pytest.raises(QuestionError, match="add --nodes"):
        load_cluster(gpu="h100", gpus=8, network="ib-400g")


def test_interconnects_of_published_tables_are_honoured() -> None:
    assert load_cluster(gpu="h100", gpus=4, interconnect="nvlink").node.link(0, 1).bytes_per_s == 150e9  # a mesh of four
    assert load_cluster(gpu="h100", gpus=8, interconnect="nvlink").node.default_link.kind == "nvswitch"
    assert load_cluster(gpu="h100", gpus=4, interconnect="nvswitch").node.default_link.kind == "nvswitch"
    assert load_cluster(gpu="a100-pcie", gpus=2, interconnect="nvlink").node.link(0, 1).kind == "nvlink"
    assert load_cluster(gpu="a100-sxm", gpus=4, interconnect="pcie").node.default_link.kind == "phb"
    assert load_cluster(gpu="mi300x", gpus=8, interconnect="unknown").node.default_link.kind == "xgmi"
    for gpu, interconnect in (("l40s", "nvlink"), ("4090", "nvswitch"), ("h100", "token-ring")):
        with pytest.raises(QuestionError):
            load_cluster(gpu=gpu, gpus=2, interconnect=interconnect)


def test_a_node_that_a_gpu_does_not_come_in_is_refused_with_those_it_does() -> None:
    with pytest.raises(QuestionError, match="hgx-h100"):
        load_cluster(gpu="h100", gpus=8, node="dgx-v100")
    with pytest.raises(QuestionError, match="pcie-2-socket"):
        load_cluster(gpu="l40s", gpus=2, node="bridged-pairs")
    with pytest.raises(QuestionError, match=r"use bridged-fours, .*hgx-h100"):
        load_cluster(gpu="h100", gpus=8, node="hgx-h10")
    with pytest.raises(QuestionError, match="ib-400g"):
        load_cluster(gpu="h100", gpus=8, nodes=2, network="ib-500g")


@pytest.mark.parametrize(("gpus", "nodes"), [(0, 1), (-1, 1), (8, 0), (10**9, 1), (8, 10**9)])
def test_impossible_numbers(gpus: int, nodes: int) -> None:
    with pytest.raises(QuestionError):
        load_cluster(gpu="h100", gpus=gpus, nodes=nodes)


def test_every_gpu_makes_every_size_of_every_node_it_comes_in() -> None:
    for name in sheet_names("hardware"):
        device = device_sheet(name)
        for sheet in list_nodes():
            if carries(sheet, device):
                for gpus in {1, 2, 3, sheet.most} & set(range(1, sheet.most + 1)):
                    node = build_node(sheet, device, gpus)
                    assert len(node.devices) == gpus
                    assert all(p.link.bytes_per_s > 0 for p in node.pairs)
                    assert not node.numa or set(node.numa) == set(range(max(n for n in node.numa if n is not None) + 1))


def test_networks_are_plain() -> None:
    assert {"ib-100g", "ib-200g", "ib-400g", "ib-800g", "roce-400g", "eth-10g", "eth-25g", "eth-100g"} <= set(
        sheet_names("networks")
    )
    for sheet in list_networks():
        assert 1e8 <= sheet.bandwidth.value <= 1e11
    assert network_of(network_sheet("eth-10g"), gpus_of_a_node=4).bytes_per_s == 1.25e9 / 4


def test_the_assumed_machine_says_so() -> None:
    cluster = assumed_cluster()
    assert (cluster.gpus, cluster.device.name) == (8, "h100-80g-sxm")
    assert "assumed" in cluster.assumed


def test_the_cost_does_not_grow_with_the_number_of_nodes() -> None:
    load_cluster(gpu="h100", gpus=8)
    start = time.process_time()
    assert load_cluster(gpu="h100", gpus=16_384).gpus == 16_384
    assert time.process_time() - start < 0.05


@given(
    gpu=st.sampled_from(sheet_names("hardware")),
    gpus=st.integers(1, 300),
    nodes=st.integers(1, 40),
    interconnect=st.sampled_from(["", "unknown", "nvlink", "nvswitch", "pcie", "xgmi"]),
)
@settings(max_examples=300, deadline=None)
def test_any_number_is_a_cluster_of_just_so_many_or_a_sentence(gpu: str, gpus: int, nodes: int, interconnect: str) -> None:
    sentence, cluster = "", None
    try:
        cluster = load_cluster(gpu=gpu, gpus=gpus, nodes=nodes, interconnect=interconnect)
    except QuestionError as error:
        sentence = str(error)
    if cluster is None:
        assert sentence.endswith(".")
        assert "\n" not in sentence
    else:
        assert cluster.gpus == gpus * nodes
        assert cluster.node.is_uniform
        assert (cluster.network is None) == (cluster.nodes == 1)
        assert len(cluster.node.pairs) <= 120
