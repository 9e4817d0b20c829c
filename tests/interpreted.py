"""Where Triton's kernels run in tests: on a GPU where there is one, else in its interpreter. Import this before any kernel."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch")
ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton is not installed; torch's CUDA builds bring it")
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
# The interpreter's matrix products take no bf16; a GPU's fp32 products are exact ("ieee").
CLOSE = 2e-5
