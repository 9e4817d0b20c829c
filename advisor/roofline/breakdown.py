"""Where the time of one step goes."""

from __future__ import annotations

from collections import defaultdict

from advisor.roofline import graph
from advisor.roofline.attention import Batch
from advisor.roofline.engine_scales import memory_share
from advisor.roofline.step import StepModel
from advisor.roofline.work import Collective, Experts, Gemm, Stream
from advisor.specs.prediction import Share, StepTime


def breakdown(model: StepModel, batch: Batch) -> StepTime:
    """One step of the slowest stage and where it goes; the parts add up to the step as the wall clock sees it.

    A GEMM's time is shared between "weights" and "compute" by the ideal times of reading and multiplying.
    """
    stage = max(range(model.plan.pp), key=lambda s: model.stage_s(s, batch))
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
    gpu_s = sum(parts.values())
    launched = model.stage_s(stage, batch)
    if launched > gpu_s * 1.02:
        parts["launch"] += launched - gpu_s
        gpu_s = launched
    parts["host"] += model.with_host_s(gpu_s, batch.sequences, round(batch.prefills), batch.decodes * batch.context) - gpu_s
    shares = tuple(Share(name=name, amount=amount) for name, amount in parts.items() if amount > 0)
    return StepTime(total_s=sum(s.amount for s in shares), parts=shares, flop=flop, hbm_bytes=hbm, wire_bytes=wire)
