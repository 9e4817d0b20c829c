"""The feed-forward blocks: dense, and mixture of experts, op for op as `roofline/ffn.py`.

Legend: `N` tokens of the step, `D` hidden, `F` width of this rank, `E` experts, `k` chosen a token, `R` = N k routed rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from advisor.errors import PlanError, QuestionError
from advisor.specs.experiment import Exchange
from advisor.specs.model import DenseFfn, ModelSpec, MoeFfn
from runner.exchange import all_to_all, own_tokens
from runner.kernels import fused_on
from runner.parallel import Build, ColumnParallel, Piece, Replicated, RowParallel, Sharded, even_rows
from runner.pointwise import Pointwise
from runner.quantised import FP8, PLAIN, quantise_rows

GROUPED_ALIGNMENT_BYTES = 16  # torch.nn.functional.grouped_mm: strides are multiples of it


class DenseShard(Sharded):
    """Gate and up as one product, activation, down; the width is cut along tp."""

    def __init__(self, build: Build, spec: ModelSpec, ffn: DenseFfn, pointwise: Pointwise, *, weights: str = "") -> None:
        super().__init__()
        self.ffn, self.pointwise = ffn, pointwise
        D, weights = spec.hidden_size, weights or spec.formats.ffn
        names = ("gate", "up") if ffn.gated else ("up",)
        rows = [even_rows(build.mesh, name, ffn.width) for name in names]
        self.gate_up = ColumnParallel(build, D, rows, weights=weights, bias=ffn.bias)
        self.down = RowParallel(build, "down", D, ffn.width, weights=weights, bias=ffn.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> this rank's part of the sum, (..., D)."""
        inner = self.gate_up(x)
        shaped = self.pointwise.gate if self.ffn.gated else self.pointwise.act
        y: Tensor = self.down(shaped(inner, self.ffn.activation))
        return y


