"""A config.json (with hf_quant_config.json beside it) -> the text of a model's YAML sheet: only the fields that decide anything.

    python -m advisor.catalog.write_sheet CONFIG --name NAME --repo ORG/NAME --date YYYY-MM-DD [--alias A ...]

A field is left out when the model is the same without it, so a sheet stays short and says nothing that is not read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from advisor.catalog.huggingface import model_from_config
from advisor.errors import ProfileError
from advisor.specs.model import ModelSpec, WeightFormats
from advisor.untrusted import parse_json, read_text

_ALWAYS = ("architectures", "model_type", "num_hidden_layers", "hidden_size")
_QUANT = ("quantization_config", "compression_config", "torch_dtype", "dtype", "expert_dtype")


def sheet_text(
    config: Mapping[str, Any],
    quant: Mapping[str, Any] | None,
    *,
    name: str,
    repo: str,
    date: str,
    aliases: Sequence[str] = (),
    link: str = "",
    what: str = "",
) -> str:
    """The sheet of `config`. Raises ProfileError where the config is refused."""
    spec = model_from_config(config, quant, name=name, source="")
    plain = _without(config, _QUANT)
    bare = model_from_config(plain, None, name=name, source="")
    lines = [f"name: {name}"]
    lines += [f"repo: {repo}"] if repo else []
    lines += [f"aliases: [{', '.join(aliases)}]"] if aliases else []
    link = link or f"https://huggingface.co/{repo}/blob/main/config.json"
    what = what or ("config.json and hf_quant_config.json" if quant is not None else "")
    lines += ["sources:", f"  - {{link: {_scalar(link)}, read: {date}{f', what: {_scalar(what)}' if what else ''}}}"]
    lines += _formats(spec, bare)
    lines += ["config:", *_mapping(_smallest(plain, bare, name), "  ")]
    return "\n".join(lines) + "\n"


def _without(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """`config` without what the sheet says in its own words, in the text part too."""
    return {
        key: _without(value, keys) if key.endswith("_config") and isinstance(value, dict) else value
        for key, value in config.items()
        if key not in keys and value is not None
    }


def _smallest(config: dict[str, Any], spec: ModelSpec, name: str) -> dict[str, Any]:
    """`config` without every field whose absence changes nothing."""

    def same(candidate: dict[str, Any]) -> bool:
        try:
            return model_from_config(candidate, None, name=name, source="") == spec
        except ProfileError:
            return False

    def shrink(kept: dict[str, Any], rebuild: Callable[[dict[str, Any]], dict[str, Any]], *, outermost: bool) -> dict[str, Any]:
        # Long lists first: where a rule of the family says the same, the rule stays.
        for key in sorted(kept, key=lambda k: -len(repr(kept[k]))):
            if not (outermost and key in _ALWAYS) and same(rebuild({k: v for k, v in kept.items() if k != key})):
                kept = {k: v for k, v in kept.items() if k != key}
            elif isinstance(kept[key], dict):
                outer = kept
                kept = {**outer, key: shrink(outer[key], partial(_put, rebuild, outer, key), outermost=False)}
        return kept

    return shrink(config, lambda whole: whole, outermost=True)


def _put(
    rebuild: Callable[[dict[str, Any]], dict[str, Any]], outer: dict[str, Any], key: str, inner: dict[str, Any]
) -> dict[str, Any]:
    """The whole config with `inner` in the place of `outer[key]`."""
    return rebuild({**outer, key: inner})


def _formats(spec: ModelSpec, bare: ModelSpec) -> list[str]:
    """`weights` and `kv_cache` lines where the checkpoint is not plain bf16."""
    lines = []
    if spec.formats != bare.formats:
        f, plain = spec.formats, WeightFormats()
        parts = {"attention": f.attention, "ffn": f.ffn}
        parts |= {"experts": f.experts} if spec.is_moe and f.experts != f.ffn else {}
        parts |= {part: getattr(f, part) for part in ("embedding", "head") if getattr(f, part) != getattr(plain, part)}
        lines.append(f"weights: {{{', '.join(f'{k}: {v}' for k, v in parts.items())}}}")
    if spec.kv_format != bare.kv_format:
        lines.append(f"kv_cache: {spec.kv_format}")
    said = [c for c in spec.caveats if c not in bare.caveats]
    if said:
        lines += ["caveats:", *(f"  - {_scalar(c)}" for c in said)]
    return lines


def _mapping(data: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in data.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_mapping(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {_scalar(value)}")
    return lines


def _scalar(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.1f}"
    if isinstance(value, list):
        return f"[{', '.join(_scalar(x) for x in value)}]"
    if isinstance(value, str):
        quoted = not value or set(value) & set(":{}[],&*#?|<>=!%@`'\"") or value.strip() != value or value[0] in "-"
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if quoted else value
    text = repr(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text  # YAML 1.1's float


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(prog="python -m advisor.catalog.write_sheet", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--date", required=True)
    parser.add_argument("--alias", action="append", default=[])
    args = parser.parse_args()
    beside = args.config.with_name("hf_quant_config.json")
    quant = parse_json(read_text(beside), origin=str(beside)) if beside.is_file() else None
    config = parse_json(read_text(args.config), origin=str(args.config))
    try:
        print(sheet_text(config, quant, name=args.name, repo=args.repo, date=args.date, aliases=args.alias), end="")
    except ProfileError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
