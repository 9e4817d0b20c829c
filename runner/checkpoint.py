"""A Hugging Face checkpoint on disk, read by parts: whose name for what, fused and stacked tensors, fp8 scales."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advisor.errors import QuestionError
from runner.parallel import Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a checkpoint has a tensor: all of `name`, else rows of it, one entry of a stack, every other row, or its transpose."""

    name: str
    fused: bool = True
    entry: int | None = None
    first: int = 0
    stride: int = 1
    transposed: bool = False


_LAYER = r"layers\.(\d+)\."
_LAYER_FOLDERS = ("model.layers", "gpt_neox.layers", "transformer.h")
_TEXT_FOLDERS = ("language_model.model.", "model.language_model.")  # the text part of vision-language models

# Our names -> what checkpoints call them; the first that the checkpoint has is taken. {L} is the layer's folder, {0}, {1}, ...
# the groups of the pattern, {W} Mixtral's number of an expert's matrix.
_SPELLINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"embedding\.weight", ("model.embed_tokens.weight", "gpt_neox.embed_in.weight", "transformer.wte.weight")),
    (r"head\.(weight|bias)", ("lm_head.{0}", "embed_out.{0}")),
    (
        r"norm\.(weight|bias)",
        ("model.norm.{0}", "model.final_layernorm.{0}", "gpt_neox.final_layer_norm.{0}", "transformer.ln_f.{0}"),
    ),
    (_LAYER + r"attention_norm\.(\w+)", ("{L}.input_layernorm.{1}", "{L}.ln_1.{1}")),
    (_LAYER + r"attention_post_norm\.(\w+)", ("{L}.post_self_attn_layernorm.{1}", "{L}.post_attention_layernorm.{1}")),
    (_LAYER + r"ffn_norm\.(\w+)", ("{L}.pre_feedforward_layernorm.{1}", "{L}.post_attention_layernorm.{1}")),
    (_LAYER + r"ffn_post_norm\.(\w+)", ("{L}.post_mlp_layernorm.{1}", "{L}.post_feedforward_layernorm.{1}")),
    (_LAYER + r"attention\.([qkv])\.(\w+)", ("{L}.self_attn.{1}_proj.{2}", "{L}.attn.{1}_proj.{2}")),
    (
        _LAYER + r"attention\.o\.(\w+)",
        ("{L}.self_attn.o_proj.{1}", "{L}.self_attn.dense.{1}", "{L}.attention.dense.{1}", "{L}.attn.out_proj.{1}"),
    ),
    (_LAYER + r"attention\.sinks", ("{L}.self_attn.sinks",)),
    (_LAYER + r"attention\.q_norm\.(\w+)", ("{L}.self_attn.q_a_layernorm.{1}", "{L}.self_attn.q_norm.{1}")),
    (_LAYER + r"attention\.k_norm\.(\w+)", ("{L}.self_attn.k_norm.{1}",)),
    (_LAYER + r"attention\.q_down\.(\w+)", ("{L}.self_attn.q_a_proj.{1}",)),
    (_LAYER + r"attention\.q_up\.(\w+)", ("{L}.self_attn.q_b_proj.{1}",)),
    (_LAYER + r"attention\.kv_down\.(\w+)", ("{L}.self_attn.kv_a_proj_with_mqa.{1}",)),
    (_LAYER + r"attention\.kv_norm\.(\w+)", ("{L}.self_attn.kv_a_layernorm.{1}",)),
    (_LAYER + r"attention\.kv_up\.(\w+)", ("{L}.self_attn.kv_b_proj.{1}",)),
    (_LAYER + r"ffn\.gate\.(\w+)", ("{L}.mlp.gate_proj.{1}",)),
    (
        _LAYER + r"ffn\.up\.(\w+)",
        ("{L}.mlp.up_proj.{1}", "{L}.mlp.fc1.{1}", "{L}.mlp.c_fc.{1}", "{L}.mlp.dense_h_to_4h.{1}", "{L}.mlp.fc_in.{1}"),
    ),
    (
        _LAYER + r"ffn\.down\.(\w+)",
        ("{L}.mlp.down_proj.{1}", "{L}.mlp.fc2.{1}", "{L}.mlp.c_proj.{1}", "{L}.mlp.dense_4h_to_h.{1}", "{L}.mlp.fc_out.{1}"),
    ),
    (
        _LAYER + r"ffn\.router\.correction",
        ("{L}.mlp.gate.e_score_correction_bias", "{L}.block_sparse_moe.e_score_correction_bias"),
    ),
    (_LAYER + r"ffn\.router\.(\w+)", ("{L}.mlp.gate.{1}", "{L}.mlp.router.{1}", "{L}.block_sparse_moe.gate.{1}")),
    (_LAYER + r"ffn\.shared_gate\.(\w+)", ("{L}.mlp.shared_expert_gate.{1}",)),
    (
        _LAYER + r"ffn\.shared\.(\w+)\.(\w+)",
        ("{L}.mlp.shared_expert.{1}_proj.{2}", "{L}.mlp.shared_experts.{1}_proj.{2}"),
    ),
    (
        _LAYER + r"ffn\.experts\.(\d+)\.(\w+)\.(\w+)",
        ("{L}.mlp.experts.{1}.{2}_proj.{3}", "{L}.block_sparse_moe.experts.{1}.{W}.{3}"),
    ),
)
_MIXTRAL = {"gate": "w1", "down": "w2", "up": "w3"}


