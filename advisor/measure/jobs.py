"""From predicted plans to the Jobs that measure them: which cells, which rank alone, and under which name.

Legend: `B` sequences of one replica, `S` context tokens, `T` prompt tokens.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Literal

from advisor.roofline.memory import rank_memory
from advisor.serving.predict import Predictor
from advisor.specs import wire
from advisor.specs.calibration import Calibration
from advisor.specs.engine import Engine
from advisor.specs.experiment import Cell, Exchange, Job
from advisor.specs.model import ModelSpec, WeightFormats
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem

DECODE_BATCHES = (1, 16, 64)  # beside the batch the plan was ranked with
LONGER = 4  # the second context of the grid, times the workload's own
PIECE = 512  # tokens of a prompt beside decodes: the budget that vLLM's documentation of chunked prefill (0.6) found best for TPOT
PIECES_A_STAGE = 2  # so that every stage works while others do
LONGEST = 16384  # prompt tokens of a cell: attention of longer ones says nothing new about a plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan to measure, and how many sequences a replica of it runs at once (0: as the workload says)."""

    plan: Plan
    sequences: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure. `gpus` are those at hand for one job (all nodes together); with fewer than a plan needs, one rank of it
    runs alone. A plan that has no such `exchange` keeps all_gather. `machine` is the identity that `Torch` has."""

    gpus: int
    device: Literal["cuda", "cpu"] = "cuda"
    layers: int = 0
    schedule: Literal["1f1b", "naive"] = "1f1b"
    weights_dir: str = ""
    repeats: int = 10
    warmup: int = 3
    time_limit_s: float = 600.0
    stall_limit_s: float = 120.0
    exchange: Exchange = "all_gather"
    machine: str = ""


def runner_problem(problem: Problem, engine: Engine, *, device: str) -> Problem:
    """The same question to the bundled transformer: its engine profile, and a cache in its own type (fp32 on a CPU)."""
    cache = "fp32" if device == "cpu" else "bf16"
    model = replace(problem.model, kv_format=cache)
    if device == "cpu":
        model = replace(model, formats=_wide(model))
    return replace(problem, model=model, engine=engine)


def _wide(model: ModelSpec) -> WeightFormats:
    """16-bit weights as a CPU holds them."""
    plain = {
        name: "fp32" if getattr(model.formats, name) in ("bf16", "fp16") else getattr(model.formats, name)
        for name in ("attention", "ffn", "experts", "embedding", "head")
    }
    return replace(model.formats, **plain)


def job_for(problem: Problem, candidate: Candidate, settings: Settings, calibration: Calibration) -> Job:
    """The Job of one plan: `problem` is the runner's own."""
    plan, shard = candidate.plan, candidate.plan.world > settings.gpus
    job = Job(
        id="", model=problem.model, plan=plan, cells=cells_for(problem, candidate), repeats=settings.repeats,
        warmup=settings.warmup, layers=settings.layers, shard=shard, device=settings.device, schedule=settings.schedule,
        weights_dir=settings.weights_dir, time_limit_s=settings.time_limit_s, stall_limit_s=settings.stall_limit_s,
        shard_rank=slowest_rank(problem, plan, calibration) if shard else 0,
        exchange=settings.exchange if plan.sends_tokens else "all_gather", machine=settings.machine,
    )  # fmt: skip
    return named(job)


def named(job: Job) -> Job:
    """The job under the digest of what it measures, how often, and on what: the same question has the same name."""
    asked = replace(job, id="", time_limit_s=0.0, stall_limit_s=0.0, plan=replace(job.plan, settings=None))
    return replace(job, id=hashlib.sha256(wire.to_json(asked, indent=None).encode()).hexdigest()[:16])


