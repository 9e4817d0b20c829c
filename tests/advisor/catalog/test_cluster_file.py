from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog.cluster_file import cluster_data, cluster_of, cluster_text, read_cluster
from advisor.catalog.devices import load_device
from advisor.catalog.machines import load_cluster
from advisor.catalog.shipped import sheet_names
from advisor.errors import AdvisorError, ProfileError
from advisor.specs.cluster import Cluster, Device, Link, LinkKind, Network, Node, Pair

WORDS = st.text(
    alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f\x85"), min_size=1, max_size=20
)
AMOUNT = st.floats(min_value=2e8, max_value=9e13, allow_nan=False)
RATE = st.floats(min_value=1e6, max_value=1e15, allow_nan=False)


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """A shipped GPU, the same with figures of its own, or one that nobody knows."""
    device = load_device(draw(st.sampled_from(sheet_names("hardware"))))
    if draw(st.booleans()):
        device = replace(
            device, memory_bytes=draw(AMOUNT), memory_bytes_per_s=draw(RATE), power_w=draw(st.floats(1, 2000)),
            link_kind=None, link_bytes_per_s=0.0, price_usd_per_hour=draw(st.none() | st.floats(0, 100)), p2p=draw(st.booleans()),
            peak_flop_per_s=(("bf16", draw(st.floats(1e9, 1e17))),), sms=draw(st.integers(1, 500)), price_date="",
        )  # fmt: skip
    return replace(device, name=draw(WORDS)) if draw(st.booleans()) else device


@st.composite
def links(draw: st.DrawFn) -> Link:
    kind: LinkKind = draw(st.sampled_from(get_args(LinkKind)))
    return Link(kind=kind, bytes_per_s=draw(RATE), count=draw(st.integers(0, 36)), p2p=draw(st.booleans()))


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    n = draw(st.integers(1, 5))
    equal = draw(devices())
    gpus = (equal,) * n if draw(st.booleans()) else tuple(draw(devices()) for _ in range(n))
    places = draw(st.sets(st.sampled_from([(a, b) for b in range(n) for a in range(b)]))) if n > 1 else set()
    node = Node(
        name=draw(WORDS),
        devices=gpus,
        default_link=draw(links()),
        pairs=tuple(Pair(a=a, b=b, link=draw(links())) for a, b in sorted(places)),
        numa=draw(st.just(()) | st.tuples(*[st.none() | st.integers(0, 8)] * n)),
        uplinks=draw(st.sampled_from([(), (tuple(range(n)),)])),
        free_bytes=draw(st.just(()) | st.tuples(*[st.none() | st.floats(0, 1e13)] * n)),
        ids=draw(st.just(()) | st.tuples(*[WORDS] * n)),
    )
    nodes = draw(st.integers(1, 3))
    network = Network(name=draw(WORDS), bytes_per_s=draw(RATE), latency_s=draw(st.floats(0, 0.9)), rdma=draw(st.booleans()))
    return Cluster(node=node, nodes=nodes, network=network if nodes > 1 else None, assumed=draw(st.just("") | WORDS))


@given(clusters())
@settings(max_examples=150, deadline=None)
def test_a_cluster_comes_back_from_its_file_as_it_was(cluster: Cluster) -> None:
    assert cluster_of(cluster_data(cluster), origin="x") == cluster
    assert cluster_of(json.loads(cluster_text(cluster, as_json=True)), origin="x") == cluster
    assert cluster_of(yaml.safe_load(cluster_text(cluster)), origin="x") == cluster


@pytest.mark.parametrize("gpu", ["v100", "a100", "h100-nvl", "3090", "mi300x", "gb200", "gb10"])
def test_named_machines_come_back_through_files(tmp_path: Path, gpu: str) -> None:
    cluster = load_cluster(gpu=gpu, gpus=1 if gpu == "gb10" else 4, nodes=2)
    for name, as_json in (("c.yaml", False), ("c.json", True)):
        (tmp_path / name).write_text(cluster_text(cluster, as_json=as_json))
        assert read_cluster(tmp_path / name) == cluster


