"""The examples of `docs/profiles.md` are read as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from advisor.catalog.cluster_file import read_cluster
from advisor.catalog.shipped import sheet_text
from advisor.untrusted import parse_yaml

PAGE = Path(__file__).parents[3] / "docs" / "profiles.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_hardware_example_is_the_shipped_sheet() -> None:
    text = next(example for example in EXAMPLES if example.startswith("name: l40s\n"))
    shown, shipped = (parse_yaml(t, origin="example") for t in (text, sheet_text("hardware", "l40s")))
    shown_sources = shown.pop("sources")
    assert shown_sources.items() <= shipped.pop("sources").items()
    assert shown == shipped


@pytest.mark.parametrize(("start", "gpus", "nodes"), [("gpu: rtx3090", 4, 1), ("name: the box", 3, 2)])
def test_the_cluster_examples_are_read(tmp_path: Path, start: str, gpus: int, nodes: int) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(next(example for example in EXAMPLES if example.startswith(start)))
    cluster = read_cluster(path)
    assert (len(cluster.node.devices), cluster.nodes) == (gpus, nodes)
    assert cluster.node.link(0, 1).bytes_per_s == 56.25e9
