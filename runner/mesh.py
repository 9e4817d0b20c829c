"""The ranks of a plan and what they say to each other: every collective of the runner goes through one `Mesh`.

Payload bytes are what one rank hands over: its own tensor for all-reduce, all-gather and point-to-point, the whole input
(with what stays on the rank itself) for reduce-scatter and all-to-all. The roofline counts the same payload, so the two can be
compared call by call.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from advisor.errors import PlanError
from advisor.specs.plan import Coordinates, Plan
from runner.custom_reduce import CustomReduce
from runner.meeting import join

Axis = Literal["tp", "adp", "ep", "pp"]
AXES: tuple[Axis, ...] = ("tp", "adp", "ep", "pp")

# torch 2.13 renamed both.
GATHER: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
SCATTER: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One collective as it was given."""

    op: str
    axis: Axis
    payload_bytes: int


class Mesh:
    """Where this rank stands in the plan, its process group of each axis, and a record of every call.

    `alone` True is one rank of a larger plan with nobody else there (shard mode): calls keep the shapes right, are recorded,
    and move nothing. `recording` may be switched off for timed loops.
    """

    def __init__(self, plan: Plan, coordinates: Coordinates, *, alone: bool = False) -> None:
        self.plan, self.coordinates, self.alone = plan, coordinates, alone
        self.calls: list[Call] = []
        self.recording = True
        self._groups: dict[Axis, dist.ProcessGroup] = {}
        self._back: dist.ProcessGroup | None = None
        self._custom: CustomReduce | None = None
        self._orders: dict[int, Tensor] = {}

    @classmethod
    def single(cls) -> Mesh:
        """One process, the whole model."""
        return cls(Plan(), Plan().coordinates(0))

    @classmethod
    def shard(cls, plan: Plan, rank: int = 0) -> Mesh:
        """Rank `rank` of `plan` with nobody else there."""
        return cls(plan, plan.coordinates(rank), alone=True)

    @classmethod
    def connect(cls, plan: Plan, *, device: torch.device, time_limit_s: float = 600.0) -> Mesh:
        """Join the other ranks and build the groups of every axis.

        Raises PlanError where the world has another size than the plan, MachineError where the ranks do not meet in time.
        """
        limit = datetime.timedelta(seconds=time_limit_s)
        if not dist.is_initialized():
            join(device, time_limit_s)
        if dist.get_world_size() != plan.world:
            raise PlanError(f"{plan.label} has {plan.world} ranks, but {dist.get_world_size()} were started.")
        mesh = cls(plan, plan.coordinates(dist.get_rank()))
        for axis in AXES:
            if mesh.size(axis) > 1:
                mesh._groups[axis] = _own_group(plan, axis, limit)
        if plan.pp > 1:  # tokens travel back apart from the states, or two stages would wait for each other in one queue
            mesh._back = _own_group(plan, "pp", limit)
        if device.type == "cuda" and plan.tp > 1:
            mesh._custom = CustomReduce.open(mesh._groups["tp"], device)
        return mesh

    def size(self, axis: Axis) -> int:
        """Ranks along one axis."""
        return {"tp": self.plan.tp, "adp": self.plan.adp, "ep": self.plan.ep, "pp": self.plan.pp}[axis]

    @property
    def stage_rank(self) -> int:
        """This rank among all ranks of its stage."""
        return self.coordinates.adp_rank * self.plan.tp + self.coordinates.tp_rank

    @property
    def expert_rank(self) -> int:
        """Which expert group this rank belongs to."""
        return self.stage_rank // self.plan.expert_tp

    @property
    def expert_part(self) -> int:
        """Which part of each of its experts this rank holds."""
        return self.stage_rank % self.plan.expert_tp

    @property
    def is_first_stage(self) -> bool:
        """Whether this rank embeds."""
        return self.coordinates.stage == 0

    @property
    def is_last_stage(self) -> bool:
        """Whether this rank has logits."""
        return self.coordinates.stage == self.plan.pp - 1

    def all_reduce(self, x: Tensor, axis: Axis) -> Tensor:
        """The sum over the axis, on every rank. May reuse `x`."""
        if self.size(axis) == 1:
            return x
        self._record("all_reduce", axis, x)
        if self.alone:
            return x
        x = x.contiguous()
        if axis == "tp" and self._custom is not None and self._custom.takes(x):
            return self._custom.all_reduce(x)
        dist.all_reduce(x, group=self._groups[axis])
        return x

    def all_gather(self, x: Tensor, axis: Axis, *, dim: int) -> Tensor:
        """The ranks' tensors in rank order, side by side along `dim`."""
        ranks = self.size(axis)
        if ranks == 1:
            return x
        self._record("all_gather", axis, x)
        if self.alone:
            return self._with_others(x) if axis == "adp" else torch.cat([x] * ranks, dim=dim)
        out = x.new_empty((ranks, *x.shape))
        GATHER(out.view(ranks * x.shape[0], *x.shape[1:]), x.contiguous(), group=self._groups[axis])
        return torch.cat(out.unbind(0), dim=dim) if dim else out.flatten(0, 1)

    def _with_others(self, x: Tensor) -> Tensor:
        """(N, D) -> (adp N, D): tokens that the absent groups could have, this rank's with their features in another order, so that
        the router sends them to other experts.
        """
        D = x.shape[1]
        if D not in self._orders:
            groups = torch.arange(self.plan.adp, device=x.device)[:, None]
            self._orders[D] = (torch.arange(D, device=x.device)[None] + groups * max(1, D // self.plan.adp)) % D
        return x[:, self._orders[D]].transpose(0, 1).reshape(-1, D)

    def reduce_scatter(self, x: Tensor, axis: Axis) -> Tensor:
        """This rank's part, along dimension 0, of the sum over the axis."""
        ranks = self.size(axis)
        if ranks == 1:
            return x
        self._record("reduce_scatter", axis, x)
        if self.alone:
            return x[: x.shape[0] // ranks]
        out = x.new_empty((x.shape[0] // ranks, *x.shape[1:]))
        SCATTER(out, x.contiguous(), group=self._groups[axis])
        return out

    def all_to_all(self, x: Tensor, *, give: list[int] | None = None, take: list[int] | None = None) -> Tensor:
        """Along ep: rows of `x`, `give[r]` of them to rank r in rank order; back come `take[r]` rows of rank r, in rank order.

        Without counts one row goes to each rank. A rank that is alone takes the others for its equals: each sends it what it
        sends itself, over again as often as the count asks.
        """
        ranks = self.size("ep")
        if ranks == 1:
            return x
        give, take = give or [1] * ranks, take or [1] * ranks
        self._record("all_to_all", "ep", x)
        if self.alone:
            own = self.expert_rank
            return _as_equals(x[sum(give[:own]) : sum(give[: own + 1])], take)
        out = x.new_empty((sum(take), *x.shape[1:]))
        dist.all_to_all_single(out, x.contiguous(), take, give, group=self._groups["ep"])
        return out

    def send_on(self, x: Tensor) -> dist.Work | None:
        """Start handing `x` to the same place of the next stage; wait for the work before `x` is written again."""
        self._record("p2p", "pp", x)
        return None if self.alone else dist.isend(x.contiguous(), group=self._groups["pp"], group_dst=self.coordinates.stage + 1)

    def receive(self, like: Tensor) -> Tensor:
        """What the previous stage sent, written into `like`."""
        if not self.alone:
            dist.recv(like, group=self._groups["pp"], group_src=self.coordinates.stage - 1)
        return like

    def send_back(self, tokens: Tensor) -> dist.Work | None:
        """Start handing the last stage's tokens to the first stage."""
        return None if self.alone else dist.isend(tokens.contiguous(), group=self._back, group_dst=0)

    def receive_back(self, like: Tensor) -> Tensor:
        """The tokens of the last stage, on the first."""
        if not self.alone:
            dist.recv(like, group=self._back, group_src=self.plan.pp - 1)
        return like

    def _record(self, op: str, axis: Axis, x: Tensor) -> None:
        if self.recording:
            self.calls.append(Call(op=op, axis=axis, payload_bytes=x.numel() * x.element_size()))


def _as_equals(own: Tensor, take: list[int]) -> Tensor:
    """`own` once for each count, repeated or cut to it; zeros where there is nothing to repeat."""
    if not own.shape[0]:
        return own.new_zeros((sum(take), *own.shape[1:]))
    return torch.cat([own[torch.arange(count, device=own.device) % own.shape[0]] for count in take])


def _own_group(plan: Plan, axis: Axis, limit: datetime.timedelta) -> dist.ProcessGroup:
    """The group of this rank; every rank makes every group, in the same order, as torch demands."""
    own: dist.ProcessGroup | None = None
    for ranks in plan.groups(axis):
        group = dist.new_group(list(ranks), timeout=limit)
        if dist.get_rank() in ranks:
            own = group
    assert own is not None
    return own
