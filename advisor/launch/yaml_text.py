"""YAML with comments: a small tree is written line by line, every scalar through the YAML dumper where it is not plain.

PyYAML writes no comments, and a manifest that a person is to read needs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Words that YAML 1.1 and 1.2 read as text, whatever the reader: no number, date, boolean or indicator looks like this.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*|--[A-Za-z][A-Za-z0-9_-]*(=[A-Za-z0-9_./,-]*)?")
_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"])


@dataclass(frozen=True, slots=True)
class Noted:
    """A value with a comment on the line above it."""

    value: Node
    why: str


@dataclass(frozen=True, slots=True)
class Alias:
    """A reference to an anchor."""

    name: str


COMMENT_WIDTH = 60
MERGE = "<<"
Scalar = str | int | bool | None
Node = Scalar | Noted | Alias | Mapping[str, "Node"] | Sequence["Node"]


def mapping(value: Mapping[str, Node]) -> list[str]:
    """The lines of a mapping."""
    return list(_mapping(value, 0))


def sequence(value: Sequence[Node]) -> list[str]:
    """The lines of a sequence."""
    return list(_sequence(value, 0))


def scalar(value: Scalar | Alias) -> str:
    """One scalar as YAML writes it on a line of its own."""
    if isinstance(value, Alias):
        return f"*{value.name}"
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value == MERGE or (_PLAIN.fullmatch(value) and value.lower() not in _WORDS):
        return value
    import yaml

    text: str = yaml.safe_dump(value, default_style='"', width=10**9, allow_unicode=True)
    return text.rstrip("\n")


def _note(why: str, indent: int) -> Iterable[str]:
    """The comment, broken so that it stays within the 80 columns that linters like where a template indents it further."""
    line = ""
    for word in why.split():
        if line and len(line) + 1 + len(word) > COMMENT_WIDTH:
            yield f"{' ' * indent}# {line}"
            line = word
        else:
            line = f"{line} {word}".strip()
    yield f"{' ' * indent}# {line}"


def _mapping(value: Mapping[str, Node], indent: int) -> Iterable[str]:
    pad = " " * indent
    for key, item in value.items():
        if isinstance(item, Noted):
            yield from _note(item.why, indent)
            item = item.value
        if isinstance(item, Mapping):
            yield f"{pad}{scalar(key)}:{'' if item else ' {}'}"
            yield from _mapping(item, indent + 2)
        elif isinstance(item, Sequence) and not isinstance(item, str):
            yield f"{pad}{scalar(key)}:{'' if item else ' []'}"
            yield from _sequence(item, indent + 2)
        elif isinstance(item, str) and "\n" in item:
            yield f"{pad}{scalar(key)}: |"
            yield from (f"{pad}  {line}".rstrip() for line in item.rstrip("\n").split("\n"))
        else:
            yield f"{pad}{scalar(key)}: {scalar(item)}".rstrip()  # type: ignore[arg-type]


def _sequence(value: Sequence[Node], indent: int) -> Iterable[str]:
    pad = " " * indent
    for item in value:
        if isinstance(item, Noted):
            yield from _note(item.why, indent)
            item = item.value
        if isinstance(item, Mapping):
            first, *rest = _mapping(item, indent + 2)
            yield f"{pad}- {first.lstrip()}"
            yield from rest
        elif isinstance(item, Sequence) and not isinstance(item, str):
            yield f"{pad}- [{', '.join(scalar(x) for x in item)}]"  # type: ignore[arg-type]
        elif isinstance(item, str) and "\n" in item:
            yield f"{pad}- |"
            yield from (f"{pad}  {line}".rstrip() for line in item.rstrip("\n").split("\n"))
        else:
            yield f"{pad}- {scalar(item)}"  # type: ignore[arg-type]
