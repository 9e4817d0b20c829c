"""The probe's page: matrix, drawing and verdict of the machines people have."""
# ruff: noqa: E501  (tables and texts are data)

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from advisor.api.question import question
from advisor.catalog.machines import cluster_data, load_device
from advisor.probe.nvidia_smi import read_topology_text
from advisor.probe.readings import Readings
from advisor.probe.topology import cluster_from
from advisor.report.screen import Screen
from advisor.report.topology import data, page, verdict
from advisor.search.place import Placer
from advisor.specs.cluster import Cluster
from advisor.specs.plan import Plan


def machine(n: int, cell: dict[tuple[int, int], str], other: str, gpu: str) -> tuple[Readings, Cluster | None]:
    rows = [["X" if a == b else cell.get((min(a, b), max(a, b)), other) for b in range(n)] for a in range(n)]
    text = "\n".join(["\t" + "\t".join(f"GPU{i}" for i in range(n)), *(f"GPU{i}\t" + "\t".join(r) for i, r in enumerate(rows))])
    readings = read_topology_text(text)
    return readings, cluster_from(readings, [], device=load_device(gpu)) if gpu else None


def tier(n: int, each: int, near: str) -> dict[tuple[int, int], str]:
    return {(a, b): near for a, b in combinations(range(n), 2) if a // each == b // each}


CUBE = {(0, 1): "NV1", (0, 2): "NV2", (0, 3): "NV1", (0, 7): "NV2", (1, 2): "NV1", (1, 3): "NV2", (1, 6): "NV2", (2, 3): "NV2",
        (2, 5): "NV1", (3, 4): "NV1", (4, 5): "NV2", (4, 6): "NV2", (4, 7): "NV1", (5, 6): "NV1", (5, 7): "NV2", (6, 7): "NV1"}  # fmt: skip
WORDS = [
    (8, {}, "NV18", "h100-80g-sxm", ["All 8 GPUs are joined by NVLink through a switch", "360 GB/s", "any tp up to 8"]),
    (4, {}, "NV4", "a100-40g-sxm", ["each pair by its own links", "240 GB/s"]),
    (4, {(0, 1): "NV12", (2, 3): "NV12"}, "SYS", "a100-80g-pcie", ["GPUs 0-1 and 2-3 are NVLink pairs", "about 11 GB/s", "keep tp <= 2", "replicas across pairs"]),
    (4, {(0, 3): "NV4", (1, 2): "NV4"}, "SYS", "rtx-a6000", ["GPUs 0,3 and 1-2 are NVLink pairs"]),
    (4, {(2, 3): "NV4"}, "NODE", "rtx3090", ["GPUs 2-3 are one NVLink pair", "GPUs 0 and 1 have no NVLink"]),
    (8, CUBE, "SYS", "v100-32g-sxm", ["cube mesh", "within 0-3 and 4-7", "tp=8 still runs over rings"]),
    (8, tier(8, 4, "PIX"), "SYS", "l40s", ["GPUs 0-3 and 4-7 copy directly below PCIe switches at about 24 GB/s", "keep tp <= 4", "4 GPUs share one uplink"]),
    (4, tier(4, 4, "PIX"), "SYS", "rtx4090", ["no peer access"]),
    (4, tier(4, 2, "NODE"), "SYS", "l40s", ["through host memory", "GPUs 0-1 and 2-3 are nearest (NODE)"]),
    (3, {(0, 1): "NV6", (0, 2): "NV6"}, "SYS", "h100-80g-sxm", ["a chain", "missing link"]),
    (2, {}, "SYS", "", ["the two GPUs reach each other through host memory"]),
    (1, {}, "", "t4", ["one GPU"]),
]  # fmt: skip


@pytest.mark.parametrize(("n", "cell", "other", "gpu", "words"), WORDS)
def test_the_verdict_says_what_the_links_mean(
    n: int, cell: dict[tuple[int, int], str], other: str, gpu: str, words: list[str]
) -> None:
    readings, cluster = machine(n, cell, other, gpu)
    said = " ".join(verdict(readings, cluster))
    for word in words:
        assert word in said


@pytest.mark.parametrize(("n", "cell", "other", "gpu", "words"), WORDS)
def test_the_page_fits_and_colours_only_where_asked(
    n: int, cell: dict[tuple[int, int], str], other: str, gpu: str, words: list[str]
) -> None:
    readings, cluster = machine(n, cell, other, gpu)
    plain = page(readings, cluster)
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 100
    assert page(readings, cluster, screen=Screen(blocks=False)).isascii()
    if n > 1:
        assert "\x1b[" in page(readings, cluster, screen=Screen(colour=True))


def test_sixteen_gpus_fit_the_page() -> None:
    readings, cluster = machine(16, tier(16, 4, "PIX"), "NODE", "l40s")
    assert max(map(len, page(readings, cluster).splitlines())) <= 100


def test_the_data_is_the_key_and_null_where_unknown() -> None:
    readings, cluster = machine(4, {(0, 3): "NV4", (1, 2): "NV4"}, "SYS", "rtx-a6000")
    assert cluster is not None
    found = data(readings, cluster, cluster_data(cluster))
    assert found["islands"] == [[0, 3], [1, 2]]
    assert (found["best_link"], found["worst_link"], found["best_pairs"]) == ("NV4", "SYS", [[0, 3], [1, 2]])
    assert found["matrix"][0] == ["X", "SYS", "SYS", "NV4"]
    assert found["gpus"][0]["name"] is None
    assert found["driver"] is None
    assert found["cluster"]["pairs"]


def test_in_a_mixed_box_the_groups_are_the_equal_gpus_that_recommend_launches() -> None:
    readings, box = machine(6, tier(6, 3, "PHB"), "SYS", "rtx3090")
    assert box is not None
    three, four = load_device("rtx3090"), load_device("rtx4090")
    mixed = replace(box, node=replace(box.node, devices=(three, four, three, three, four, three)))
    assert any("GPUs 0,2 and 3,5 are nearest" in sentence for sentence in verdict(readings, mixed))
    asked = question(model="qwen3-32b", dtype="int4-awq", cluster=mixed, users=8)
    placed = Placer(asked.problem).placed(Plan(tp=2, dp=3)).gpus
    assert {frozenset(placed[i : i + 2]) for i in (0, 2, 4)} == {frozenset({0, 2}), frozenset({3, 5}), frozenset({1, 4})}
