"""Chat formats: the family of a checkpoint, and names that the engines' parsers take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.catalog.chat_formats import chat_format, list_chat_formats
from advisor.catalog.models import load_model

TABLES = Path(__file__).parents[4] / "shared" / "tools" / "launch_check"
FLAGS = {
    "vllm": ("--tool-call-parser", "--reasoning-parser"),
    "sglang": ("--tool-call-parser", "--reasoning-parser"),
    "trtllm": ("--tool_parser", "--reasoning_parser"),
}


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("70b", "llama-3"), ("meta-llama/Llama-3.3-70B-Instruct", "llama-3"), ("r1", "deepseek-r1"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "deepseek-r1-distill"), ("deepseek-v3.1-nvfp4", "deepseek-v3.1"),
        ("deepseek-v3", "deepseek-v3"), ("gpt-oss-20b", "gpt-oss"), ("qwen3-32b", "qwen3"),
        ("qwen3-coder-480b-a35b", "qwen3-coder"),
        ("qwen2.5-7b", "qwen2.5"), ("mistral-nemo-12b", "mistral"), ("glm-4.5-air", "glm-4.5"),
    ],
)  # fmt: skip
def test_the_family_of_a_checkpoint(model: str, family: str) -> None:
    found = chat_format(load_model(model, online=False).spec)
    assert found is not None
    assert found.name == family


@pytest.mark.parametrize("model", ["llama-3-70b", "llama-2-70b", "gpt2", "mixtral-8x7b", "qwen3-vl-32b", "phi-4"])
def test_a_model_that_no_documentation_names_has_none(model: str) -> None:
    assert chat_format(load_model(model, online=False).spec) is None


@pytest.mark.parametrize("engine", FLAGS)
def test_every_name_is_one_that_the_engine_takes(engine: str) -> None:
    table = TABLES / f"flags_{engine}.json"
    if not table.exists():
        pytest.skip("the engines' flag tables are not beside this checkout (shared/tools/launch_check)")
    flags = {flag["flag"]: flag for flag in json.loads(table.read_text(encoding="utf-8"))["flags"]}
    tool, reasoning = (set(flags[name].get("choices") or flags[name]["values"]) for name in FLAGS[engine])
    for family in list_chat_formats():
        assert family.tool.get(engine) in {None, *tool}, family.name
        assert family.reasoning.get(engine) in {None, *reasoning}, family.name
