"""Where the time of a decode step, and of the prefill of a prompt, goes: over all stages, as the wall clock sees it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from advisor.roofline import graph
from advisor.roofline.attention import Batch
from advisor.roofline.engine_scales import memory_share
from advisor.roofline.step import StepModel
from advisor.roofline.work import Collective, Experts, Gemm, Stream
from advisor.specs.prediction import Share, StepTime

HAND_OVER = "stage hand-over"
DRAFTING = "drafting"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Passed:
    """What one stage, or several, spend on a batch: seconds by part, and what is computed and moved."""

    parts: Mapping[str, float]
    flop: float
    hbm_bytes: float
    wire_bytes: float

    @property
    def total_s(self) -> float:
        return sum(self.parts.values())


def decode_breakdown(model: StepModel, sequences: float, context_tokens: float) -> StepTime:
    """A decode step of `sequences` of a replica (with speculative decoding a verify step and the drafts after it); its parts add up
    to `StepModel.decode_s`.

    With stages the sequences are spread over micro-batches. The parts are those of one micro-batch on its way through all stages,
    or, where the slowest stage sets the pace, those of that stage for all micro-batches.
    """
    plan = model.plan
    flights = max(1, min(plan.pp, math.ceil(sequences / plan.adp)))
    batch = Batch(decodes=sequences / plan.adp / flights, context=context_tokens, queries=model.queries)
    return _step(model, batch, flights, sequences / plan.adp, sequences / plan.adp * context_tokens)


def prefill_breakdown(model: StepModel, new_tokens: float, cached_tokens: float, token_budget: float) -> StepTime:
    """The whole prefill of one prompt on an idle replica, in as many steps as the token budget makes of it.

    A step's time is linear in the tokens that are already cached, so that all steps take as long as the one in the middle.
    """
    steps = max(1, math.ceil(new_tokens / token_budget)) if model.engine.scheduler.chunked_prefill else 1
    each = new_tokens / steps
    middle = _step(model, Batch(prefills=1, new=each, past=cached_tokens + (steps - 1) / 2 * each), 1, 1.0, 0.0)
    return StepTime(
        total_s=middle.total_s * steps,
        parts=tuple(replace(part, amount=part.amount * steps) for part in middle.parts),
        flop=middle.flop * steps,
        hbm_bytes=middle.hbm_bytes * steps,
        wire_bytes=middle.wire_bytes * steps,
    )


def _step(model: StepModel, batch: Batch, flights: int, sequences: float, cached_tokens: float) -> StepTime:
    """One step: the batch through all stages, or `flights` of them through the slowest, and the engine's host time."""
    stages = [(_stage(model, stage, batch), count) for stage, count in model.stage_kinds]
    slowest = max((passed for passed, _ in stages), key=lambda passed: passed.total_s)
    way = _summed([(passed, float(count)) for passed, count in stages])
    hops_s = model.hops_s()
    if flights * slowest.total_s > way.total_s + hops_s:
        passed = _summed([(slowest, float(flights))])
        parts = dict(passed.parts)
    else:
        passed, parts = way, {**way.parts, **({HAND_OVER: hops_s} if hops_s else {})}
    gpu_s = sum(parts.values())
    parts["host"] = model.with_host_s(gpu_s, sequences, round(batch.prefills), cached_tokens) - gpu_s
    shares = tuple(Share(name=name, amount=amount) for name, amount in parts.items() if amount > 0)
    return StepTime(
        total_s=sum(s.amount for s in shares), parts=shares, flop=passed.flop, hbm_bytes=passed.hbm_bytes,
        wire_bytes=passed.wire_bytes,
    )  # fmt: skip


def _stage(model: StepModel, stage: int, batch: Batch) -> _Passed:
    """One stage. A GEMM's time is shared between "weights" and "compute" by the ideal times of reading and multiplying."""
    parts: dict[str, float] = defaultdict(float)
    flop = hbm = wire = 0.0
    for work in graph.step_work(model.problem, model.plan, stage=stage, batch=batch):
        seconds = model.work_s(work)
        flop, hbm = flop + work.flop, hbm + work.hbm_bytes
        if isinstance(work, Collective):
            wire += work.wire_bytes
            parts[work.op.replace("_", "-")] += seconds
        elif isinstance(work, Gemm | Experts):
            share = memory_share(work, model.device)
            parts["weights"] += seconds * share
            parts["compute"] += seconds * (1 - share)
        elif isinstance(work, Stream):
            parts["element-wise"] += seconds
        else:
            parts["attention compute" if batch.prefills else "KV read"] += seconds
    if stage == model.plan.pp - 1 and model.problem.speculation:
        parts[DRAFTING] += model.draft_s(batch.decodes, batch.context) + model.draft_prefill_s(batch.new, batch.past)
    gpu_s = sum(parts.values())
    launched = model.stage_s(stage, batch)
    if launched > gpu_s * 1.02:
        parts["launch"] += launched - gpu_s
    return _Passed(parts=parts, flop=flop, hbm_bytes=hbm, wire_bytes=wire)


def _summed(stages: Sequence[tuple[_Passed, float]]) -> _Passed:
    parts: dict[str, float] = defaultdict(float)
    for passed, times in stages:
        for name, seconds in passed.parts.items():
            parts[name] += seconds * times
    return _Passed(
        parts=parts, flop=sum(p.flop * n for p, n in stages), hbm_bytes=sum(p.hbm_bytes * n for p, n in stages),
        wire_bytes=sum(p.wire_bytes * n for p, n in stages),
    )  # fmt: skip
