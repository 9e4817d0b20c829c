"""Names of checkpoints, as published benchmarks write them."""

from __future__ import annotations

import pytest

from advisor.calibrate.lookup import Lookup
from advisor.calibrate.names import checkpoint, spoken_format
from advisor.calibrate.points import point_of_row
from advisor.errors import QuestionError

ROW = {
    "id": "a", "source": "s", "hardware": "h100-80g-sxm", "engine": "vllm", "engine_version": "0.19.0", "gpus": "8", "tp": "8",
    "input_tokens": "1024", "output_tokens": "512", "mode": "closed_loop", "load": "64",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "base", "experts"),
    [
        ("zhipuai/GLM-5", "glm-5", "bf16"),
        ("QuantTrio/Qwen3-235B-A22B-Instruct-2507-AWQ", "qwen3-235b-a22b", "int4"),
        ("amd/Llama-3.1-405B-Instruct-FP8-KV", "llama-3.1-405b", "fp8"),
        ("RedHatAI/Qwen3-32B-FP8-dynamic", "qwen3-32b", "fp8-block"),
        ("/workspace/DeepSeek-v3.2", "deepseek-v3.2", "fp8-block"),
        ("nvidia/Qwen3-32B-NVFP4", "qwen3-32b", "nvfp4"),
        ("amd/DeepSeek-R1-MXFP4", "deepseek-r1", "mxfp4"),
    ],
)
def test_a_requantised_copy_is_its_base_model_in_another_format(name: str, base: str, experts: str) -> None:
    found = Lookup(online=False, local=False).model(point_of_row({**ROW, "model": name}))
    assert found.name == base
    assert (found.formats.experts if found.is_moe else found.formats.ffn) == experts.removesuffix(
        "-block" if "RedHat" in name else ""
    )
    assert any(name in caveat for caveat in found.caveats)


def test_what_a_row_says_of_its_format_goes_before_the_name() -> None:
    row = {**ROW, "model": "nvidia/Qwen3-32B-NVFP4", "weight_dtype": "AutoRound INT4"}
    assert Lookup(online=False, local=False).model(point_of_row(row)).formats.ffn == "int4"
    assert spoken_format("AutoRound INT4") == "int4"


def test_qwens_own_fp8_is_block_scaled_outside_tensorrt_llm() -> None:
    row, lookup = {**ROW, "model": "Qwen/Qwen3.5-397B-A17B", "weight_dtype": "fp8"}, Lookup(online=False, local=False)
    assert lookup.model(point_of_row(row)).formats.experts == "fp8-block"
    assert lookup.model(point_of_row({**row, "engine": "trtllm"})).formats.experts == "fp8"


def test_a_name_without_a_base_stays_an_error() -> None:
    assert checkpoint("owner/Nobody-FP8").bases == ("Nobody-FP8", "Nobody")
    with pytest.raises(QuestionError, match="owner/Nobody-FP8"):
        Lookup(online=False, local=False).model(point_of_row({**ROW, "model": "owner/Nobody-FP8"}))
