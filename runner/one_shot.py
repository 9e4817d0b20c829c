"""Small all-reduces through symmetric memory: every rank reads all others' buffers in one kernel, no ring."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LIMIT_BYTES = 512 * 1024  # beyond this a ring moves fewer bytes than everybody reading everything (PHYSICS: custom kernels' range)


class OneShot:
    """A symmetric buffer of one group and the kernel that sums it."""

    def __init__(self, buffer: Tensor, group: str) -> None:
        self._buffer, self._group = buffer, group

    @classmethod
    def open(cls, group: dist.ProcessGroup, device: torch.device) -> OneShot | None:
        """None where torch or the links do not offer it; NCCL then does the sum.

        All ranks must agree, or one would wait in a kernel that the others never start: each says whether it could.
        """
        buffer: Tensor | None = None
        try:
            import torch.distributed._symmetric_memory as symmetric

            memory: Any = symmetric
            buffer = memory.empty(LIMIT_BYTES, dtype=torch.uint8, device=device)
            memory.rendezvous(buffer, group=group.group_name)
        except (ImportError, AttributeError, RuntimeError, NotImplementedError):
            buffer = None
        able = torch.tensor([int(buffer is not None)], device=device)
        dist.all_reduce(able, op=dist.ReduceOp.MIN, group=group)
        return cls(buffer, group.group_name) if buffer is not None and bool(able.item()) else None

    def takes(self, x: Tensor) -> bool:
        """Small enough, 16-byte granules, and a type the kernel sums."""
        size = x.numel() * x.element_size()
        return size <= LIMIT_BYTES and size % 16 == 0 and x.dtype in (torch.bfloat16, torch.float32)

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over the group in a new tensor."""
        size = x.numel() * x.element_size()
        mine = self._buffer[:size].view(x.dtype).view(x.shape)
        mine.copy_(x)
        summed: Tensor = torch.ops.symm_mem.one_shot_all_reduce(mine, "sum", self._group)
        return summed
