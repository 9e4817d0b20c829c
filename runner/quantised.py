"""A weight matrix in the number format of its part, multiplied with the kernel torch has for it.

16-bit and 32-bit formats are plain. fp8: e4m3 with one scale a row of weights and of activations (`torch._scaled_mm`). int8:
weights and activations (`torch._int_mm`). Weight-only int8 and int4: torch's packed kernels. Others have no kernel in torch and
are refused: a matrix in another format would measure something else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from advisor.errors import QuestionError

PLAIN = ("bf16", "fp16", "fp32")
FP8 = torch.float8_e4m3fn
FP8_LARGEST = torch.finfo(FP8).max
INT4_GROUP = {"int4": 128, "int4-g32": 32}
INT8_MIN_ROWS = 32  # torch._int_mm on CUDA wants more than 16 rows


class Matrix(nn.Module):
    """W of (N, D): y = x W^T + b."""

    weight: Tensor
    scale: Tensor

    def __init__(self, rows: int, columns: int, *, weights: str, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.rows, self.columns, self.format, self.dtype = rows, columns, weights, dtype
        if weights in PLAIN:
            self._buffer("weight", (rows, columns), dtype, device)
        elif weights in ("fp8", "fp8-block"):
            self._buffer("weight", (rows, columns), FP8, device)
            self._buffer("scale", (1, rows), torch.float32, device)
        elif weights in ("int8", "int8-wo"):
            self._buffer("weight", (rows, columns), torch.int8, device)
            self._buffer("scale", (rows,), dtype, device)
        elif weights in INT4_GROUP:
            self._int4_buffers(device)
        else:
            raise QuestionError(
                f"torch has no kernel that multiplies {weights} weights, so the runner cannot time them; "
                "measure with --dtype bf16, fp8 or int4, or with --engine vllm."
            )

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.register_buffer(name, torch.zeros(shape, dtype=dtype, device=device))

    def _int4_buffers(self, device: torch.device) -> None:
        self.group = INT4_GROUP[self.format]
        if self.columns % self.group or self.rows % 16:
            raise QuestionError(
                f"a shard of {self.rows} x {self.columns} does not pack in int4 groups of {self.group}; use a smaller tp."
            )
        self._buffer("weight", (self.rows, self.columns // 2), torch.uint8, device)
        self._buffer("scale", (self.columns // self.group, self.rows, 2), self.dtype, device)

    def put(self, whole: Tensor) -> None:
        """Take the dense matrix and keep it in the format."""
        if self.format in PLAIN:
            self.weight.copy_(whole)
        elif self.format in ("fp8", "fp8-block"):
            scale = whole.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / FP8_LARGEST
            self.weight.copy_((whole.float() / scale).to(FP8))
            self.scale.copy_(scale.t())
        elif self.format in ("int8", "int8-wo"):
            scale = whole.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
            self.weight.copy_((whole.float() / scale).round())
            self.scale.copy_(scale[:, 0])
        else:
            self._put_int4(whole)

    def _put_int4(self, whole: Tensor) -> None:
        """Asymmetric groups along the input: w = (q - 8) * scale + zero, q in 0..15 (torch's tinygemm convention)."""
        groups = whole.float().view(self.rows, -1, self.group)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        scale = ((high - low) / 15).clamp(min=1e-9)
        codes = ((groups - low) / scale).round().clamp(0, 15).to(torch.int32).view(self.rows, self.columns)
        zero = low + 8 * scale
        self.scale.copy_(torch.stack((scale[..., 0].t(), zero[..., 0].t()), dim=-1))
        if whole.is_cuda:
            pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)
            packed = torch._convert_weight_to_int4pack(pairs, 8 if self.columns % 128 == 0 else 2)
        else:
            packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
        self.weight = packed

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., D) -> (..., N)."""
        if self.format in PLAIN:
            return functional.linear(x, self.weight, bias)
        flat = x.reshape(-1, self.columns)
        kernel = {"fp8": self._fp8, "fp8-block": self._fp8, "int8": self._int8, "int8-wo": self._int8_weight_only}
        y = kernel.get(self.format, self._int4)(flat)
        return (y if bias is None else y + bias).view(*x.shape[:-1], self.rows)

    def _fp8(self, x: Tensor) -> Tensor:
        codes, scale = quantise_rows(x)
        return self.product(codes, scale).to(x.dtype)

    def product(self, codes: Tensor, scale: Tensor) -> Tensor:
        """fp8 codes (M, D) with a scale a row -> (M, N) in bf16. Sums in the tensor core's own width, as engines do."""
        return torch._scaled_mm(
            codes, self.weight.t(), scale_a=scale, scale_b=self.scale, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    def _int8(self, x: Tensor) -> Tensor:
        scale = x.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        codes = (x.float() / scale).round().to(torch.int8)
        missing = max(0, INT8_MIN_ROWS - x.shape[0])
        summed = torch._int_mm(functional.pad(codes, (0, 0, 0, missing)), self.weight.t())[: x.shape[0]]
        return (summed * scale * self.scale.float()).to(x.dtype)

    def _int8_weight_only(self, x: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(x, self.weight, self.scale)

    def _int4(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return torch._weight_int4pack_mm(x, self.weight, self.group, self.scale)
        return torch._weight_int4pack_mm_for_cpu(x, self.weight, self.group, self.scale)


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """fp8 codes of (M, D) and one fp32 scale a row."""
    scale = x.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / FP8_LARGEST
    return (x.float() / scale).to(FP8), scale