def cells_for(problem: Problem, candidate: Candidate) -> tuple[Cell, ...]:
    """A small grid that the plan's memory holds: decode at 1, 16, 64 and its own batch, prefill of the prompt, and both longer;
    what engines really run beside them: contexts that differ, a step with a piece of a prompt, a prompt in pieces through stages.
    """
    plan, load = candidate.plan, problem.workload
    prompt = min(LONGEST, max(1, round(load.input_tokens)))
    context = max(1, round(load.input_tokens + load.output_tokens / 2))
    most = problem.model.max_context_tokens
    own = own_batch(problem, candidate)
    batches = sorted({whole_batch(b, plan) for b in (*DECODE_BATCHES, own) if b <= own} | {whole_batch(own, plan)})
    cells = [Cell(phase="decode", batch=b, context_tokens=context) for b in batches]
    if LONGER * context <= most and own >= LONGER:
        cells.append(Cell(phase="decode", batch=whole_batch(own // LONGER, plan), context_tokens=LONGER * context))
    prompts = {prompt} | ({LONGER * prompt} if LONGER * prompt <= min(most, LONGEST) else set())
    cells += [Cell(phase="prefill", batch=plan.adp, context_tokens=tokens) for tokens in sorted(prompts)]
    return (*cells, *_as_engines_run(plan, whole_batch(own, plan), context, prompt))


def _as_engines_run(plan: Plan, batch: int, context: int, prompt: int) -> tuple[Cell, ...]:
    """Mixed lengths of the plan's own batch; with one stage a piece of a prompt beside it, with several the prompt in pieces."""
    found = []
    if batch >= 2 * plan.pp * plan.adp:
        found.append(Cell(phase="decode", batch=batch, context_tokens=context, mixed_lengths=True))
    if plan.pp == 1:
        found.append(Cell(phase="mixed", batch=batch, context_tokens=context, chunk_tokens=min(PIECE, prompt)))
    elif prompt > 1:
        piece = -(-prompt // (PIECES_A_STAGE * plan.pp))
        found.append(Cell(phase="prefill", batch=plan.adp, context_tokens=prompt, chunk_tokens=piece))
    return tuple(found)


def own_batch(problem: Problem, candidate: Candidate) -> int:
    """Sequences of one replica that the plan is judged by, no more than the runner's cache holds."""
    load = problem.workload
    wanted = candidate.sequences or load.users / candidate.plan.dp or 64
    held = rank_memory(problem, candidate.plan).kv_tokens / max(1.0, load.context_tokens)
    return max(1, min(round(wanted), math.floor(held), problem.engine.max_sequences))


def whole_batch(batch: int, plan: Plan) -> int:
    """The batch rounded up so that attention-DP groups and micro-batches have equal parts."""
    own = -(-batch // plan.adp)
    flights = min(plan.pp, own)
    return -(-own // flights) * flights * plan.adp


def slowest_rank(problem: Problem, plan: Plan, calibration: Calibration) -> int:
    """A rank of the stage that the model calls slowest in decode: the one to measure where only one can be."""
    model = Predictor(problem, calibration).step_model(plan)
    stages = [model.tokens_s(s, 16) + (model.head_s(16) if s == plan.pp - 1 else 0.0) for s in range(plan.pp)]
    return stages.index(max(stages)) * plan.tp * plan.adp


def suite() -> tuple[tuple[str, Plan], ...]:
    """Models and plans of the standard table: 1B, 8B, 32B whole and one rank of a 70B at tp=8."""
    return (
        ("llama-3.2-1b", Plan()), ("llama-3.1-8b", Plan()), ("qwen3-32b", Plan()), ("llama-3.1-70b", Plan(tp=8)),
    )  # fmt: skip


SUITE_BATCHES = (1, 16, 64, 256)
SUITE_PROMPTS = (512, 4096, 16384)
SUITE_CONTEXT = 1024
SUITE_MIXED = 64


def suite_job(problem: Problem, plan: Plan, settings: Settings, calibration: Calibration) -> Job:
    """The standard table's cells for one model: decode at batch 1/16/64/256, prefill of 512/4k/16k tokens, and at batch 64 mixed
    lengths and a step with a piece of a prompt.
    """
    cells = [Cell(phase="decode", batch=b, context_tokens=SUITE_CONTEXT) for b in SUITE_BATCHES]
    cells += [Cell(phase="prefill", batch=1, context_tokens=t) for t in SUITE_PROMPTS]
    cells += _as_engines_run(plan, SUITE_MIXED, SUITE_CONTEXT, SUITE_CONTEXT)
    base = job_for(problem, Candidate(plan=plan, sequences=1), settings, calibration)
    return named(replace(base, cells=tuple(cells)))