def test_a_short_file_that_a_person_writes() -> None:
    cluster = cluster_of({"gpu": "3090", "count": 4, "pairs": [{"gpus": [1, 0], "kind": "nvlink"}]}, origin="x")
    assert cluster.node.link(0, 1) == Link(kind="nvlink", bytes_per_s=56.25e9, count=4, p2p=True)
    assert cluster.node.link(0, 2) == Link(kind="phb", bytes_per_s=31.5e9, count=0, p2p=False)
    assert "one CPU" in cluster.assumed
    mixed = cluster_of({"gpus": ["3090", "4090", {"gpu": "4090", "memory": "47.5 GiB"}]}, origin="x")
    assert [d.name for d in mixed.node.devices] == ["rtx3090", "rtx4090", "rtx4090"]
    assert mixed.node.devices[2].memory_bytes == 47.5 * 2**30
    assert mixed.node.default_link.kind == "phb"
    assert mixed.assumed
    two = cluster_of({"gpu": "h100", "count": 8, "nodes": 2}, origin="x")
    assert two.network == load_cluster(gpu="h100", gpus=8, nodes=2).network
    sheet = cluster_of({"gpu": "3090", "count": 4, "node": "bridged-pairs", "network": "eth-10g", "nodes": 2}, origin="x")
    assert sheet.node == load_cluster(gpu="3090", gpus=4, node="bridged-pairs").node
    assert sheet.assumed == ""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "either gpu"),
        ({"gpu": "h100", "gpus": ["h100"]}, "either gpu"),
        ({"gpu": "h1oo", "count": 2}, "nearest are"),
        ({"gpus": []}, "gpus"),
        ({"gpus": ["h100"], "count": 1}, "length"),
        ({"gpu": "h100", "count": 0}, "count"),
        ({"gpu": "h100", "count": 10**9}, "count"),
        ({"gpu": "h100", "colour": "red"}, "colour"),
        ({"gpu": {"name": "mine", "memory": "8 GiB"}}, "needs bandwidth"),
        ({"gpu": {"memory": "8 GiB"}}, "needs gpu"),
        ({"gpu": {"gpu": "h100", "memory": None}}, "memory"),
        ({"gpu": {"gpu": "h100", "memory": "8"}}, "unit"),
        ({"gpu": {"gpu": "h100", "memory": "nan GiB"}}, "memory"),
        ({"gpu": "l40s", "count": 2, "pairs": [{"gpus": [0, 1], "kind": "nvlink"}]}, "bandwidth"),
        ({"gpu": "3090", "count": 2, "pairs": [{"gpus": [0, 2], "kind": "nvlink"}]}, "0-2"),
        ({"gpu": "3090", "count": 2, "pairs": [{"gpus": [1, 1], "kind": "nvlink"}]}, "1-1"),
        ({"gpu": "3090", "count": 2, "pairs": [{"gpus": [0, 1], "kind": "phb"}, {"gpus": [1, 0], "kind": "sys"}]}, "twice"),
        ({"gpu": "3090", "count": 2, "link": {"kind": "rope"}}, "kind"),
        ({"gpu": "3090", "count": 2, "numa": [0]}, "numa"),
        ({"gpu": "3090", "count": 2, "free": ["1 GiB"]}, "free"),
        ({"gpu": "3090", "count": 2, "uplinks": [[0, 1], [1]]}, "GPU 1"),
        ({"gpu": "3090", "count": 2, "uplinks": [[0, 7]]}, "GPU 7"),
        ({"gpu": "3090", "count": 2, "node": "hgx-h100"}, "not made"),
        ({"gpu": "3090", "count": 2, "network": "string"}, "network"),
        ({"gpus": ["3090", "4090"], "node": "pcie-1-socket"}, "equal"),
        ({"gpu": "3090", "nodes": 10**9}, "nodes"),
    ],
)
def test_what_a_file_cannot_mean(data: dict[str, Any], why: str) -> None:
    with pytest.raises(ProfileError, match=why) as caught:
        cluster_of(data, origin="box.yaml")
    assert str(caught.value).startswith("box.yaml")
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, text in {
        "a.yaml": "gpu: &x h100\ncount: *x",
        "b.yaml": "[",
        "c.json": "{",
        "d.json": "[]",
        "e.yaml": "gpu: !!str h100",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ProfileError, match=name):
            read_cluster(tmp_path / name)
    with pytest.raises(ProfileError, match="cannot be read"):
        read_cluster(tmp_path / "absent.yaml")


JSONISH = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2000)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["h100", "8 GiB", "nvlink"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["gpu", "gpus", "kind", "count", "memory"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.integers(0, 2**32), JSONISH)
@settings(max_examples=400, deadline=None)
def test_mutated_files_are_read_or_refused_in_a_sentence(seed: int, wrong: Any) -> None:
    rng = random.Random(seed)
    data = cluster_data(load_cluster(gpu=rng.choice(["v100", "3090", "h100"]), gpus=4, nodes=2))
    data |= {"free": ["10 GiB"] * 4, "ids": ["a", "b", "c", "d"]}
    place: Any = data
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else list(range(len(place))))
        if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.6:
            place = place[key]
            continue
        place[key] = wrong
        break
    sentence, cluster = "", None
    try:
        cluster = cluster_of(data, origin="x")
    except AdvisorError as error:
        sentence = str(error)
    assert (cluster is None) == bool(sentence)
    assert "\n" not in sentence
    assert len(sentence) < 600


def test_the_hosts_of_an_nvlink_domain_are_kept() -> None:
    rack = load_cluster(gpu="gb200", gpus=72)
    assert (rack.nodes, rack.node.host_gpus, rack.node.gpus_per_host) == (1, 4, 4)
    assert cluster_of(cluster_data(rack), origin="test") == rack
    tray = load_cluster(gpu="gb200", gpus=4)
    assert (tray.node.host_gpus, tray.node.gpus_per_host) == (0, 4)


def test_a_file_of_more_gpus_than_any_machine_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text("gpu: h100-80g-sxm\ncount: 8\nlink: {kind: nvswitch, count: 18}\nnodes: 100000\nnetwork: ib-400g\n")
    with pytest.raises(AdvisorError, match="800000 GPUs are more than any machine has"):
        read_cluster(path)
