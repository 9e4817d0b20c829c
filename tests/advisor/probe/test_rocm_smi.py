"""`rocm-smi --showtopo`: link types, weights and hops."""
# ruff: noqa: E501  (tables and texts are data)

from __future__ import annotations

import pytest

from advisor.errors import QuestionError
from advisor.probe.nvidia_smi import read_topology_text


def text(types: list[list[str]], weights: list[list[int]], hops: list[list[int]]) -> str:
    def part(title: str, rows: list[list[object]]) -> str:
        head = " " * 7 + "".join(f"GPU{i}".ljust(13) for i in range(len(rows)))
        return "\n".join(
            [f"{title:=^80}", head, *(f"GPU{i}".ljust(7) + "".join(str(c).ljust(13) for c in r) for i, r in enumerate(rows))]
        )

    numa = "\n".join(f"GPU[{i}]\t\t: (Topology) Numa Node: {i // 2}" for i in range(len(types)))
    return "\n".join(
        [
            part(" Weight between two GPUs ", weights), part(" Hops between two GPUs ", hops), part(" Link Type between two GPUs ", types),  # type: ignore[arg-type]
            f"{' Numa Nodes ':=^80}", numa, f"{' End of ROCm SMI Log ':=^80}",
        ]
    )  # fmt: skip


def full(n: int, value: object, other: object = None) -> list[list[object]]:
    return [[0 if a == b else (value if other is None or a // 2 == b // 2 else other) for b in range(n)] for a in range(n)]


def test_an_mi300x_node_is_one_xgmi_island() -> None:
    readings = read_topology_text(text(full(8, "XGMI"), full(8, 15), full(8, 1)))  # type: ignore[arg-type]
    assert [list(i) for i in readings.islands] == [list(range(8))]
    assert readings.vendor == "amd"
    assert readings.best[0].cell == "XGMI"
    assert [g.numa for g in readings.gpus] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_weights_tell_near_xgmi_from_far() -> None:
    readings = read_topology_text(text(full(4, "XGMI"), full(4, 15, 30), full(4, 1)))  # type: ignore[arg-type]
    assert [(p.a, p.b) for p in readings.best] == [(0, 1), (2, 3)]


def test_pcie_cards_are_told_apart_by_hops() -> None:
    readings = read_topology_text(text(full(4, "PCIE"), full(4, 40, 72), full(4, 2, 3)))  # type: ignore[arg-type]
    assert readings.islands == ()
    assert (readings.pair(0, 1).cell, readings.pair(0, 2).cell) == ("PHB", "SYS")


def test_a_text_without_the_link_types_is_a_sentence() -> None:
    whole = text(full(4, "XGMI"), full(4, 15), full(4, 1))  # type: ignore[arg-type]
    with pytest.raises(QuestionError, match="Link Type"):
        read_topology_text(whole.split("=" * 26 + " Link Type")[0].replace("Link Type between two GPUs", ""))


def test_a_missing_row_is_filled_from_the_other_half() -> None:
    whole = text(full(4, "PCIE", "XGMI"), full(4, 15), full(4, 2))  # type: ignore[arg-type]
    head, types = whole.split(" Link Type between two GPUs ")
    lines = [line for line in types.splitlines() if not line.startswith("GPU2 ")]
    readings = read_topology_text(head + " Link Type between two GPUs " + "\n".join(lines))
    assert readings.pair(2, 3).cell == "PHB"
    assert readings.pair(0, 2).cell == "XGMI"
