"""Tokens to the ranks of their experts and back, by all-to-all: the second way beside gathering every token everywhere.

As DeepEP's normal mode (its README and `Buffer.dispatch`, `Buffer.combine`): a token is sent once to each rank that has any of
its experts, the gates go with it, that rank adds up its experts' weighted outputs, and the sums are added at home. How many rows
go where is known only after the router, so the host waits for the counts: a CUDA graph cannot capture it.

Legend: `N` tokens of this rank, `R` rows here for this rank's experts, `D` hidden, `k` chosen a token, `P` (row, expert) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

from advisor.errors import PlanError
from advisor.specs.experiment import Exchange
from advisor.specs.plan import Plan
from runner.mesh import Mesh

Phase = Literal["prefill", "decode"]
Products = Callable[[Tensor, Tensor, Tensor], Tensor]


def check_exchange(exchange: Exchange, plan: Plan) -> None:
    """Raises PlanError where the plan has no tokens to exchange, or a group does not reach every part of every expert."""
    if exchange == "all_to_all" and not plan.sends_tokens:
        raise PlanError(
            f"{plan.label} cannot exchange tokens by all_to_all, which needs adp above 1 and ep a multiple of adp, so that every "
            "attention group reaches all parts of every expert alike; use all_gather."
        )


def exchange_of(exchange: Exchange, phase: Phase, device: torch.device) -> Exchange:
    """How a phase can be exchanged: decode on a GPU is a captured graph, which has no place for counts that the host waits for."""
    return "all_gather" if phase == "decode" and device.type == "cuda" else exchange


def exchange_notes(exchange: Exchange, phases: Iterable[Phase], device: torch.device) -> tuple[str, ...]:
    """What was exchanged otherwise than asked."""
    if all(exchange_of(exchange, phase, device) == exchange for phase in phases):
        return ()
    return ("decode exchanged its tokens by all_gather: a captured graph cannot wait for the counts that all_to_all needs",)


def own_tokens(mesh: Mesh, count: int) -> slice:
    """Which of an attention group's `count` tokens this rank sends.

    Its tp ranks have the same tokens; those in line with the same part of the experts share them, and the block's all-reduce over
    tp joins tokens and parts alike.
    """
    sharing, place = mesh.plan.tp // mesh.plan.expert_tp, mesh.coordinates.tp_rank // mesh.plan.expert_tp
    return slice(count * place // sharing, count * (place + 1) // sharing)


def all_to_all(mesh: Mesh, x: Tensor, chosen: Tensor, gates: Tensor, *, local_experts: int, experts: Products) -> Tensor:
    """(N, D), chosen experts (N, k), their gates (N, k) fp32 -> the sum over expert ranks (N, D).

    `experts` computes this rank's part of the sum of any rows, as `Experts.forward`; a rank has `local_experts` of them.
    """
    N, k = chosen.shape
    first = mesh.expert_rank * local_experts
    wanted = torch.zeros(N, mesh.size("ep"), dtype=torch.bool, device=x.device).scatter_(1, chosen // local_experts, True)
    sent = wanted.sum(dim=0)
    coming = mesh.all_to_all(sent)
    give, take = torch.stack((sent, coming)).tolist()
    token = wanted.T.nonzero()[:, 1]  # by rank, then by token
    routing = torch.cat((chosen.to(torch.int32), gates.view(torch.int32)), dim=1)
    rows = mesh.all_to_all(x[token], give=give, take=take)
    routing = mesh.all_to_all(routing[token], give=give, take=take)
    chosen, gates = routing[:, :k].long(), routing[:, k:].contiguous().view(torch.float32)
    sums = _own_experts(rows, chosen, gates, slice(first, first + local_experts), experts)
    back = mesh.all_to_all(sums, give=take, take=give)
    # In fp32, as DeepEP adds; bf16 would round after each rank.
    return torch.zeros_like(x, dtype=torch.float32).index_add_(0, token, back.float()).to(x.dtype)


def _own_experts(rows: Tensor, chosen: Tensor, gates: Tensor, own: slice, experts: Products) -> Tensor:
    """The weighted sum over the experts `own` of each row (R, D); only the pairs that are here are multiplied."""
    row, slot = ((chosen >= own.start) & (chosen < own.stop)).nonzero(as_tuple=True)
    sums = torch.zeros_like(rows, dtype=torch.float32)
    if len(row):  # nobody's token may have chosen an expert of this rank
        sums.index_add_(0, row, experts(rows[row], chosen[row, slot][:, None], gates[row, slot][:, None]).float())
    return sums.to(rows.dtype)
