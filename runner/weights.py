"""Weights of a rank: seeded whole and cut, so that all plans compute one function, or the rank's part of a checkpoint."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from advisor.specs.model import ModelSpec
from runner.checkpoint import Checkpoint
from runner.parallel import Piece, Sharded
from runner.transformer import Transformer

Beat = Callable[[str], None]


def initialise(model: Transformer, spec: ModelSpec, seed: int, beat: Beat = lambda _: None) -> None:
    """Fill `model` with random weights: each whole tensor is drawn from its own name and the seed, then cut.

    Matrices have a standard deviation of 1 / sqrt(inputs), so that states keep their size through any depth. The same seed
    gives other values on another kind of device. `beat` hears of each tensor.
    """

    def read(piece: Piece) -> Tensor:
        digest = hashlib.sha256(f"{seed}/{piece.name}".encode()).digest()
        generator = torch.Generator(model.device).manual_seed(int.from_bytes(digest[:7], "big"))
        whole = torch.randn(piece.shape, generator=generator, device=model.device, dtype=torch.float32)
        return _shaped(whole, piece, spec)[piece.cut]

    _fill(model, read, beat)


def load(model: Transformer, spec: ModelSpec, directory: str | Path, beat: Beat = lambda _: None) -> None:
    """Fill `model` from the safetensors files of a Hugging Face checkpoint, reading only this rank's part; `beat` hears of each
    tensor, so that a slow disk is not a stall.

    Raises QuestionError where there are none, or a tensor is missing, of another shape, or packed in a way that is not read.
    """
    with ExitStack() as stack:
        checkpoint = Checkpoint(Path(directory), stack)
        _fill(model, lambda piece: checkpoint.read(piece, model.device), beat)


def _fill(model: Transformer, read: Callable[[Piece], Tensor], beat: Beat) -> None:
    """One local tensor at a time is assembled in the model's type and handed to its module, which may pack it."""
    for module in model.modules():
        if not isinstance(module, Sharded):
            continue
        for name, pieces in module.pieces.items():
            held = getattr(module, name, None)
            wide = isinstance(held, Tensor) and held.dtype == torch.float32  # router corrections stay in fp32
            local = torch.zeros(module.shapes[name], device=model.device, dtype=torch.float32 if wide else model.dtype)
            for piece in pieces:
                beat(f"filling {piece.name}")
                local[piece.place] = read(piece).to(local.dtype)
            module.put(name, local)


def _shaped(whole: Tensor, piece: Piece, spec: ModelSpec) -> Tensor:
    """Standard normal values at the scale of their role: norms around one, biases small, matrices by their inputs."""
    *_, role, kind = piece.name.split(".")
    if "norm" in role and kind == "weight":
        inner = role in ("q_norm", "kv_norm") and spec.is_mla  # these have no offset, whatever the model's other norms have
        return 0.1 * whole + (1.0 if inner else 1.0 - spec.numerics.norm_offset)
    if kind == "weight" and whole.dim() > 1:
        return whole / math.sqrt(piece.shape[1])
    return 0.1 * whole
