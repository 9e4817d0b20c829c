"""Names of checkpoints as benchmarks write them -> the model they are made from and the format they are stored in.

Most published runs serve a requantised copy under another owner's name ("amd/Llama-3.1-70B-Instruct-FP8-KV"), a local folder
("/workspace/DeepSeek-V3.2") or a date behind the name. The architecture is the base model's; only the numbers are stored otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Ends of checkpoint names, as their publishers build them -> the format. Longer ends first where one ends another.
_ENDS = (
    (r"fp8[-_]kv|fp8[-_]dynamic|fp8[-_]block|ptpc[-_]fp8|fp8", "fp8"),
    (r"nvfp4(?:[-_]fp4)?(?:[-_]v\d)?|fp4", "nvfp4"),
    (r"w[-_]mxfp4[-_]a[-_]fp8|mxfp4", "mxfp4"),
    (r"awq(?:[-_]int4)?|gptq(?:[-_]int4)?|int4(?:[-_]autoround|[-_]awq|[-_]gptq)?|autoround(?:[-_]int4)?|w4a16", "int4"),
    (r"w8a8|int8", "int8"),
    (r"bf16|fp16", "bf16"),
)
_END = re.compile("[-_](?:" + "|".join(f"(?P<f{i}>{pattern})" for i, (pattern, _) in enumerate(_ENDS)) + r")\Z", re.IGNORECASE)
_VARIANT = re.compile(r"(?:[-_](?:quantized|instruct|chat|it|hf|\d{4}))+\Z", re.IGNORECASE)
# How benchmarks write the formats of weights -> the names of `specs.formats`.
_SPOKEN = {"autoround int4": "int4", "autoround": "int4", "ptpc fp8": "fp8", "ptpc": "fp8", "mxfp4 (a8)": "mxfp4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A name taken apart: names of the base model, the nearest first, and the format its own name states ("": none)."""

    bases: tuple[str, ...]
    stored: str


def checkpoint(name: str) -> Checkpoint:
    """Owner, folder, format and variant taken off a checkpoint's name, one after the other."""
    word, stored = name.rstrip("/").rsplit("/", 1)[-1], ""
    bases = [word]
    while found := _END.search(word):
        stored = stored or next(_ENDS[int(group[1:])][1] for group, text in found.groupdict().items() if text)
        word = word[: found.start()]
        bases.append(word)
    if (plain := _VARIANT.sub("", word)) != word:
        bases.append(plain)
    return Checkpoint(bases=tuple(base for base in bases if base), stored=stored)


def spoken_format(text: str) -> str:
    """A format as a benchmark writes it, in the words that the catalogue reads."""
    return _SPOKEN.get(text.strip().lower(), text)
