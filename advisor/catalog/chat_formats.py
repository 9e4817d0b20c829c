"""How a model's family writes tool calls and thoughts, as each engine calls it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from advisor.specs.model import ModelSpec
from advisor.specs.wire import from_data
from advisor.untrusted import parse_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """One family. `models` is the pattern of repository names; parsers and chat templates go by engine."""

    name: str
    models: str
    sources: tuple[str, ...]
    tool: dict[str, str] = field(default_factory=dict)
    reasoning: dict[str, str] = field(default_factory=dict)
    template: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a fact was read."""

    link: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormats:
    """The sheet. Raises ValueError where a family cites a source that is not listed."""

    sources: dict[str, Source]
    formats: tuple[ChatFormat, ...]

    def __post_init__(self) -> None:
        cited = {source for family in self.formats for source in family.sources}
        if missing := cited - set(self.sources):
            raise ValueError(f"sources that are not listed: {', '.join(sorted(missing))}")


def chat_format(model: ModelSpec) -> ChatFormat | None:
    """The family of the checkpoint that is served; None where no documentation names it."""
    name = (model.repo or model.name).lower()
    return next((family for family in list_chat_formats() if re.search(family.models, name)), None)


@cache
def list_chat_formats() -> tuple[ChatFormat, ...]:
    """Every family, in the order in which they are tried."""
    origin = "chat_formats.yaml"
    text = files("profiles").joinpath(origin).read_text(encoding="utf-8")
    return from_data(parse_yaml(text, origin=origin), ChatFormats, origin=origin).formats