class Checkpoint:
    """The tensors of a folder of safetensors files, found by our names. Files stay open as long as `stack`."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        from safetensors import SafetensorError, safe_open

        self.directory = directory
        self._files: dict[str, Any] = {}
        for path in _safetensors_files(directory):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise QuestionError(f"{path} cannot be read: {error}; download it again.") from error
            self._files |= dict.fromkeys(file.keys(), file)

    def read(self, piece: Piece, device: torch.device) -> Tensor:
        """The cut of one whole tensor, wherever and in whichever order the checkpoint keeps it.

        Raises QuestionError where it is missing, of another shape, or packed in a way that is not read.
        """
        place = self._find(piece)
        part = self._files[place.name].get_slice(place.name)
        cut = [slice(*c.indices(size)[:2]) for c, size in zip(piece.cut, piece.shape, strict=True)]
        if cut[0].start == cut[0].stop:  # a rank whose share of the vocabulary is padding only
            return torch.zeros([c.stop - c.start for c in cut], device=device)
        last = place.first + (cut[0].stop - 1) * place.stride
        cut[0] = slice(place.first + cut[0].start * place.stride, last + 1)
        if place.transposed:
            cut.reverse()
        shape = list(part.get_shape())[0 if place.entry is None else 1 :]
        fits = len(shape) == len(cut) and all(c.stop <= n for c, n in zip(cut, shape, strict=True))
        if not fits or (not place.fused and shape != list(piece.shape)):
            raise QuestionError(
                f"{place.name} in {self.directory} is {shape}, but {piece.name} needs {list(piece.shape)}; "
                "the checkpoint belongs to another model."
            )
        tensor: Tensor = part[tuple(cut) if place.entry is None else (place.entry, *cut)]
        tensor = tensor.t() if place.transposed else tensor
        read = self._scaled(tensor[:: place.stride], place, piece)
        return read.to(device)

    def _scaled(self, tensor: Tensor, place: Place, piece: Piece) -> Tensor:
        """fp8 tensors with their scales multiplied in: one a block of 128 x 128 (DeepSeek-V3), one a row, or one in all."""
        if tensor.dtype != torch.float8_e4m3fn:
            return tensor
        name = next((n for n in (f"{place.name}_scale_inv", f"{place.name}_scale") if n in self._files), None)
        if name is None:
            raise QuestionError(f"{place.name} in {self.directory} is fp8 without scales; the checkpoint is not complete.")
        scale: Tensor = self._files[name].get_tensor(name).float()
        if scale.dim() == 2 and scale.shape[1] > 1:
            for dim, (whole, blocks) in enumerate(zip(piece.shape, scale.shape, strict=True)):
                # Blocks are powers of two; the last of a dimension may be cut short.
                block = 1 << (-(-whole // blocks) - 1).bit_length()
                scale = scale.repeat_interleave(block, dim).narrow(dim, 0, whole)
            scale = scale[piece.cut]
        elif scale.numel() > 1:
            scale = scale.view(-1, 1)[piece.cut[0]]
        return tensor.float() * scale

    def _find(self, piece: Piece) -> Place:
        words, names = spellings(piece.name)
        found = next((name for name in names if name in self._files), None)
        return Place(name=found, fused=False) if found is not None else self._fused(piece, words)

    def _fused(self, piece: Piece, words: tuple[str, ...]) -> Place:
        """Parts of fused tensors: Phi-3's qkv and gate_up, gpt-oss's stacks of experts."""
        rows = piece.shape[0]
        folder = f"model.layers.{words[0]}." if words else ""
        if re.fullmatch(_LAYER + r"attention\.[qkv]\.\w+", piece.name):
            name = f"{folder}self_attn.qkv_proj.{words[2]}"
            if name in self._files:  # queries first, values last, and as many keys as values
                total = self._files[name].get_slice(name).get_shape()[0]
                return Place(name=name, first={"q": 0, "k": total - 2 * rows, "v": total - rows}[words[1]])
        if re.fullmatch(_LAYER + r"ffn\.(gate|up)\.weight", piece.name):
            name = f"{folder}mlp.gate_up_proj.weight"
            if name in self._files:
                return Place(name=name, first=rows if ".up." in piece.name else 0)
        if ".experts." in piece.name:
            expert, part, kind = int(words[1]), words[2], words[3]
            name = f"{folder}mlp.experts.{'down' if part == 'down' else 'gate_up'}_proj{'_bias' if kind == 'bias' else ''}"
            if name in self._files:  # (in, out), gate and up in alternate columns
                stride = 1 if part == "down" else 2
                return Place(name=name, entry=expert, first=int(part == "up"), stride=stride, transposed=kind == "weight")
        packed = any(name.endswith(("_blocks", ".qweight", "_packed")) for name in self._files)
        hint = "its packed weights are not read, take the 16-bit checkpoint" if packed else "it belongs to another model"
        raise QuestionError(f"{self.directory} has no tensor for {piece.name}: {hint}.")


def spellings(name: str) -> tuple[tuple[str, ...], list[str]]:
    """The parts of one of our names (layer, expert, matrix, ...), and every name a checkpoint may have for it."""
    for pattern, forms in _SPELLINGS:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        words = match.groups()
        numbered = _MIXTRAL.get(words[2], "") if len(words) > 2 else ""
        folders = [f"{folder}.{words[0]}" for folder in _LAYER_FOLDERS] if words else [""]
        names = [form.format(*words, L=folder, W=numbered) for form in forms for folder in folders]
        return words, names + [n.replace("model.", text, 1) for n in names for text in _TEXT_FOLDERS if n.startswith("model.")]
    raise AssertionError(f"no spelling for {name}")


def _safetensors_files(directory: Path) -> list[Path]:
    """The files of the index where there is one: a folder may hold other exports of the same weights beside them."""
    paths = sorted(directory.glob("*.safetensors")) if directory.is_dir() else []
    if not paths:
        raise QuestionError(f"{directory} has no .safetensors files; give the folder of a downloaded checkpoint.")
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return paths
    named = set(json.loads(index.read_text())["weight_map"].values())
    missing = sorted(named - {path.name for path in paths})
    if missing:
        raise QuestionError(f"{directory} lacks {missing[0]}, which its index names; download it again.")
    return [path for path in paths if path.name in named]
