"""The feed-forward block of one layer on one rank, op for op in the order of `runner/ffn.py`.

Legend: `T` tokens of the step, `D` hidden size, `F` width, `E` experts, `t` tensor-parallel degree.
"""

from __future__ import annotations

from advisor.roofline.work import ACTIVATION_BYTES, Experts, Gemm, Stream, Work
from advisor.specs.model import DenseFfn, MoeFfn
from advisor.specs.plan import Plan


def dense_work(ffn: DenseFfn, hidden: int, weights: str, tp: int, tokens: float, *, count: float = 1) -> list[Work]:
    """Gate and up as one GEMM, activation, down."""
    T, D, F = tokens, hidden, ffn.width / tp
    inner = 2 if ffn.gated else 1
    return [
        Gemm(name="gate_up", m=T, n=inner * F, k=D, weights=weights, count=count),
        Stream(name="activation", bytes_moved=ACTIVATION_BYTES * T * F * (inner + 1), kernels=1, count=count),
        Gemm(name="down", m=T, n=D, k=F, weights=weights, count=count),
    ]


def moe_work(ffn: MoeFfn, hidden: int, weights: str, shared: str, plan: Plan, tokens: float, *, count: float = 1) -> list[Work]:
    """Router, shared experts, routed experts. `tokens` are those of one attention-DP rank; all ranks' tokens meet the experts."""
    T, D = tokens, hidden
    everyone = tokens * plan.adp
    width = ffn.expert_hidden or hidden
    works: list[Work] = [
        Gemm(name="router", m=T, n=ffn.experts, k=D, weights="bf16", count=count),
        Stream(name="route", bytes_moved=2 * ACTIVATION_BYTES * T * (ffn.experts + D), kernels=3, count=count),
    ]
    if ffn.shared_width:
        works += dense_work(DenseFfn(width=ffn.shared_width, gated=ffn.gated), hidden, shared, plan.tp, tokens, count=count)
    if ffn.expert_hidden:
        works.append(Gemm(name="latent_in", m=T, n=width, k=D, weights=shared, count=count))
        works.append(Gemm(name="latent_out", m=T, n=D, k=width, weights=shared, count=count))
    works.append(
        Experts(
            name="experts",
            tokens=everyone,
            top_k=ffn.top_k,
            experts=ffn.experts,
            local_experts=ffn.experts / plan.ep,
            hidden=width,
            width=ffn.expert_width / plan.expert_tp,
            matrices=ffn.matrices,
            weights=weights,
            count=count,
        )
    )
    return works
