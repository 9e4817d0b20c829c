"""Placement: tp on the best links, pipelines along near ones, the rest idle; exact against brute force, quick, deterministic."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog.engines import load_engine
from advisor.roofline.fabric import LinkGraph, group_fabric, plan_fabrics
from advisor.search.groups import seconds
from advisor.search.layers import layer_split
from advisor.search.place import Placer
from advisor.specs.cluster import Cluster, Device, Link, LinkKind, Network, Node, Pair
from advisor.specs.model import DenseFfn, GroupedAttention, Layer, ModelSpec
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

SLOT = 31.5e9


def gpu(name: str = "a", memory: float = 48e9, rate: float = 1e12) -> Device:
    return Device(
        name=name, architecture="x", vendor="nvidia", compute_capability="8.0", memory_bytes=memory, memory_bytes_per_s=rate,
        peak_flop_per_s=(("bf16", 1e14),), sms=100, l2_bytes=5e7, link_kind="nvlink", link_bytes_per_s=300e9, pcie_bytes_per_s=SLOT,
        p2p=True, power_w=300,
    )  # fmt: skip


def link(kind: LinkKind, rate: float = SLOT) -> Link:
    return Link(kind=kind, bytes_per_s=rate)


def box(gpus: int, default: Link, pairs: dict[tuple[int, int], Link], **more: object) -> Cluster:
    devices = more.pop("devices", (gpu(),) * gpus)
    listed = tuple(Pair(a=a, b=b, link=x) for (a, b), x in pairs.items())
    return Cluster(node=Node(name="box", devices=devices, default_link=default, pairs=listed, **more))  # type: ignore[arg-type]


def put(cluster: Cluster, plan: Plan, *, split: bool = True) -> Plan:
    engine = replace(load_engine("vllm"), uneven_layers=split)
    layer = Layer(mixer=GroupedAttention(heads=64, kv_heads=8, head_dim=128), ffn=DenseFfn(width=28672))
    model = ModelSpec(name="m", source="test", hidden_size=8192, vocab_size=128256, layers=(layer,) * 80, max_context_tokens=8192)
    problem = Problem(model=model, cluster=cluster, workload=Workload(input_tokens=1024, output_tokens=512), engine=engine)
    return Placer(problem).placed(plan)


CROSSED = box(4, link("sys"), {(0, 3): link("nvlink", 56e9), (1, 2): link("nvlink", 56e9)})


def test_tp_takes_the_bridges() -> None:
    assert put(CROSSED, Plan(tp=2, dp=2)).gpus == (0, 3, 1, 2)
    assert put(CROSSED, Plan(tp=2, pp=2)).gpus == (0, 3, 1, 2)
    assert put(CROSSED, Plan(tp=2)).gpus == (0, 3)


def test_a_pipeline_of_single_gpus_follows_the_bridges() -> None:
    assert put(CROSSED, Plan(pp=2, dp=2)).gpus == (0, 3, 1, 2)


def test_the_only_bridge_is_used_and_the_others_stay_idle() -> None:
    one = box(4, link("node"), {(2, 3): link("nvlink", 56e9)})
    assert put(one, Plan(tp=2)).gpus == (2, 3)


def test_replicas_stay_below_their_switch() -> None:
    below = {(a, b): link("pix") for a, b in combinations(range(8), 2) if a % 2 == b % 2}
    odd_even = box(8, link("sys"), below, uplinks=((0, 2, 4, 6), (1, 3, 5, 7)))
    assert put(odd_even, Plan(tp=4, dp=2)).gpus == (0, 2, 4, 6, 1, 3, 5, 7)
    placed = put(odd_even, Plan(tp=2, pp=2, dp=2))
    assert {g % 2 for g in placed.gpus[:4]} in ({0}, {1})


def test_a_taken_gpu_is_left_idle() -> None:
    busy = box(4, link("pix"), {}, free_bytes=(4e9, 48e9, 48e9, 48e9))
    assert 0 not in put(busy, Plan(tp=2)).gpus


def test_equal_gpus_and_links_keep_the_order() -> None:
    assert put(box(8, link("nvswitch", 300e9), {}), Plan(tp=2, pp=2, dp=2)).gpus == ()


def test_a_plan_that_names_its_gpus_keeps_them() -> None:
    assert put(CROSSED, Plan(tp=2, gpus=(0, 1))).gpus == (0, 1)


def test_nodes_hold_whole_groups() -> None:
    network = Network(name="n", bytes_per_s=12e9, latency_s=5e-6, rdma=True)
    cluster = replace(CROSSED, nodes=3, network=network)
    placed = put(cluster, Plan(tp=2, pp=3, dp=2))
    assert sorted(placed.gpus) == list(range(12))
    for group in placed.groups("tp"):
        assert group_fabric(LinkGraph(cluster), [placed.gpu(r) for r in group]).kind == "nvlink"


MIXED = box(4, link("phb"), {}, devices=(gpu("big", 80e9, 2e12), gpu("small", 24e9), gpu("big", 80e9, 2e12), gpu("small", 24e9)))


def test_tp_is_among_equals() -> None:
    placed = put(MIXED, Plan(tp=2, dp=2))
    assert placed.gpus == (0, 2, 1, 3)


def test_layers_follow_memory_and_bandwidth_where_the_engine_can() -> None:
    placed = put(MIXED, Plan(tp=2, pp=2))
    assert sum(placed.layer_split) == 80
    big = placed.layer_split[0 if placed.gpus[0] in (0, 2) else 1]
    assert 53 < big < 68  # memory says 62, bandwidth 53
    assert put(MIXED, Plan(tp=2, pp=2), split=False).layer_split == ()
    assert layer_split(CROSSED, Plan(tp=2, pp=2, gpus=(0, 3, 1, 2)), 80) == ()


def worst(cluster: Cluster, plan: Plan) -> float:
    return max(seconds(group_fabric(LinkGraph(cluster), [plan.gpu(r) for r in group])) for group in plan.groups("tp"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["nvlink", "pix", "node", "sys"]), min_size=15, max_size=15),
    st.sampled_from([(2, 3), (3, 2), (2, 2), (4, 1)]),
)
def test_no_other_placement_has_a_better_worst_group(kinds: list[LinkKind], shape: tuple[int, int]) -> None:
    ends = list(combinations(range(6), 2))
    cluster = box(6, link("sys"), {e: link(k, 50e9 if k == "nvlink" else SLOT) for e, k in zip(ends, kinds, strict=True)})
    tp, dp = shape
    placed = put(cluster, Plan(tp=tp, dp=dp))
    best = min(worst(cluster, Plan(tp=tp, dp=dp, gpus=order)) for order in permutations(range(6), tp * dp))
    assert worst(cluster, placed) <= best * (1 + 1e-9)
    assert put(cluster, Plan(tp=tp, dp=dp)) == placed


@pytest.mark.parametrize(("gpus", "limit_s"), [(8, 0.05), (16, 0.3)])
def test_it_is_quick(gpus: int, limit_s: float) -> None:
    bridges = {(a, b): link("nvlink", 56e9) for a, b in combinations(range(gpus), 2) if a // 2 == b // 2}
    bridges |= {(a, b): link("node") for a, b in combinations(range(gpus), 2) if a // 2 != b // 2 and a // 8 == b // 8}
    for plan in (Plan(tp=2, dp=gpus // 2), Plan(tp=4, pp=gpus // 4), Plan(tp=gpus // 2, dp=2), Plan(tp=2, pp=2), Plan(pp=gpus)):
        cluster = box(gpus, link("sys"), bridges)
        start = time.process_time()
        put(cluster, plan)
        assert time.process_time() - start < 2 * limit_s  # a busy test machine is no slower search


def test_large_nodes_are_filled_by_their_links() -> None:
    below = {(a, b): link("pix") for a, b in combinations(range(32), 2) if a % 8 == b % 8}
    cluster = box(32, link("sys"), below)
    placed = put(cluster, Plan(tp=4, dp=8))
    assert plan_fabrics(LinkGraph(cluster), placed).tp.kind == "pix"


def test_of_different_gpus_the_larger_then_the_faster_are_taken_first() -> None:
    devices = (gpu("a", memory=24e9), gpu("b", memory=32e9), gpu("a", memory=24e9), gpu("b", memory=32e9))
    node = Node(name="box", devices=devices, default_link=link("phb"))
    assert put(Cluster(node=node), Plan()).gpus == (1,)
    assert put(Cluster(node=node), Plan(tp=2)).gpus == (1, 3)
    assert set(put(Cluster(node=node), Plan(pp=2)).gpus) == {1, 3}
    rates = tuple(gpu(name, memory=24e9, rate=rate) for name, rate in (("slow", 0.9e12), ("fast", 1.8e12)))
    assert put(Cluster(node=Node(name="box", devices=rates, default_link=link("phb"))), Plan()).gpus == (1,)
