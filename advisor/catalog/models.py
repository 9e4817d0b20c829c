"""The model catalogue: a name, an alias, a Hugging Face id or a path -> ModelSpec."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from advisor.catalog.hub import REPO_ID, from_cache, from_hub, read_config_file
from advisor.errors import QuestionError, unknown
from advisor.specs.formats import FORMATS
from advisor.specs.model import ModelSpec, WeightFormats
from advisor.untrusted import parse_yaml, read_text

MAX_NAME = 1000
_FILES = (".json", ".yaml", ".yml")
_VARIANT = re.compile(r"(?:-(?:instruct|chat|it|base|hf))+\Z")
_CACHE_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)\Z")
_LISTED = re.compile(r"^(?:name|repo|aliases):[^\n]*(?:\n {2,}[^\n]*|\n *- [^\n]*)*", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model, what the user typed, and what that was taken for (the same text where there was nothing to take)."""

    spec: ModelSpec
    asked: str
    taken_as: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """One line of the catalogue. `params` and `active_params` are counts; `weights` is the format most weights have."""

    name: str
    repo: str
    aliases: tuple[str, ...]
    params: int
    active_params: int
    layers: int
    max_context_tokens: int
    weights: str
    attention: str


def load_model(name: str, *, online: bool = True) -> LoadedModel:
    """The model that `name` means: a path (config.json, its folder, a YAML sheet), a catalogue name or alias, or an HF id.

    An id the catalogue lacks is looked for in the local Hugging Face cache, then on the hub unless `online` is False.
    Raises QuestionError for an unknown name (with the nearest ones), ProfileError for a file that does not describe a model.
    """
    asked = name.strip()
    if not asked or len(asked) > MAX_NAME or not asked.isprintable():
        raise QuestionError("the model's name is empty or unreadable: give an alias like 70b, a Hugging Face id or a path.")
    if path := _existing(asked):
        return _local(path, asked)
    if asked.lower().endswith(_FILES):
        raise QuestionError(f"there is no file {asked!r}: give the path of a config.json or a YAML model sheet that exists.")
    if asked.lower().endswith(".gguf"):
        raise QuestionError(f"{asked!r}: GGUF files are not read; name the model it was made from and add --dtype q4_k_m.")
    key = asked.rstrip("/")
    if folder := _CACHE_FOLDER.search(key):
        key = f"{folder[1]}/{folder[2]}"
    sheet = find_sheet(key)
    if sheet is not None:
        return _from_catalogue(sheet, asked, key)
    if REPO_ID.match(key):
        spec = from_cache(key)
        if spec is None:
            if not online:
                raise QuestionError(
                    f"{key} is neither in the catalogue nor in the local Hugging Face cache{_nearest(key)}; "
                    "allow the network, or give a path to its config.json."
                )
            spec = from_hub(key)
        return LoadedModel(spec=spec, asked=asked, taken_as=asked)
    raise QuestionError(f"unknown model {asked[:80]!r}{_nearest(key)}; `advisor models` lists the catalogue.")


def list_models() -> list[ModelSummary]:
    """Every sheet of the catalogue, by name."""
    found = []
    for name in sheet_names():
        aliases, spec = _read(name)
        found.append(
            ModelSummary(
                name=spec.name,
                repo=spec.repo,
                aliases=aliases,
                params=spec.params,
                active_params=spec.active_params,
                layers=len(spec.layers),
                max_context_tokens=spec.max_context_tokens,
                weights=spec.weight_format,
                attention=attention_kind(spec),
            )
        )
    return found


def attention_kind(spec: ModelSpec) -> str:
    """One word for the token mixing: MLA, hybrid, MHA, GQA or MQA."""
    if not spec.attention_layers:
        return "recurrent"
    if spec.is_hybrid:
        return "hybrid"
    if spec.is_mla:
        return "MLA"
    return "MHA" if spec.kv_heads == spec.query_heads else "MQA" if spec.kv_heads == 1 else "GQA"


# -- the catalogue


def _folder() -> Traversable:
    return files("profiles").joinpath("models")


@cache
def sheet_names() -> tuple[str, ...]:
    """Names of all sheets, sorted; no file is read."""
    return tuple(sorted(x.name.removesuffix(".yaml") for x in _folder().iterdir() if x.name.endswith(".yaml")))


