"""A replica whose steps are fixed times, for scheduler rules and queues that are worked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from advisor.catalog.engines import load_engine
from advisor.roofline.step import StepModel
from advisor.serving.capacity import Capacity
from advisor.serving.schedulers import rules_of
from advisor.serving.simulator import Simulator
from advisor.specs.engine import Scheduler
from advisor.specs.plan import Plan
from advisor.specs.trace import Request


class Fixed:
    """Decode steps of 10 ms, and `prompt_s` more for each thousand prompt tokens; no host time."""

    queries, tokens_per_step = 1, 1.0

    def __init__(self, scheduler: Scheduler, *, page_tokens: int = 1, decode_s: float = 0.010, prompt_s: float = 0.1) -> None:
        engine = load_engine("vllm")
        host = replace(engine.host, request_s=0.0, admit_s=0.0, wait_steps=0.0, token_s=0.0)
        self.engine = replace(engine, host=host, scheduler=scheduler, page_tokens=page_tokens)
        self.plan = Plan()
        self._decode_s, self._prompt_s = decode_s, prompt_s
        self.steps: list[tuple[int, list[int]]] = []  # (decodes, prompt tokens of each chunk) of the steps with prompts

    def decode_s(self, sequences: float, context: float) -> float:
        return self._decode_s

    def mixed_s(self, decodes: float, context: float, chunks: Sequence[tuple[float, float]]) -> float:
        self.steps.append((round(decodes), [round(new) for new, _ in chunks]))
        return (self._decode_s if decodes else 1e-9) + self._prompt_s * sum(new for new, _ in chunks) / 1000


def replica(model: Fixed, *, most: int = 8, kv_tokens: float = 1e6, budget: float = 1000) -> Simulator:
    capacity = Capacity(max_sequences=most, kv_tokens=kv_tokens, token_budget=budget)
    step_model = cast(StepModel, model)
    return Simulator(step_model, capacity, rules_of(model.engine, model.plan, capacity))


def requests(*lengths: tuple[int, int], at_s: float = 0.0) -> list[Request]:
    return [Request(arrival_s=at_s, input_tokens=n, output_tokens=d) for n, d in lengths]
