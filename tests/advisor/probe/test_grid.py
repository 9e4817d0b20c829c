"""A paste of any shape is read in linear time."""

from __future__ import annotations

import contextlib

import pytest

from advisor.errors import QuestionError
from advisor.probe.nvidia_smi import read_topology_text

TABLE = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-15\nGPU1\tNV18\t X \t0-15\n"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line",
    [
        "2026-11-27 10:00:00,123 2026-11-27 10:00:00,456 2026-11-27 10:00:00,789",
        "1,2-3 " * 5000 + "x",
        "GPU 0: a" + " " * 200_000 + "b",
        '"' + " " * 200_000 + "x",
        "\x1b]" * 200_000,
        "GPU1x " * 100_000,
        "=" * 200_000,
        "0 NVIDIA" + " " * 200_000 + "x",
        "GPU[0] : Card series: a" + " " * 200_000 + "b",
        "1" * 500_000 + "g.",
    ],
    ids=range(10),
)
def test_lines_that_regular_expressions_choke_on(line: str) -> None:
    readings = read_topology_text(TABLE + line + "\n")
    assert [pair.nvlinks for pair in readings.pairs] == [18]
    with contextlib.suppress(QuestionError):
        read_topology_text(line)
