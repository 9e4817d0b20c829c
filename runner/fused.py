"""Parts of a block as few kernels: torch.compile where it is asked for, and a count of what it really compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

BACKEND = "inductor"
RECOMPILES = 64  # of one function: widths, kinds of layers and numbers of rows; beyond the limit (8) it would silently run unfused


class Fused:
    """A function of a block, plain or compiled for each number of rows it meets; its first argument is (N, D).

    One row is compiled on its own: the products are then reductions that stream the weights, tuned by coordinate descent, which
    read faster than the library's matrix product of one row (as in gpt-fast).
    """

    def __init__(self, function: Callable[..., Any], *, compiled: bool) -> None:
        self._many = self._one = function
        if compiled:
            torch._dynamo.config.recompile_limit = RECOMPILES
            self._many = torch.compile(function, dynamic=False, backend=BACKEND)
            tuned: dict[str, Any] | None = {"coordinate_descent_tuning": True} if BACKEND == "inductor" else None
            self._one = torch.compile(function, dynamic=False, backend=BACKEND, options=tuned)

    def __call__(self, x: Tensor, *rest: Any) -> Any:
        """The function's result."""
        return (self._one if x.shape[0] == 1 else self._many)(x, *rest)


def compiled_graphs() -> int:
    """How many graphs this process has compiled."""
    return int(counters["stats"]["unique_graphs"])


def why_not(device: torch.device) -> str:
    """Why torch.compile does not work on the device: it wants Triton and a C compiler there. Empty where it does."""
    before = compiled_graphs()
    try:
        torch.compile(lambda x: x * 2 + 1, backend=BACKEND)(torch.ones(16, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        return " ".join((str(error) or type(error).__name__).split())[:200]
    return "" if compiled_graphs() > before else "it compiled nothing"