@cache
def _heads() -> dict[str, str]:
    """Sheet -> its lines `name`, `repo` and `aliases`, lower case: what a name is looked up in without parsing YAML."""
    heads = {}
    for name in sheet_names():
        text = _folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        heads[name] = "\n".join(_LISTED.findall(text.partition("\nconfig:")[0])).lower()
    return heads


def _read(sheet: str) -> tuple[tuple[str, ...], ModelSpec]:
    """A sheet of the catalogue: its aliases and its model."""
    from advisor.catalog.model_schema import read_sheet

    text = _folder().joinpath(f"{sheet}.yaml").read_text(encoding="utf-8")
    parsed, spec = read_sheet(parse_yaml(text, origin=f"{sheet}.yaml"), origin=f"{sheet}.yaml")
    return tuple(parsed.aliases), spec


def find_sheet(name: str) -> str | None:
    """The sheet whose name, repository or alias is `name` (case aside, organisation and -instruct, -chat, -hf optional)."""
    key = name.lower()
    if key in sheet_names():
        return key
    for wanted in dict.fromkeys((key, _VARIANT.sub("", key))):
        word = re.compile(r"(?<![\w.-])" + re.escape(wanted) + r"(?![\w./-])")
        for sheet, head in _heads().items():
            if wanted in head and word.search(head):
                return sheet
    return None


def _from_catalogue(sheet: str, asked: str, key: str) -> LoadedModel:
    _, spec = _read(sheet)
    if REPO_ID.match(key) and key.lower() != spec.repo.lower():
        spec = replace(spec, repo=key)  # a variant of the same architecture: what is launched is what was asked for
    if asked.lower() in (spec.name, spec.repo.lower()):
        taken_as = asked if REPO_ID.match(key) is None else spec.name
    else:
        taken_as = f"{spec.name} ({spec.repo})" if spec.repo else spec.name
    return LoadedModel(spec=spec, asked=asked, taken_as=taken_as)


def _nearest(name: str) -> str:
    """`: did you mean a, b or c` as far as anything is near, else an empty text."""
    import difflib

    names: dict[str, str] = {}
    for sheet, head in _heads().items():
        for word in re.findall(r"[a-z0-9][\w./-]*[\w]", head):
            names.setdefault(word.rpartition("/")[2], sheet)
        names[sheet] = sheet
    key = name.lower().rpartition("/")[2][:80]
    near = list(dict.fromkeys(names[x] for x in difflib.get_close_matches(key, names, n=6, cutoff=0.6)))[:3]
    return f": did you mean {', '.join(near[:-1])}{' or ' if near[1:] else ''}{near[-1]}" if near else ""


# -- files


def _existing(name: str) -> Path | None:
    """`name` as a path, where something is there. A catalogue name wins over a file or folder that happens to be called so."""
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    try:
        there = path.exists()
    except (OSError, ValueError):
        return None
    if not there:
        return None
    described = (path / "config.json").is_file() if path.is_dir() else path.suffix.lower() in _FILES
    return path if described or not find_sheet(name.rstrip("/")) else None


def _local(path: Path, asked: str) -> LoadedModel:
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise QuestionError(f"the folder {asked!r} has no config.json: give a model's folder or its config file.")
        path = path / "config.json"
    if path.suffix.lower() in (".yaml", ".yml"):
        from advisor.catalog.model_schema import read_sheet

        _, spec = read_sheet(parse_yaml(read_text(path), origin=str(path)), origin=str(path))
    else:
        name = path.resolve().parent.name if path.name == "config.json" else path.stem
        spec = read_config_file(path, name=name or "config.json", source=str(path))
    return LoadedModel(spec=spec, asked=asked, taken_as=f"{spec.name} ({spec.architecture}, {spec.params / 1e9:.3g}B parameters)")


# -- other formats than the checkpoint's