class Experts(Sharded):
    """The experts of this rank: `E / ep` of them, each cut `expert_tp` ways; grouped products over the rows routed here, in a
    decode on a GPU our own kernels.

    Shapes depend on the number of tokens only, never on the routing, so that a decode step can be captured as a graph.
    """

    gate_up: Tensor
    down: Tensor
    gate_up_bias: Tensor
    down_bias: Tensor
    gate_up_scale: Tensor
    down_scale: Tensor

    def __init__(self, build: Build, spec: ModelSpec, ffn: MoeFfn, pointwise: Pointwise) -> None:
        super().__init__()
        self.ffn, self.pointwise = ffn, pointwise
        mesh, D = build.mesh, spec.hidden_size
        ep, split = mesh.size("ep"), mesh.plan.expert_tp
        if ffn.experts % ep or ffn.expert_width % split:
            raise PlanError(
                f"{ffn.experts} experts of width {ffn.expert_width} do not divide into ep={ep} groups cut {split} ways; "
                "choose degrees that divide them."
            )
        self.count, width = ffn.experts // ep, ffn.expert_width // split
        if width * build.dtype.itemsize % GROUPED_ALIGNMENT_BYTES:
            raise PlanError(
                f"experts of width {ffn.expert_width} cut {split} ways leave rows of {width}, which torch's grouped kernel cannot "
                f"read ({GROUPED_ALIGNMENT_BYTES} bytes at a time); use a smaller tp or a larger ep."
            )
        self.first, part = mesh.expert_rank * self.count, mesh.expert_part
        self.fp8 = spec.formats.experts in ("fp8", "fp8-block")
        if not self.fp8 and spec.formats.experts not in PLAIN:
            raise QuestionError(
                f"torch has no grouped kernel for {spec.formats.experts} experts, so the runner cannot time them; "
                "measure with --dtype bf16 or fp8, or with --engine vllm."
            )
        names = ("gate", "up") if ffn.gated else ("up",)
        cut = slice(part * width, (part + 1) * width)
        inner = len(names) * width
        self._stack("gate_up", build, (inner, D), [(n, (ffn.expert_width, D), cut, i * width) for i, n in enumerate(names)])
        down = (D, ffn.expert_width)
        self._stack("down", build, (D, width), [("down", down, cut, -1)])
        self.biased = ffn.expert_bias
        if self.biased:
            every = [
                Piece(name=f"{build.prefix}{e}.{n}.bias", shape=(ffn.expert_width,), cut=(cut,), place=(e - self.first, at))
                for e in self._mine
                for n, at in ((n, slice(i * width, (i + 1) * width)) for i, n in enumerate(names))
            ]
            self.hold("gate_up_bias", build.zeros(self.count, inner), every)
            whole = (slice(None),)
            # Only one part of an expert adds the bias: the parts are summed.
            last = [
                Piece(name=f"{build.prefix}{e}.down.bias", shape=(D,), cut=whole, place=(e - self.first, slice(None)))
                for e in self._mine
                if part == 0
            ]
            self.hold("down_bias", build.zeros(self.count, D), last)

    @property
    def _mine(self) -> range:
        return range(self.first, self.first + self.count)

    def _stack(self, name: str, build: Build, shape: tuple[int, int], parts: list[tuple[str, tuple[int, int], slice, int]]) -> None:
        """One tensor (experts, out, in). A part at row -1 is cut by columns."""
        pieces = []
        for expert in self._mine:
            for part, whole, cut, at in parts:
                size = cut.stop - cut.start
                taken = (slice(None), cut) if at < 0 else (cut, slice(None))
                rows = slice(None) if at < 0 else slice(at, at + size)
                place = (expert - self.first, rows, slice(None))
                pieces.append(Piece(name=f"{build.prefix}{expert}.{part}.weight", shape=whole, cut=taken, place=place))
        full = (self.count, *shape)
        self.pieces[name], self.shapes[name] = pieces, full
        self.register_buffer(name, torch.zeros(full, dtype=FP8 if self.fp8 else build.dtype, device=build.device))
        if self.fp8:
            self.register_buffer(f"{name}_scale", torch.ones(self.count, shape[0], dtype=torch.float32, device=build.device))

    def put(self, name: str, whole: Tensor) -> None:
        """Take the assembled experts; fp8 keeps one scale a row of each."""
        if self.fp8 and name in ("gate_up", "down"):
            for expert in range(self.count):  # one at a time: the fp32 copy of all would not fit beside them
                codes, scale = quantise_rows(whole[expert])
                getattr(self, name)[expert].copy_(codes)
                getattr(self, f"{name}_scale")[expert].copy_(scale[:, 0])
        else:
            super().put(name, whole)

    def forward(self, x: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
        """(N, D), chosen experts (N, k) and their weights (N, k) -> this rank's part of the sum, (N, D)."""
        if self._fuses(x, chosen):
            return self._fused(x, chosen, gates)
        N, k = chosen.shape
        local = chosen.flatten() - self.first
        mine = (local >= 0) & (local < self.count)
        # Rows of other ranks' experts sort behind all groups and are left out of every product.
        local = local.where(mine, self.count)
        ordered, order = local.sort(stable=True)
        ends = torch.searchsorted(ordered, torch.arange(self.count, device=x.device), right=True).to(torch.int32)
        rows = x[order // k]
        own = ordered.clamp(max=self.count - 1)
        inner = self._product("gate_up", rows, ends)
        if self.biased:
            inner = inner + self.gate_up_bias[own]
        inner = (self.pointwise.gate if self.ffn.gated else self.pointwise.act)(inner, self.ffn.activation)
        out = self._product("down", inner, ends)
        if self.biased:
            out = out + self.down_bias[own]
        out = out * gates.flatten()[order][:, None].to(out.dtype)
        out = out.masked_fill((ordered == self.count)[:, None], 0.0)  # beyond the last group nothing was written
        back = torch.empty_like(out)
        back[order] = out
        return back.view(N, k, -1).sum(dim=1)

    def _fuses(self, x: Tensor, chosen: Tensor) -> bool:
        """Whether our own kernels take the step: few enough pairs, as a decode has, and an activation that they know."""
        if not fused_on(x.device) or not self.ffn.gated:
            return False
        from runner.kernels.experts import ACTIVATIONS, MOST_PAIRS, ROWS_EACH

        return chosen.numel() <= min(MOST_PAIRS, ROWS_EACH * self.ffn.experts) and self.ffn.activation in ACTIVATIONS

    def _fused(self, x: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
        from runner.kernels.experts import experts_sum

        return experts_sum(
            x, chosen.contiguous(), gates.contiguous(), self.gate_up, self.down, first=self.first, activation=self.ffn.activation,
            scales=(self.gate_up_scale, self.down_scale) if self.fp8 else None,
            biases=(self.gate_up_bias, self.down_bias) if self.biased else None,
        )  # fmt: skip

    def _product(self, name: str, rows: Tensor, ends: Tensor) -> Tensor:
        weight = getattr(self, name)
        if not self.fp8:
            return grouped_mm(rows, weight.transpose(1, 2), ends)
        scale = getattr(self, f"{name}_scale")
        if not rows.is_cuda:  # torch has no grouped fp8 kernel for CPUs: the same codes, multiplied wide
            wide = weight.to(rows.dtype) * scale[..., None].to(rows.dtype)
            return grouped_mm(rows, wide.transpose(1, 2), ends)
        codes, row_scale = quantise_rows(rows)
        return torch._scaled_grouped_mm(
            codes, weight.transpose(1, 2), row_scale[:, 0], scale, offs=ends, out_dtype=torch.bfloat16, use_fast_accum=True
        ).to(rows.dtype)


def grouped_mm(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Rows up to `ends[e]` times (E, in, out)[e]; the name moved in torch 2.10."""
    product = getattr(functional, "grouped_mm", None) or torch._grouped_mm
    result: Tensor = product(rows, weights, offs=ends)
    return result


class MoeShard(Sharded):
    """Router, shared experts, routed experts.

    Without attention-DP every rank of the stage has the same tokens: each computes its experts' part, and the block's all-reduce
    adds the parts. With it, tokens are gathered from all attention groups and the sums scattered back (vLLM's
    default), or go to the ranks of their experts and back. `exchange` says which, and may change between steps.
    """

    def __init__(self, build: Build, spec: ModelSpec, ffn: MoeFfn, pointwise: Pointwise, *, exchange: Exchange) -> None:
        super().__init__()
        if ffn.expert_hidden:
            raise QuestionError("the runner has no latent experts (a width of their own); measure this model with --engine vllm.")
        self.ffn, self.mesh, self.exchange = ffn, build.mesh, exchange
        self.router = Replicated(build, "router", ffn.experts, spec.hidden_size, bias=ffn.router_bias)
        if ffn.correction_bias:
            piece = Piece(name=f"{build.prefix}router.correction", shape=(ffn.experts,), cut=(slice(None),), place=(slice(None),))
            # Scores differ in the fourth digit: 16 bits would choose other experts.
            self.hold("correction", torch.zeros(ffn.experts, dtype=torch.float32, device=build.device), [piece])
        if ffn.shared_width:
            dense = DenseFfn(width=ffn.shared_width, gated=ffn.gated, activation=ffn.activation)
            self.shared = DenseShard(build.at("shared"), spec, dense, pointwise)
        if ffn.shared_gate:
            self.shared_gate = Replicated(build, "shared_gate", 1, spec.hidden_size)
        self.experts = Experts(build.at("experts"), spec, ffn, pointwise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> this rank's part of the sum over tp, (N, D)."""
        y = self._sent(x) if self.exchange == "all_to_all" else self._gathered(x)
        return y + self._shared(x) if self.ffn.shared_width else y

    def _gathered(self, x: Tensor) -> Tensor:
        """This rank's part of the routed experts' sum for its group's tokens (N, D), from the tokens of all groups."""
        tokens = self.mesh.all_gather(x, "adp", dim=0)
        return self.mesh.reduce_scatter(self.experts(tokens, *self.route(tokens)), "adp")

    def _sent(self, x: Tensor) -> Tensor:
        """The same from the rows that were sent; zero for the tokens that other tp ranks of the group send."""
        own = own_tokens(self.mesh, x.shape[0])
        chosen, gates = self.route(x[own])
        y = torch.zeros_like(x)
        y[own] = all_to_all(self.mesh, x[own], chosen, gates, local_experts=self.experts.count, experts=self.experts)
        return y

    def _shared(self, x: Tensor) -> Tensor:
        y: Tensor = self.shared(x)
        return y * torch.sigmoid(self.shared_gate(x)) if self.ffn.shared_gate else y

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen experts of each token (N, k) and their weights (N, k) in fp32."""
        ffn = self.ffn
        logits = self.router(x).float()
        scores = logits.softmax(-1) if ffn.scoring == "softmax" else logits.sigmoid()
        ranked = scores + self.correction if ffn.correction_bias else scores
        if ffn.groups > 1:
            ranked = ranked.masked_fill(~self._kept(ranked), -torch.inf)
        chosen = ranked.topk(ffn.top_k, dim=-1).indices
        gates = scores.gather(-1, chosen)
        if ffn.normalise:
            gates = gates / (gates.sum(-1, keepdim=True) + (1e-20 if ffn.scoring == "sigmoid" else 0.0))
        return chosen, gates * ffn.routed_scale

    def _kept(self, ranked: Tensor) -> Tensor:
        """Experts of the best groups, (N, E) bool: a group counts its best expert (softmax) or its best two (sigmoid)."""
        ffn = self.ffn
        grouped = ranked.view(-1, ffn.groups, ffn.experts // ffn.groups)
        best = grouped.topk(2, dim=-1).values.sum(-1) if ffn.scoring == "sigmoid" else grouped.amax(-1)
        kept = torch.zeros_like(best, dtype=torch.bool).scatter(1, best.topk(ffn.groups_kept, dim=-1).indices, True)
        return kept.repeat_interleave(ffn.experts // ffn.groups, dim=1)
