"""Stages and micro-batches: who works on what, and when.

Pipelined, a stage starts on the next micro-batch as soon as it has handed the last one on, so `pp` micro-batches keep `pp`
stages busy. Naive, the first stage waits until a micro-batch has left the last one: one stage works at a time. Both compute the
same. The order within a stage is the same everywhere (step by step, micro-batch by micro-batch), so sends meet their receives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from runner.kv_cache import KvCache
from runner.transformer import Transformer

Schedule = Literal["1f1b", "naive"]
Forward = Callable[["MicroBatch", Tensor], Tensor]


@dataclass(slots=True, kw_only=True)
class MicroBatch:
    """Sequences that travel together: their prompts (B, T), their cache, and the position of their next token.

    `positions` is kept on the device, so that a captured graph reads it. `logits` are those of the last step on the last stage.
    """

    prompts: Tensor
    cache: KvCache
    positions: Tensor
    logits: Tensor | None = None


def micro_batches(model: Transformer, prompts: Tensor, count: int, *, new_tokens: int) -> list[MicroBatch]:
    """`prompts` (B, T) in `count` parts of equal size, each with a cache for its prompt and `new_tokens` more."""
    parts = prompts.to(model.device).chunk(count)
    if len({part.shape[0] for part in parts}) != 1 or len(parts) != count:
        raise ValueError(f"{prompts.shape[0]} sequences do not make {count} equal micro-batches")
    context = prompts.shape[1] + new_tokens
    made = []
    for part in parts:
        positions = torch.full((part.shape[0],), part.shape[1], device=model.device)
        made.append(MicroBatch(prompts=part, cache=model.new_cache(part.shape[0], context), positions=positions))
    return made


def run(
    model: Transformer,
    batches: Sequence[MicroBatch],
    *,
    steps: int,
    schedule: Schedule,
    prefill: Forward | None = None,
    decode: Forward | None = None,
) -> list[Tensor]:
    """Prefill every micro-batch, then `steps` greedy decode steps; the tokens (B, 1 + steps) of each.

    The first and the last stage know the tokens, others return nothing. `prefill` and `decode` replace the model's own forward
    (a captured graph).
    """
    mesh = model.mesh
    forwards = (prefill or _prefill(model), decode or _decode(model))
    tokens: list[list[Tensor]] = [[] for _ in batches]
    sent: list[dist.Work | None] = [None] * len(batches)
    waits = mesh.is_first_stage and not mesh.is_last_stage

    def collect(index: int, known: int) -> None:
        """The first stage learns the tokens of `known` steps from the last."""
        while waits and len(tokens[index]) < known:
            tokens[index].append(mesh.receive_back(batches[index].positions.new_empty(batches[index].prompts.shape[0])))

    for step in range(steps + 1):
        for index, batch in enumerate(batches):
            _settle(sent[index])  # a graph writes its output where the last one may still be on its way
            collect(index, step)
            x = _input(model, batch, step, tokens[index])
            y = forwards[step > 0](batch, x)
            if step:
                batch.positions += 1
            if not mesh.is_last_stage:
                sent[index] = mesh.send_on(y)
            else:
                batch.logits = y
                tokens[index].append(y.argmax(dim=-1))
                if not mesh.is_first_stage:
                    sent[index] = mesh.send_back(tokens[index][-1])
            if schedule == "naive":
                collect(index, step + 1)
    for index in range(len(batches)):
        collect(index, steps + 1)
        _settle(sent[index])
    return [torch.stack(known, dim=1) for known in tokens if known]


def _prefill(model: Transformer) -> Forward:
    return lambda batch, x: model.prefill(x, batch.cache)


def _decode(model: Transformer) -> Forward:
    return lambda batch, x: model.decode(x, batch.positions, batch.cache)


def _input(model: Transformer, batch: MicroBatch, step: int, known: list[Tensor]) -> Tensor:
    """What a stage starts from: the prompt, the last token, or the states of the stage before."""
    if not model.mesh.is_first_stage:
        return model.mesh.receive(model.states(batch.prompts.shape[0], 1 if step else batch.prompts.shape[1]))
    return known[-1] if step else batch.prompts


def _settle(work: dist.Work | None) -> None:
    if work is not None:
        work.wait()