# What users and tables call the formats of advisor.specs.formats.
_SPELLINGS = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "fp8_e4m3": "fp8",
    "fp8-e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "fp8-e5m2": "fp8",
    "float8": "fp8",
    "w8a8-fp8": "fp8",
    "fp8_block": "fp8-block",
    "w8a8": "int8",
    "w8a8-int8": "int8",
    "smoothquant": "int8",
    "w8a16": "int8-wo",
    "int4-awq": "int4",
    "int4-gptq": "int4",
    "awq": "int4",
    "gptq": "int4",
    "awq_marlin": "int4",
    "gptq_marlin": "int4",
    "w4a16": "int4",
    "fp4": "nvfp4",
    "modelopt_fp4": "nvfp4",
    "w4a16_nvfp4": "nvfp4-wo",
    "gguf": "q4_k_m",
}
_WIDE = ("bf16", "fp16", "fp32")
_KV = ("bf16", "fp16", "fp8", "int8", "nvfp4")
# A checkpoint that is already stored so is taken as it is: --dtype fp8 of a block-scaled fp8 checkpoint changes nothing.
_SAME = ({"fp8", "fp8-block"}, {"int4", "int4-g32"}, {"nvfp4", "nvfp4-wo"})


def format_name(text: str) -> str:
    """The name in FORMATS of a format as users spell it. Raises QuestionError."""
    key = text.strip().lower()
    key = _SPELLINGS.get(key, key)
    if key not in FORMATS:
        raise unknown("number format", text, ["auto", *sorted({*FORMATS, "awq", "gptq"})])
    return key


def requantise(spec: ModelSpec, *, dtype: str | None, kv_dtype: str | None) -> ModelSpec:
    """The model with its linear layers stored as `dtype` and its cache as `kv_dtype`; None and "auto" keep the checkpoint's.

    Attention, feed-forward blocks and experts change; embedding and head stay in 16 bits. Two formats follow what is published
    for mixtures of experts: nvfp4 leaves attention in 16 bits (nvidia/DeepSeek-R1-NVFP4, MiniMax-M2.5-NVFP4, GLM-5.2-NVFP4) and
    mxfp4 all but the experts (gpt-oss). A 16-bit `dtype` of a quantised
    checkpoint means dequantised weights. Raises QuestionError for a format that is not known.
    """
    if dtype is not None and dtype.strip().lower() != "auto":
        spec = _with_weights(spec, format_name(dtype))
    if kv_dtype is not None and kv_dtype.strip().lower() != "auto":
        kv = format_name(kv_dtype)
        if kv not in _KV:
            raise QuestionError(
                f"a KV cache in {kv_dtype[:40]!r} is not served by any engine here; use auto or one of {', '.join(_KV)}."
            )
        spec = replace(spec, kv_format=kv)
    return spec


def published_as(spec: ModelSpec) -> ModelSpec:
    """The model with the checkpoint that the catalogue knows in its number format, where the format is not that of its own.

    A sheet `<name>-<format>` (llama-3.1-70b-fp8) has it. Only the checkpoint is taken from there. A variant of the model that
    the user named by its id stays as it is, because the sheet's checkpoint is of the model that the sheet `<name>` names.
    """
    form = spec.weight_format
    sheet = f"{spec.name}-{form.removesuffix('-block')}"
    if not spec.requantised or sheet not in sheet_names() or _read(spec.name)[1].repo != spec.repo:
        return spec
    _, other = _read(sheet)
    stored = other.weight_format
    if stored != form:
        return spec
    return replace(spec, repo=other.repo, quantisation=other.quantisation, requantised=False)


def _with_weights(spec: ModelSpec, name: str) -> ModelSpec:
    now = spec.formats
    main = now.experts if spec.is_moe else now.ffn
    if main == name or any({main, name} <= same for same in _SAME):
        return spec
    if name in _WIDE:
        kv = name if spec.kv_format in ("bf16", "fp16") and name != "fp32" else spec.kv_format
        formats = WeightFormats(attention=name, ffn=name, experts=name, embedding=name, head=name)
        said = () if main in _WIDE else (f"the published checkpoint is {main}; its weights are taken as dequantised to {name}",)
        return replace(spec, formats=formats, kv_format=kv, requantised=True, caveats=(*spec.caveats, *said))
    wide = now.embedding if now.embedding in _WIDE else "bf16"
    parts: dict[str, Any] = {"attention": name, "ffn": name, "experts": name, "embedding": wide, "head": wide}
    if spec.is_moe and name in ("nvfp4", "nvfp4-wo", "mxfp4"):
        parts["attention"] = wide
        parts["ffn"] = wide if name == "mxfp4" else name
    return replace(spec, formats=WeightFormats(**parts), requantised=True)
