from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from advisor.catalog.engines import list_engines, load_engine
from advisor.catalog.shipped import sheet_names, sheet_text
from advisor.errors import ProfileError, QuestionError

POINTS = Path(__file__).parents[4] / "shared" / "measured" / "points.csv"


def test_every_profile_loads_under_its_name() -> None:
    assert {f"{e.name}-{e.version}" for e in list_engines()} == set(sheet_names("engines"))


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("vllm", "", "vllm-2025"), ("vllm", "0.6.1", "vllm-2024"), ("vLLM", "v0.19.0", "vllm-2025"),
        ("vllm", "0.5.3.post1", "vllm-2024"),
        ("vllm", "nightly-5b8c30d62b754b57", "vllm-2025"), ("vllm", "2024", "vllm-2024"), ("vllm", "2030", "vllm-2025"),
        ("trtllm", "0.17", "trtllm-2024"), ("TensorRT-LLM", "1.0.0rc3", "trtllm-2025"), ("trt-llm", "0.9.0", "trtllm-2024"),
        ("sglang", "0.4.6.post1", "sglang-2025"), ("sglang", "2024-10", "sglang-2025"), ("llama.cpp", "", "llamacpp-2024"),
        ("gpt-fast", "", "gpt-fast-2024"), ("lmdeploy", "0.2.0", "lmdeploy-2024"),
    ],
)  # fmt: skip
def test_names_and_versions_as_people_and_tables_give_them(name: str, version: str, found: str) -> None:
    engine = load_engine(name, version)
    assert f"{engine.name}-{engine.version}" == found


@pytest.mark.skipif(not POINTS.exists(), reason="the shared measurements lie beside the repository, not in it")
def test_every_engine_and_version_of_the_measured_points_has_a_profile() -> None:
    with POINTS.open() as file:
        asked = {(row["engine"], row["engine_version"] or row["date"][:4]) for row in csv.DictReader(file)}
    assert len(asked) > 20
    for name, version in asked:
        load_engine(name, version)


def test_unknown_engines_and_versions() -> None:
    with pytest.raises(QuestionError, match=r"use .*vllm"):
        load_engine("ollama")
    with pytest.raises(QuestionError, match="2025"):
        load_engine("vllm", "newer")


def test_a_profile_of_ones_own_and_impossible_figures(tmp_path: Path) -> None:
    data = yaml.safe_load(sheet_text("engines", "vllm-2025"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data | {"version": "mine"}))
    assert load_engine(str(path)).version == "mine"
    for change, why in (
        ({"host": data["host"] | {"step_s": -1.0}}, "host"),
        ({"host": data["host"] | {"overlap": 2.0}}, "overlap"),
        ({"memory": data["memory"] | {"fraction": 1.5}}, "fraction"),
        ({"page_tokens": 0}, "page_tokens"),
        ({"scales": [["decode", 0.0]]}, "scales"),
        ({"axes": 5}, "axes"),
    ):
        path.write_text(yaml.safe_dump(data | change))
        with pytest.raises(ProfileError, match=why):
            load_engine(str(path))


def test_an_unknown_all_reduce_kernel_is_refused(tmp_path: Path) -> None:
    data = yaml.safe_load(sheet_text("engines", "vllm-2025"))
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**data, "all_reduces": ["custom", "magic"]}))
    with pytest.raises(ProfileError, match="'magic' is not an all-reduce kernel, choose from custom, lamport"):
        load_engine(str(path))
