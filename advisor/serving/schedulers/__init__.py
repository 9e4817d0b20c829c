"""The rules by which engines fill a step, one file an engine family, read in their sources."""

from __future__ import annotations

from advisor.serving.capacity import Capacity
from advisor.serving.schedulers.sglang import SglangRules
from advisor.serving.schedulers.slots import SlotRules
from advisor.serving.schedulers.trtllm import TrtllmRules
from advisor.serving.schedulers.vllm import VllmRules
from advisor.serving.simulator import Rules
from advisor.specs.engine import Engine
from advisor.specs.plan import Plan

_FAMILIES: dict[str, type[VllmRules | SglangRules | TrtllmRules | SlotRules]] = {
    "vllm": VllmRules,
    "sglang": SglangRules,
    "trtllm": TrtllmRules,
    "slots": SlotRules,
}


def rules_of(engine: Engine, plan: Plan, capacity: Capacity) -> Rules:
    """The rules of the engine's family with its parameters, for a replica of the plan.

    A step is one round of all stages and attention-DP ranks, so the budget is that of all their batches together.
    """
    budget = int(capacity.token_budget) * plan.pp * plan.adp
    return _FAMILIES[engine.scheduler.family](engine.scheduler, budget=budget, most=capacity.max_sequences, ranks=plan.adp)
