"""Where a step goes as a model is split over more GPUs: the same step for each tensor-parallel degree (Amdahl's ladder)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from advisor.roofline.memory import default_settings, rank_memory
from advisor.search.ceiling import least_ceiling, with_ceiling
from advisor.search.legal import refusal
from advisor.search.place import Placer
from advisor.serving.predict import Predictor
from advisor.specs.exploration import Ladder, LadderRung
from advisor.specs.formats import FORMATS
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTEXTS = (1024, 4096, 16384, 65536, 131072, 262144, 1048576)
MOST_RUNGS = 8


def ladder(predictor: Predictor, shapes: Iterable[Plan]) -> Ladder:
    """A rung for each tensor-parallel degree of one node, then for the replicas of `shapes` that are not among them."""
    problem, placer = predictor.problem, Placer(predictor.problem)
    workload = problem.workload
    degrees = [Plan(tp=n) for n in range(1, len(problem.cluster.node.devices) + 1)]
    legal = [plan for plan in degrees if not refusal(problem, plan)]
    plans = list(dict.fromkeys([*legal, *(replace(plan.replica(), settings=None, layer_split=()) for plan in shapes)]))[:MOST_RUNGS]
    longest = problem.model.max_context_tokens
    own = round(workload.context_tokens)
    contexts = tuple(sorted({own, *(c for c in CONTEXTS if c <= longest)}))
    settings = default_settings(problem, Plan())
    batches = tuple(b for b in BATCHES if b <= settings.max_sequences)
    prefill_tokens = workload.input_tokens - workload.prefix_cached_tokens
    context = workload.input_tokens + workload.output_tokens / 2
    compute = FORMATS[problem.model.weight_format].compute
    device = problem.cluster.device

    def rung(plan: Plan) -> LadderRung:
        plan = with_ceiling(problem, placer.placed(plan))
        memory = rank_memory(problem, plan)
        return LadderRung(
            plan=plan, fits=least_ceiling(problem, plan)[1].shortfall_bytes <= 0, memory=memory,
            decode=tuple(
                predictor.explain(plan, batch=b, context_tokens=context) for b in batches
            ),
            prefill=predictor.explain_prefill(plan, new_tokens=prefill_tokens),
            sequence_bytes=tuple(_sequence_bytes(problem, plan, tokens) for tokens in contexts),
        )  # fmt: skip

    return Ladder(
        batches=batches, contexts=contexts, context_tokens=context, prefill_tokens=prefill_tokens,
        peak_flop_per_s=device.peak(compute), memory_bytes_per_s=device.memory_bytes_per_s, rungs=tuple(map(rung, plans)),
    )  # fmt: skip


def _sequence_bytes(problem: Problem, plan: Plan, tokens: int) -> float:
    """What one sequence of `tokens` holds on the rank that limits the cache."""
    load = replace(problem.workload, input_tokens=tokens - 0.5, output_tokens=0.5, prefix_cached_tokens=0.0)
    return rank_memory(replace(problem, workload=load), plan).kv_bytes_per_token * tokens
