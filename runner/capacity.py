"""How many tokens the cache of a plan really holds: what is left beside weights and the largest prefill, allocated to be sure."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass

import torch

from advisor.specs.experiment import Job
from runner.clock import Clock
from runner.transformer import Transformer

KEPT_FREE = 0.02  # of the memory, for the allocator's rounding
ROWS = 64  # sequences of the cache that is tried
SHRINK = 0.98  # of a cache that was refused: the next one tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of the fullest rank: bytes of its weights and how many tokens one replica's cache holds beside them."""

    weights_bytes: float
    kv_tokens: int
    notes: tuple[str, ...] = ()


def memory(model: Transformer, job: Job, clock: Clock, *, layers: int, activations_bytes: float) -> Memory:
    """Really allocated where all layers are there, scaled from the `layers` measured where not.

    A CPU's memory belongs to everybody: nothing is said of it.
    """
    weights = _whole_weights(model, job, layers)
    if model.device.type == "cpu":
        return Memory(weights_bytes=clock.worst(weights), kv_tokens=0)
    gc.collect()
    one = model.new_cache(1, 256)
    each = one.bytes / 256
    del one
    torch.cuda.empty_cache()
    spare = free_bytes(model.device) * (1.0 - KEPT_FREE) - activations_bytes
    notes: tuple[str, ...] = ()
    if layers < len(job.model.layers):
        spare -= weights - model.weight_bytes
        each *= len(job.model.layers) / layers
        tokens = int(max(0.0, spare) / each)
        notes = ("weights and cache of the whole model are calculated from the layers measured",)
    else:
        tokens = _allocated(model, int(max(0.0, spare) / each))
    tokens = int(-clock.worst(-float(tokens))) * model.mesh.plan.adp
    return Memory(weights_bytes=clock.worst(weights), kv_tokens=tokens, notes=notes)


def _whole_weights(model: Transformer, job: Job, layers: int) -> float:
    """This rank's weights with all layers."""
    inside = sum(t.numel() * t.element_size() for t in model.blocks.buffers())
    return model.weight_bytes + inside * (len(job.model.layers) / layers - 1.0)


def _allocated(model: Transformer, tokens: int) -> int:
    """The largest cache up to `tokens` that the allocator grants."""
    while tokens > ROWS:
        try:
            cache = model.new_cache(ROWS, tokens // ROWS)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            tokens = int(tokens * SHRINK)
            continue
        del cache
        torch.cuda.empty_cache()
        return tokens // ROWS * ROWS
    return 0


def free_bytes(device: torch.device) -> float:
    """Memory that this process could still have; on a CPU the machine's, shared among its ranks."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / ranks
