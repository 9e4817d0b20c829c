"""What a model's YAML sheet may say, and how it becomes a ModelSpec: figures of the config under `config:`, formats by part."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from advisor.catalog.config_fields import Fields
from advisor.catalog.huggingface import read_fields
from advisor.errors import ProfileError
from advisor.specs.formats import FORMATS
from advisor.specs.model import ModelSpec, WeightFormats
from advisor.specs.wire import first_problem

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Day = Annotated[str, Field(pattern=r"^20\d\d-\d\d-\d\d$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class ModelSource(_Strict):
    """Where the figures were read, what of them if not all, and when."""

    link: Annotated[str, Field(min_length=1, max_length=500)]
    read: Day
    what: Annotated[str, Field(max_length=300)] = "config.json"


class PartFormats(_Strict):
    """Number formats of a quantised checkpoint, part by part; `ffn` speaks for the experts where they are not named."""

    attention: Name
    ffn: Name
    experts: Name | None = None
    embedding: Name | None = None
    head: Name | None = None


class ModelSheet(_Strict):
    """One model. `config` holds the fields of the published config.json that decide size and function, under its own names."""

    name: Name
    repo: Annotated[str, Field(max_length=200)] = ""
    aliases: list[Name] = []
    sources: Annotated[list[ModelSource], Field(min_length=1)]
    config: dict[str, Any]
    weights: PartFormats | None = None
    kv_cache: Name | None = None
    caveats: list[Annotated[str, Field(max_length=300)]] = []


def read_sheet(data: dict[str, Any], *, origin: str) -> tuple[ModelSheet, ModelSpec]:
    """The sheet and its model. Raises ProfileError naming `origin`: a wrong or extra key, a figure nothing reads, no source."""
    try:
        sheet = ModelSheet.model_validate(data)
    except ValidationError as error:
        raise ProfileError(f"{origin} is not a valid model sheet: {first_problem(error)}.") from None
    fields = Fields(sheet.config, sheet.name)
    source = "; ".join(f"{x.link} ({x.what}, read {x.read})" for x in sheet.sources)
    spec = read_fields(fields, None, source=source, repo=sheet.repo)
    if unread := fields.unread():
        raise ProfileError(
            f"{origin}: nothing reads config field {unread[0][:60]!r} of this architecture; remove it or correct its name."
        )
    if sheet.weights is not None:
        spec = _with_formats(spec, sheet.weights, origin)
    if sheet.kv_cache is not None:
        spec = replace(spec, kv_format=_known(sheet.kv_cache, origin))
    return sheet, replace(spec, caveats=(*sheet.caveats, *spec.caveats))


def _with_formats(spec: ModelSpec, parts: PartFormats, origin: str) -> ModelSpec:
    plain = spec.formats.embedding
    formats = WeightFormats(
        attention=_known(parts.attention, origin),
        ffn=_known(parts.ffn, origin),
        experts=_known(parts.experts or parts.ffn, origin),
        embedding=_known(parts.embedding or plain, origin),
        head=_known(parts.head or plain, origin),
    )
    stated = replace(spec, formats=formats)
    main = stated.weight_format
    return replace(stated, quantisation="" if FORMATS[main].bytes_per_value >= 2 else main)


def _known(name: str, origin: str) -> str:
    if name not in FORMATS:
        raise ProfileError(f"{origin}: number format {name[:40]!r} is not known; the known ones are {', '.join(FORMATS)}.")
    return name
