"""The batch ceiling and memory fraction that go with the load: the launch line sets them, so the engine's defaults need not hold.

An engine sets memory aside for the logits of as many sequences as its ceiling allows. Fewer leave more for the cache, and a ceiling
below what the cache holds leaves the cache empty.
"""

from __future__ import annotations

import math
from dataclasses import replace

from advisor.roofline.memory import context_shortfall, default_settings, largest_context, rank_memory
from advisor.specs.plan import Plan, Settings
from advisor.specs.prediction import RankMemory
from advisor.specs.problem import Problem

STEP = 8  # ceilings are multiples of it, as engines capture their graphs
MOST = 2048  # the largest ceiling that engines set by themselves (TensorRT-LLM, SGLang)


def with_ceiling(problem: Problem, plan: Plan) -> Plan:
    """The plan with settings for its share of the load: a rank's users where they are stated and fit, else as many as its cache
    holds."""
    settings = default_settings(problem, plan)
    most = min(MOST, settings.token_budget)
    load = problem.workload
    if load.mode in ("closed_loop", "static_batch", "single_stream"):
        sequences = min(most, math.ceil(load.users / plan.dp / plan.adp / STEP) * STEP)
        if _held(problem, plan, replace(settings, max_sequences=sequences)) < 1:  # graphs and logits of all leave no cache
            sequences = min(sequences, _as_many_as_fit(problem, plan, settings))
    else:
        sequences = min(most, _as_many_as_fit(problem, plan, settings))
    found, memory = _with_memory(problem, plan, replace(settings, max_sequences=max(STEP, sequences)))
    # The longest request that was asked for goes before many short ones.
    return least_ceiling(problem, plan)[0] if context_shortfall(problem, found, memory) else found


def least_ceiling(problem: Problem, plan: Plan) -> tuple[Plan, RankMemory]:
    """The plan with the smallest ceiling, and its memory: what does not fit so does not fit at all."""
    return _with_memory(problem, plan, replace(default_settings(problem, plan), max_sequences=STEP))


def _as_many_as_fit(problem: Problem, plan: Plan, settings: Settings) -> int:
    """The ceiling n that the cache beside it just fills: held(n) falls in a straight line from n = STEP to the default."""
    few, many = STEP, max(settings.max_sequences, 2 * STEP)
    at_few = _held(problem, plan, replace(settings, max_sequences=few))
    slope = max(0.0, (at_few - _held(problem, plan, replace(settings, max_sequences=many))) / (many - few))
    return math.floor((at_few + slope * few) / (1 + slope) / STEP) * STEP


def _held(problem: Problem, plan: Plan, settings: Settings) -> float:
    """Sequences that the cache of a rank holds beside this ceiling; below 0 where memory is short of even none."""
    memory = rank_memory(problem, replace(plan, settings=settings))
    each = memory.kv_bytes_per_token * problem.workload.context_tokens
    if not each:
        return float(MOST)
    return memory.kv_bytes / each if memory.kv_bytes else 1 - memory.shortfall_bytes / each


def _with_memory(problem: Problem, plan: Plan, settings: Settings) -> tuple[Plan, RankMemory]:
    """The plan with these settings, a memory fraction that fits, and the longest request that costs the others little.

    The fraction changes only for an engine whose own choice would leave memory to activations that they do not need.
    """
    memory = rank_memory(problem, replace(plan, settings=settings))
    if memory.shortfall_bytes > 0 and problem.engine.memory.of == "static":
        most = math.floor((1 - (memory.activations_bytes + memory.other_bytes) / memory.device_bytes) * 1000) / 1000
        settings = replace(settings, memory_fraction=max(most, settings.memory_fraction))
        memory = rank_memory(problem, replace(plan, settings=settings))
    settings = replace(settings, max_context_tokens=largest_context(problem, plan, memory))
    return replace(plan, settings=settings), memory
