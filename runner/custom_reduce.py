"""All-reduces through symmetric memory, the way engines do them: one shot, two shots, or in the NVSwitch.

One shot: every rank reads all others' buffers and adds, (n - 1) p bytes each, one barrier. Two shots: each adds its own part, then
gathers the other parts, 2 (n - 1) p / n bytes. Multimem: the switch adds while each reads its part, 2 p / n bytes at each GPU. As
vLLM does (`device_communicators/symm_mem.py`, `custom_all_reduce.py`): small messages in one shot, larger ones in the switch where
four or more ranks have one, in two shots elsewhere, and NCCL beyond the buffer.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

Kind = Literal["one_shot", "two_shot", "multimem"]
KINDS: tuple[Kind, ...] = ("one_shot", "two_shot", "multimem")
LIMIT_BYTES = 8 * 2**20  # of the buffer: an 8B's prefill of 1k tokens
ONE_SHOT_BYTES = 512 * 1024  # beyond this, parts move fewer bytes than everybody reading everything
SWITCH_RANKS = 4  # fewer ranks gain nothing from adding in the switch


class CustomReduce:
    """A symmetric buffer of one group and the kernels that sum it."""

    def __init__(self, buffer: Tensor, group: str, ranks: int, *, switch: bool) -> None:
        self._buffer, self._group, self.ranks, self.switch = buffer, group, ranks, switch

    @classmethod
    def open(cls, group: dist.ProcessGroup, device: torch.device) -> CustomReduce | None:
        """None where torch or the links do not offer it; NCCL then does the sum.

        All ranks must agree, or one would wait in a kernel that the others never start: each says whether it could.
        """
        buffer: Tensor | None = None
        switch = False
        try:
            import torch.distributed._symmetric_memory as symmetric

            memory: Any = symmetric
            buffer = memory.empty(LIMIT_BYTES, dtype=torch.uint8, device=device)
            handle = memory.rendezvous(buffer, group=group.group_name)
            switch = bool(handle.multicast_ptr)
        except (ImportError, AttributeError, RuntimeError, NotImplementedError):
            buffer = None
        able = torch.tensor([int(buffer is not None), int(switch)], device=device)
        dist.all_reduce(able, op=dist.ReduceOp.MIN, group=group)
        have_buffer, have_switch = able.tolist()
        if buffer is None or not have_buffer:
            return None
        return cls(buffer, group.group_name, dist.get_world_size(group), switch=bool(have_switch))

    def takes(self, x: Tensor) -> bool:
        """Small enough, parts of whole 16-byte granules for every rank, and a type the kernels sum."""
        size = x.numel() * x.element_size()
        return size <= LIMIT_BYTES and size % (16 * self.ranks) == 0 and x.dtype in (torch.bfloat16, torch.float32)

    def kind(self, size_bytes: int) -> Kind:
        """What a message of this size is summed by."""
        if size_bytes <= ONE_SHOT_BYTES:
            return "one_shot"
        return "multimem" if self.switch and self.ranks >= SWITCH_RANKS else "two_shot"

    def all_reduce(self, x: Tensor, kind: Kind | None = None) -> Tensor:
        """The sum over the group in a new tensor, or in `x`."""
        size = x.numel() * x.element_size()
        mine = self._buffer[:size].view(x.dtype).view(x.shape)
        mine.copy_(x)
        kind = kind or self.kind(size)
        if kind == "one_shot":
            summed: Tensor = torch.ops.symm_mem.one_shot_all_reduce(mine, "sum", self._group)
            return summed
        reduce = torch.ops.symm_mem.multimem_all_reduce_ if kind == "multimem" else torch.ops.symm_mem.two_shot_all_reduce_
        reduce(mine, "sum", self._group)
        return x.copy_(mine)
