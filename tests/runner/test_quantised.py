"""Quantised matrices against the plain product: each within what its format can hold."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from advisor.errors import QuestionError  # noqa: E402
from advisor.specs.formats import FORMATS  # noqa: E402
from runner.quantised import Matrix  # noqa: E402

ROWS, COLUMNS, TOKENS = 64, 256, 5
# Relative error of the result in root mean square. e4m3 has 3 fraction bits: 2^-4 / sqrt(3) = 0.036 a rounding, twice (weights and
# activations) 0.05. int8 with a scale a row of ~3 sigma at most 127: 1%. int4: 15 steps over ~5 sigma: 5 / 15 / sqrt(12) = 0.1.
LIMITS = {"bf16": 0.005, "fp8": 0.055, "fp8-block": 0.055, "int8": 0.02, "int8-wo": 0.015, "int4": 0.13, "int4-g32": 0.11}


@pytest.mark.parametrize("weights", LIMITS)
def test_products_are_close_to_the_plain_one(weights: str) -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(ROWS, COLUMNS, generator=generator).bfloat16()
    x = torch.randn(2, TOKENS, COLUMNS, generator=generator).bfloat16()
    bias = torch.randn(ROWS, generator=generator).bfloat16()
    matrix = Matrix(ROWS, COLUMNS, weights=weights, device=torch.device("cpu"), dtype=torch.bfloat16)
    matrix.put(whole)
    expected = x.float() @ whole.float().t() + bias.float()
    got = matrix(x, bias)
    assert got.shape == expected.shape
    assert (got.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt() < LIMITS[weights]


@pytest.mark.parametrize("weights", ["bf16", "fp8", "int8", "int8-wo", "int4", "int4-g32"])
def test_bytes_are_those_of_the_format(weights: str) -> None:
    """Within 4 bytes a row of scales and, in int4, a 16-bit zero where checkpoints keep four bits or none."""
    matrix = Matrix(ROWS, COLUMNS, weights=weights, device=torch.device("cpu"), dtype=torch.bfloat16)
    held = sum(b.numel() * b.element_size() for b in matrix.buffers())
    scales = 4 * ROWS + 2 * ROWS * COLUMNS / 32
    assert 0 <= held - FORMATS[weights].bytes_per_value * ROWS * COLUMNS <= scales


def test_a_format_without_a_kernel_is_refused() -> None:
    with pytest.raises(QuestionError, match="torch has no kernel that multiplies nvfp4 weights"):
        Matrix(ROWS, COLUMNS, weights="nvfp4", device=torch.device("cpu"), dtype=torch.bfloat16)
