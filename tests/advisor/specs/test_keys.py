"""Keys of coefficients: read once, refused where they are none."""

from __future__ import annotations

import pytest

from advisor.errors import ProfileError
from advisor.specs.calibration import Calibration
from advisor.specs.keys import KernelKey, ScaleKey, WireKey
from advisor.specs.wire import from_data, to_data


@pytest.mark.parametrize(
    ("kind", "text", "key"),
    [
        (KernelKey, "gemm/fp8-block", KernelKey("gemm", "fp8-block")),
        (KernelKey, "stream", KernelKey("stream")),
        (KernelKey, "experts/mxfp4/vllm", KernelKey("experts", "mxfp4", "vllm")),
        (WireKey, "all_reduce/nccl/nvswitch/8", WireKey("all_reduce", "nccl", "nvswitch", 8)),
        (WireKey, "p2p/nccl/network/2/1", WireKey("p2p", "nccl", "network", 2, 1)),
        (ScaleKey, "decode", ScaleKey("decode")),
        (ScaleKey, "prefill/blackwell/fp8", ScaleKey("prefill", "blackwell", "fp8")),
    ],
)
def test_a_key_is_read_and_written_as_files_have_it(kind: type[KernelKey | WireKey | ScaleKey], text: str, key: object) -> None:
    assert kind.parse(text) == key
    assert str(key) == text


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        (KernelKey, "gemm/bf16/vllm/8", "write kind/format"),
        (KernelKey, "gemm/", "write kind/format"),
        (WireKey, "all_reduce/nccl/nvswitch", "write op/algorithm"),
        (WireKey, "all_reduced/nccl/nvswitch/8", "write op/algorithm"),
        (WireKey, "all_reduce/nccl/carrier-pigeon/8", "write op/algorithm"),
        (WireKey, "all_reduce/nccl/nvswitch/four", "number of ranks"),
        (WireKey, "all_reduce/nccl/nvswitch/0", "number of ranks"),
        (ScaleKey, "decoding", "part one of decode, prefill"),
        (ScaleKey, "decode//fp8", "not a part of a step"),
    ],
)
def test_what_is_no_key_is_refused(kind: type[KernelKey | WireKey | ScaleKey], text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        kind.parse(text)


def test_a_file_with_a_wrong_key_is_refused_with_its_place() -> None:
    sound = to_data(Calibration(name="x", device="x", version=1, date="", kernels=(), wires=()))
    line = {
        "alpha_s": 1e-6,
        "alpha_per_rank_s": 0,
        "bandwidth": 1,
        "up_to_bytes": 1,
        "provenance": {"source": "", "closeness": "device"},
    }
    with pytest.raises(ProfileError, match=r"x.yaml is not a valid Calibration file: wires.0.0: .*must end in a number of ranks"):
        from_data({**sound, "wires": [["all_reduce/nccl/nvswitch/four", line]]}, Calibration, origin="x.yaml")
