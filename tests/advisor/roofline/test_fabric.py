"""Groups of GPUs on every kind of board: the slowest hop rules, meshes add up, shared uplinks divide."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import PlanError
from advisor.roofline.fabric import LinkGraph, _weakest_cut, group_fabric, plan_fabrics, typical_bytes_per_s
from advisor.specs.cluster import Cluster, Device, Link, LinkKind, Network, Node, Pair
from advisor.specs.plan import Plan

SLOT = 31.5e9
GPU = Device(
    name="gpu", architecture="x", vendor="nvidia", compute_capability="8.0", memory_bytes=48e9, memory_bytes_per_s=1e12,
    peak_flop_per_s=(("bf16", 1e14),), sms=100, l2_bytes=5e7, link_kind="nvlink", link_bytes_per_s=300e9, pcie_bytes_per_s=SLOT,
    p2p=True, power_w=300,
)  # fmt: skip
CUBE = {(0, 1): 1, (0, 2): 2, (0, 3): 1, (0, 7): 2, (1, 2): 1, (1, 3): 2, (1, 6): 2, (2, 3): 2,
        (2, 5): 1, (3, 4): 1, (4, 5): 2, (4, 6): 2, (4, 7): 1, (5, 6): 1, (5, 7): 2, (6, 7): 1}  # fmt: skip


def link(kind: LinkKind, rate: float = SLOT, *, p2p: bool = True) -> Link:
    return Link(kind=kind, bytes_per_s=rate, p2p=p2p)


def box(gpus: int, default: Link, pairs: dict[tuple[int, int], Link] | None = None, **more: object) -> Cluster:
    listed = tuple(Pair(a=a, b=b, link=x) for (a, b), x in (pairs or {}).items())
    return Cluster(node=Node(name="box", devices=(GPU,) * gpus, default_link=default, pairs=listed, **more))  # type: ignore[arg-type]


def switches(gpus: int = 8, each: int = 4, *, p2p: bool = True) -> Cluster:
    below = {(a, b): link("pix", p2p=p2p) for a, b in combinations(range(gpus), 2) if a // each == b // each}
    return box(gpus, link("node", p2p=p2p), below, uplinks=tuple(tuple(range(i, i + each)) for i in range(0, gpus, each)))


def test_a_switch_gives_every_group_all_of_its_links() -> None:
    hgx = box(8, link("nvswitch", 450e9))
    for group in ((0, 1), (0, 3, 5), range(8)):
        fabric = group_fabric(LinkGraph(hgx), group)
        assert (fabric.bytes_per_s, fabric.wiring) == (450e9, "switch")


def test_direct_links_of_a_mesh_add_up() -> None:
    mesh = box(4, link("nvlink", 100e9))
    assert group_fabric(LinkGraph(mesh), (0, 1)).bytes_per_s == 100e9
    assert group_fabric(LinkGraph(mesh), range(4)).bytes_per_s == 300e9
    assert group_fabric(LinkGraph(mesh), range(4)).point_bytes_per_s == 100e9


def test_a_cube_mesh_uses_all_six_links_of_each_gpu() -> None:
    cube = box(8, link("sys"), {pair: link("nvlink", count * 25e9) for pair, count in CUBE.items()})
    whole = group_fabric(LinkGraph(cube), range(8))
    assert (whole.wiring, whole.bytes_per_s, whole.peer_access) == ("cube_mesh", 150e9, False)
    assert group_fabric(LinkGraph(cube), range(4)).wiring == "mesh"
    assert group_fabric(LinkGraph(cube), range(4)).bytes_per_s == 100e9  # GPU0: 1 + 2 + 1 links of 25 GB/s inside
    assert group_fabric(LinkGraph(cube), (0, 1, 4, 5)).kind == "sys"


def test_two_bridged_pairs_are_as_slow_as_what_joins_them() -> None:
    pairs = box(4, link("sys"), {(0, 1): link("nvlink", 300e9), (2, 3): link("nvlink", 300e9)})
    assert group_fabric(LinkGraph(pairs), (0, 1)).bytes_per_s == 300e9
    whole = group_fabric(LinkGraph(pairs), range(4))
    assert (whole.kind, whole.bytes_per_s, whole.p2p) == ("sys", SLOT, False)


def test_a_chain_of_nvlinks_closes_over_its_missing_link() -> None:
    chain = box(3, link("sys"), {(0, 1): link("nvlink", 100e9), (0, 2): link("nvlink", 100e9)})
    assert group_fabric(LinkGraph(chain), range(3)).kind == "sys"


def test_peers_copy_directly_only_below_a_host_bridge() -> None:
    for kind, direct in (("pix", True), ("pxb", True), ("phb", False), ("node", False), ("sys", False)):
        fabric = group_fabric(LinkGraph(box(2, link(kind))), (0, 1))  # type: ignore[arg-type]
        assert fabric.p2p is direct
        assert fabric.peer_access
    assert not group_fabric(LinkGraph(box(2, link("pix", p2p=False))), (0, 1)).p2p


def test_four_cards_share_their_uplink_when_they_copy_through_the_host() -> None:
    assert group_fabric(LinkGraph(switches()), range(4)).bytes_per_s == SLOT
    assert group_fabric(LinkGraph(switches(p2p=False)), range(4)).bytes_per_s == pytest.approx(SLOT / 4)
    assert group_fabric(LinkGraph(switches()), range(8)).bytes_per_s == SLOT  # a ring leaves each switch once


def test_groups_of_one_plan_share_the_uplinks_they_cross() -> None:
    good, bad = Plan(tp=2, dp=4), Plan(tp=2, dp=4, gpus=(0, 4, 1, 5, 2, 6, 3, 7))
    assert plan_fabrics(LinkGraph(switches()), good).tp.bytes_per_s == SLOT
    crossed = plan_fabrics(LinkGraph(switches()), bad).tp
    assert crossed.bytes_per_s == pytest.approx(SLOT / 4)
    assert not crossed.p2p


def test_the_slower_slot_binds() -> None:
    half = box(3, link("pix"), {(0, 2): link("pix", SLOT / 2), (1, 2): link("pix", SLOT / 2)})
    assert group_fabric(LinkGraph(half), (0, 1)).bytes_per_s == SLOT
    assert group_fabric(LinkGraph(half), range(3)).bytes_per_s == SLOT / 2


def cluster_of_nodes(nodes: int = 4) -> Cluster:
    network = Network(name="ib", bytes_per_s=50e9, latency_s=2e-6, rdma=True)
    return Cluster(node=Node(name="hgx", devices=(GPU,) * 8, default_link=link("nvswitch", 450e9)), nodes=nodes, network=network)


def test_rings_leave_a_node_through_all_adapters_of_the_group() -> None:
    cluster = cluster_of_nodes()
    whole = group_fabric(LinkGraph(cluster), range(8, 24))
    assert (whole.kind, whole.nodes, whole.bytes_per_s, whole.point_bytes_per_s) == ("network", 2, 400e9, 50e9)
    assert group_fabric(LinkGraph(cluster), (3, 11)).bytes_per_s == 50e9
    assert whole.latency_s == cluster.network.latency_s > 0
    fabrics = plan_fabrics(LinkGraph(cluster), Plan(tp=8, pp=4))
    assert (fabrics.tp.kind, fabrics.pp.kind, fabrics.pp.ranks) == ("nvswitch", "network", 2)


def test_a_replica_that_straddles_nodes_is_found_among_many() -> None:
    assert plan_fabrics(LinkGraph(cluster_of_nodes()), Plan(tp=4, dp=8)).tp.nodes == 1
    assert plan_fabrics(LinkGraph(cluster_of_nodes()), Plan(tp=3, dp=10)).tp.nodes == 2


def test_groups_that_are_none_and_plans_that_are_too_large_are_refused() -> None:
    for group in ((), (0, 0), (0, 9), (-1, 0)):
        with pytest.raises(PlanError, match="no group"):
            group_fabric(LinkGraph(box(8, link("sys"))), group)
    with pytest.raises(PlanError, match="needs 16 GPUs"):
        plan_fabrics(LinkGraph(box(8, link("sys"))), Plan(tp=16))


def test_the_cost_does_not_grow_with_replicas() -> None:
    huge = cluster_of_nodes(10_000)
    assert plan_fabrics(LinkGraph(huge), Plan(tp=2, dp=40_000)).tp.kind == "nvswitch"


KINDS: list[LinkKind] = ["nvlink", "pix", "pxb", "phb", "node", "sys"]


@given(st.lists(st.sampled_from(KINDS), min_size=15, max_size=15), st.integers(2, 6), st.floats(1.0, 4.0))
def test_more_bandwidth_never_slows_a_group_and_the_fabric_is_never_better_than_all_links(
    kinds: list[LinkKind], size: int, factor: float
) -> None:
    ends = list(combinations(range(6), 2))

    def build(scale: float) -> Cluster:
        rates = {"nvlink": 50e9}
        return box(6, link("sys", SLOT * scale), {e: link(k, rates.get(k, SLOT) * scale) for e, k in zip(ends, kinds, strict=True)})

    group = range(size)
    slow, fast = group_fabric(LinkGraph(build(1.0)), group), group_fabric(LinkGraph(build(factor)), group)
    assert fast.bytes_per_s >= slow.bytes_per_s * 0.999
    links = [build(1.0).node.link(a, b) for a, b in combinations(group, 2)]
    assert slow.bytes_per_s <= max(sum(x.bytes_per_s for x in links), SLOT) + 1
    assert min(typical_bytes_per_s(x) for x in links) > 0


@pytest.mark.parametrize(
    ("edges", "cut"),
    [
        ({(0, 1): 3.0}, 3.0),
        ({(0, 1): 1.0, (1, 2): 1.0, (2, 3): 1.0, (0, 3): 1.0}, 2.0),  # a ring
        ({(0, 1): 5.0, (1, 2): 1.0, (2, 3): 5.0}, 1.0),  # two pairs with a weak bridge
        ({(0, 1): 2.0, (0, 2): 2.0, (1, 2): 7.0}, 4.0),  # the corner with the least
        (  # the example of the paper: {3, 4, 7, 8} against the others
            {(0, 1): 2, (0, 4): 3, (1, 2): 3, (1, 4): 2, (1, 5): 2, (2, 3): 4, (2, 6): 2, (3, 6): 2, (3, 7): 2, (4, 5): 3,
             (5, 6): 1, (6, 7): 3},
            4.0,
        ),
    ],
)  # fmt: skip
def test_the_weakest_cut_by_hand(edges: dict[tuple[int, int], float], cut: float) -> None:
    n = 1 + max(max(edge) for edge in edges)
    weights = [[edges.get((min(a, b), max(a, b)), 0.0) for b in range(n)] for a in range(n)]
    assert _weakest_cut(weights) == cut


def test_a_mesh_of_links_is_as_wide_as_what_a_gpu_has_in_all() -> None:
    """Seven xGMI links of 64 GB/s: a pair has one, four GPUs three each, eight all seven; no more than the sheet's sum."""
    mesh = box(8, link("xgmi", 64e9))
    mesh = replace(mesh, node=replace(mesh.node, devices=(replace(GPU, link_bytes_per_s=448e9),) * 8))
    graph = LinkGraph(mesh)
    assert [group_fabric(graph, range(n)).bytes_per_s for n in (2, 4, 8)] == [64e9, 192e9, 448e9]
    tight = LinkGraph(replace(mesh, node=replace(mesh.node, devices=(replace(GPU, link_bytes_per_s=256e9),) * 8)))
    assert group_fabric(tight, range(8)).bytes_per_s == 256e9


