"""Triton kernels of the runner, each beside a plain path that computes the same. Imported only where they run: on a GPU."""

from __future__ import annotations

import importlib.util
from functools import cache

import torch


@cache
def has_triton() -> bool:
    """Whether Triton is installed; torch's CUDA builds for Linux bring it."""
    return importlib.util.find_spec("triton") is not None


def fused_on(device: torch.device) -> bool:
    """Whether the kernels run on this device."""
    return device.type == "cuda" and has_triton()


@cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU; 8 where the kernels are interpreted on a CPU."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 8
