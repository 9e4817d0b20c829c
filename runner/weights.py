"""Weights of a rank: seeded whole and cut, so that every plan computes the same function, or read from safetensors, its part only."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advisor.errors import QuestionError
from advisor.specs.model import ModelSpec
from runner.parallel import Piece, Sharded
from runner.transformer import Transformer

Read = Callable[[Piece], Tensor]


def initialise(model: Transformer, spec: ModelSpec, seed: int) -> None:
    """Fill `model` with random weights: each whole tensor is drawn from its own name and the seed, then cut.

    Matrices have a standard deviation of 1 / sqrt(inputs), so that states keep their size through any depth.
    """
    offset = spec.numerics.norm_offset

    def read(piece: Piece) -> Tensor:
        digest = hashlib.sha256(f"{seed}/{piece.name}".encode()).digest()
        generator = torch.Generator(model.device).manual_seed(int.from_bytes(digest[:7], "big"))
        whole = torch.randn(piece.shape, generator=generator, device=model.device, dtype=torch.float32)
        kind, role = piece.name.rsplit(".", 1)[-1], piece.name.rsplit(".", 2)[-2]
        if kind == "weight" and "norm" in role:
            # Latent attention's inner norms have no offset, whatever the model's others have.
            inner = ".attention.kv_norm" in piece.name or ".attention.q_norm" in piece.name
            whole = 0.1 * whole + (1.0 if inner and spec.is_mla else 1.0 - offset)
        else:
            whole *= 1 / math.sqrt(piece.shape[1]) if kind == "weight" and len(piece.shape) > 1 else 0.1
        return whole[piece.cut]

    _fill(model, read)


def load(model: Transformer, spec: ModelSpec, directory: str | Path) -> None:
    """Fill `model` from the safetensors files of a Hugging Face checkpoint, reading only this rank's part.

    Raises QuestionError where there are none, or a tensor is missing, of another shape, or packed in a way that is not read.
    """
    with ExitStack() as stack:
        files = _Checkpoint(Path(directory), stack)

        def read(piece: Piece) -> Tensor:
            return files.read(piece, model.device)

        _fill(model, read)


def _fill(model: Transformer, read: Read) -> None:
    for module in model.modules():
        if not isinstance(module, Sharded):
            continue
        for name, pieces in module.pieces.items():
            whole = torch.zeros(module.shapes[name], device=model.device, dtype=_type_of(module, name, model.dtype))
            for piece in pieces:
                whole[piece.place] = read(piece).to(whole.dtype)
            module.put(name, whole)


def _type_of(module: Sharded, name: str, default: torch.dtype) -> torch.dtype:
    """fp32 for what is kept in it (router corrections), else the model's type."""
    held = getattr(module, name, None)
    return torch.float32 if isinstance(held, Tensor) and held.dtype == torch.float32 else default


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a checkpoint has a tensor: its name, then rows of it, one entry of a stack, every other row, or its transpose."""

    name: str
    entry: int | None = None
    first: int = 0
    stride: int = 1
    transposed: bool = False


# Our names -> what checkpoints call them, first match that the checkpoint has. {0}, {1}: the layer and expert number.
_LAYER = r"layers\.(\d+)\."
_SPELLINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"embedding\.weight", ("model.embed_tokens.weight", "gpt_neox.embed_in.weight", "transformer.wte.weight")),
    (r"head\.(weight|bias)", ("lm_head.{0}", "embed_out.{0}", "model.embed_tokens.{0}")),
    (r"norm\.(weight|bias)", ("model.norm.{0}", "model.final_layernorm.{0}", "gpt_neox.final_layer_norm.{0}", "transformer.ln_f.{0}")),
    (_LAYER + r"attention_norm\.(\w+)", ("{L}.input_layernorm.{1}", "transformer.h.{0}.ln_1.{1}")),
    (_LAYER + r"attention_post_norm\.(\w+)", ("{L}.post_self_attn_layernorm.{1}", "{L}.post_attention_layernorm.{1}")),
    (_LAYER + r"ffn_norm\.(\w+)", ("{L}.pre_feedforward_layernorm.{1}", "{L}.post_attention_layernorm.{1}")),
    (_LAYER + r"ffn_post_norm\.(\w+)", ("{L}.post_mlp_layernorm.{1}", "{L}.post_feedforward_layernorm.{1}")),
    (_LAYER + r"attention\.([qkv])\.(\w+)", ("{L}.self_attn.{1}_proj.{2}", "transformer.h.{0}.attn.{1}_proj.{2}")),
    (_LAYER + r"attention\.o\.(\w+)", ("{L}.self_attn.o_proj.{1}", "{L}.self_attn.dense.{1}", "gpt_neox.layers.{0}.attention.dense.{1}", "transformer.h.{0}.attn.out_proj.{1}")),
    (_LAYER + r"attention\.sinks", ("{L}.self_attn.sinks",)),
    (_LAYER + r"attention\.q_norm\.(\w+)", ("{L}.self_attn.q_a_layernorm.{1}", "{L}.self_attn.q_norm.{1}", "{L}.self_attn.q_layernorm.{1}")),
    (_LAYER + r"attention\.k_norm\.(\w+)", ("{L}.self_attn.k_norm.{1}", "{L}.self_attn.k_layernorm.{1}")),
    (_LAYER + r"attention\.q_down\.(\w+)", ("{L}.self_attn.q_a_proj.{1}",)),
    (_LAYER + r"attention\.q_up\.(\w+)", ("{L}.self_attn.q_b_proj.{1}",)),
    (_LAYER + r"attention\.kv_down\.(\w+)", ("{L}.self_attn.kv_a_proj_with_mqa.{1}",)),
    (_LAYER + r"attention\.kv_norm\.(\w+)", ("{L}.self_attn.kv_a_layernorm.{1}",)),
    (_LAYER + r"attention\.kv_up\.(\w+)", ("{L}.self_attn.kv_b_proj.{1}",)),
    (_LAYER + r"ffn\.gate\.(\w+)", ("{L}.mlp.gate_proj.{1}",)),
    (_LAYER + r"ffn\.up\.(\w+)", ("{L}.mlp.up_proj.{1}", "{L}.mlp.fc1.{1}", "{L}.mlp.c_fc.{1}", "gpt_neox.layers.{0}.mlp.dense_h_to_4h.{1}", "transformer.h.{0}.mlp.fc_in.{1}")),
    (_LAYER + r"ffn\.down\.(\w+)", ("{L}.mlp.down_proj.{1}", "{L}.mlp.fc2.{1}", "{L}.mlp.c_proj.{1}", "gpt_neox.layers.{0}.mlp.dense_4h_to_h.{1}", "transformer.h.{0}.mlp.fc_out.{1}")),
    (_LAYER + r"ffn\.router\.correction", ("{L}.mlp.gate.e_score_correction_bias", "{L}.block_sparse_moe.e_score_correction_bias")),
    (_LAYER + r"ffn\.router\.(\w+)", ("{L}.mlp.gate.{1}", "{L}.mlp.router.{1}", "{L}.block_sparse_moe.gate.{1}")),
    (_LAYER + r"ffn\.shared_gate\.(\w+)", ("{L}.mlp.shared_expert_gate.{1}",)),
    (_LAYER + r"ffn\.shared\.(\w+)\.(\w+)", ("{L}.mlp.shared_expert.{1}_proj.{2}", "{L}.mlp.shared_experts.{1}_proj.{2}")),
    (_LAYER + r"ffn\.experts\.(\d+)\.(\w+)\.(\w+)", ("{L}.mlp.experts.{1}.{2}_proj.{3}", "{L}.block_sparse_moe.experts.{1}.{W}.{3}")),
)  # fmt: skip
_MIXTRAL = {"gate": "w1", "down": "w2", "up": "w3"}


class _Checkpoint:
    """The tensors of a folder of safetensors files, found by our names."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        from safetensors import SafetensorError, safe_open

        self.directory = directory
        self._files: dict[str, Any] = {}
        paths = sorted(directory.glob("*.safetensors")) if directory.is_dir() else []
        if not paths:
            raise QuestionError(f"{directory} has no .safetensors files; give the folder of a downloaded checkpoint.")
        index = directory / "model.safetensors.index.json"
        if index.exists():  # a folder may hold other exports of the same weights beside the indexed ones
            named = set(json.loads(index.read_text())["weight_map"].values())
            paths = [path for path in paths if path.name in named]
        for path in paths:
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise QuestionError(f"{path} cannot be read: {error}; download it again.") from error
            self._files |= dict.fromkeys(file.keys(), file)

    def read(self, piece: Piece, device: torch.device) -> Tensor:
        """The cut of one whole tensor, wherever and in whichever order the checkpoint keeps it."""
        place = self._find(piece)
        part = self._files[place.name].get_slice(place.name)
        cut = [slice(*c.indices(size)[:2]) for c, size in zip(piece.cut, piece.shape, strict=True)]
        first, stride = place.first, place.stride
        cut[0] = slice(first + cut[0].start * stride, first + (cut[0].stop - 1) * stride + 1 if cut[0].stop else first, 1)
        if place.transposed:
            cut.reverse()
        shape = list(part.get_shape())
        offset = 1 if place.entry is not None else 0
        if len(shape) - offset != len(cut) or any(c.stop > n for c, n in zip(cut, shape[offset:], strict=True)):
            raise QuestionError(
                f"{place.name} in {self.directory} is {shape}, but {piece.name} needs {list(piece.shape)}; "
                "the checkpoint belongs to another model."
            )
        tensor: Tensor = part[(place.entry, *cut) if place.entry is not None else tuple(cut)]
        tensor = tensor.t() if place.transposed else tensor
        return self._scaled(tensor[::stride], place, piece).to(device)

    def _scaled(self, tensor: Tensor, place: Place, piece: Piece) -> Tensor:
        """fp8 checkpoints keep one scale a block of 128 x 128 (DeepSeek-V3), or one a tensor or row."""
        if tensor.dtype != torch.float8_e4m3fn:
            return tensor
        names = [f"{place.name}_scale_inv", f"{place.name}_scale"]
        name = next((n for n in names if n in self._files), None)
        if name is None:
            raise QuestionError(f"{place.name} in {self.directory} is fp8 without scales; the checkpoint is not complete.")
        scale = self._files[name].get_tensor(name).float()
        if scale.numel() > 1 and scale.dim() == 2 and scale.shape[1] > 1:
            block = [-(-n // s) for n, s in zip(piece.shape, scale.shape, strict=True)]
            scale = scale.repeat_interleave(block[0], 0)[: piece.shape[0]].repeat_interleave(block[1], 1)[:, : piece.shape[1]]
            scale = scale[piece.cut]
        elif scale.numel() > 1:
            scale = scale.view(-1, 1)[piece.cut[0]]
        return tensor.float() * scale

    def _find(self, piece: Piece) -> Place:
        for pattern, spellings in _SPELLINGS:
            match = re.fullmatch(pattern, piece.name)
            if match:
                words = match.groups()
                layer = f"model.layers.{words[0]}" if words else ""
                fill = {"L": layer, "W": _MIXTRAL.get(words[2], "") if len(words) > 2 else ""}
                names = [s.format(*words, **fill) for s in spellings]
                names += [n.replace("model.layers", "gpt_neox.layers") for n in names if n.startswith("model.layers")]
                found = next((n for n in self._variants(names) if n in self._files), None)
                if found is not None:
                    return Place(name=found)
                return self._fused(piece, words)
        raise AssertionError(f"no spelling for {piece.name}")

    def _variants(self, names: list[str]) -> list[str]:
        """The same names below the text part of a vision-language model."""
        return names + [
            n.replace("model.", prefix, 1) for n in names for prefix in ("language_model.model.", "model.language_model.")
        ]

    def _fused(self, piece: Piece, words: tuple[str, ...]) -> Place:
        """Parts of fused tensors: Phi-3's qkv and gate_up, stacked experts, gpt-oss's interleaved ones."""
        layer = f"model.layers.{words[0]}" if words else ""
        rows = piece.shape[0]
        qkv = f"{layer}.self_attn.qkv_proj"
        if re.fullmatch(_LAYER + r"attention\.[qkv]\.\w+", piece.name) and f"{qkv}.{words[2]}" in self._files:
            total = self._files[f"{qkv}.{words[2]}"].get_slice(f"{qkv}.{words[2]}").get_shape()[0]
            # Queries are first and values last; keys and values have equal heads.
            first = {"q": 0, "k": total - 2 * rows, "v": total - rows}[words[1]]
            return Place(name=f"{qkv}.{words[2]}", first=first)
        both = f"{layer}.mlp.gate_up_proj.weight"
        if re.fullmatch(_LAYER + r"ffn\.(gate|up)\.weight", piece.name) and both in self._files:
            return Place(name=both, first=rows if ".up." in piece.name else 0)
        if ".experts." in piece.name:
            expert, part, kind = int(words[1]), words[2], words[3]
            stack = (
                f"{layer}.mlp.experts." + ("down_proj" if part == "down" else "gate_up_proj") + ("_bias" if kind == "bias" else "")
            )
            if stack in self._files:  # gpt-oss keeps (in, out), gate and up in alternate columns
                interleaved = part != "down"
                first = 1 if part == "up" else 0
                turned = kind == "weight"
                return Place(name=stack, entry=expert, first=first, stride=2 if interleaved else 1, transposed=turned)
        packed = [n for n in self._files if n.endswith(("_blocks", ".qweight", "_packed"))]
        hint = "its packed weights are not read; take the 16-bit checkpoint" if packed else "it belongs to another model"
        raise QuestionError(f"{self.directory} has no tensor for {piece.name}: {hint}.")