def test_one_gpu_is_a_group_without_a_wire() -> None:
    alone = group_fabric(LinkGraph(switches()), (3,))
    assert (alone.ranks, alone.nodes, alone.wiring, alone.peer_access) == (1, 1, "single", True)


def test_stages_send_over_the_slowest_hop_between_neighbours() -> None:
    """Four GPUs in a row, the middle pair far apart: tp=1 pp=4 is as slow as that hop, and as a hop of two."""
    row = box(4, link("sys", SLOT / 2), {(0, 1): link("pix"), (2, 3): link("pix")})
    fabrics = plan_fabrics(LinkGraph(row), Plan(pp=4))
    assert (fabrics.pp.kind, fabrics.pp.ranks, fabrics.pp.bytes_per_s) == ("sys", 2, SLOT / 2)
    assert plan_fabrics(LinkGraph(row), Plan(pp=2, dp=2)).pp.kind == "pix"
    assert plan_fabrics(LinkGraph(row), Plan(tp=4)).pp.ranks == 1


def test_a_ring_takes_the_best_worst_hop() -> None:
    """Three cards below one switch and one beside: the ring crosses the host twice, whichever way it goes."""
    graph = LinkGraph(box(4, link("phb"), {(a, b): link("pix") for a, b in combinations(range(3), 2)}))
    assert group_fabric(graph, range(3)).kind == "pix"
    whole = group_fabric(graph, range(4))
    assert (whole.kind, whole.p2p, whole.peer_access, whole.ranks) == ("phb", False, True, 4)
    pair = group_fabric(graph, (0, 3))
    assert (pair.kind, pair.point_bytes_per_s) == ("phb", SLOT)
