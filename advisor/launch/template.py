"""The template files of this room: bash and YAML bodies with places marked `@name@`, filled with quoted values only.

A place alone on its line takes a block: any number of lines, each indented as the place is; no lines remove it. A place inside a
line takes one value, which is quoted for the language of the file: text can never leave the word it stands in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files

from advisor.launch.words import Raw
from advisor.launch.yaml_text import scalar

Value = str | int | Raw
_PLACE = re.compile(r"@([a-z][a-z0-9_]*)@")
_LINE = re.compile(r"( *)@([a-z][a-z0-9_]*)@")


def lines(name: str, /, **values: Value | Sequence[str]) -> list[str]:
    """The lines of a template with its places filled in: a sequence is a block, anything else one value.

    A place without a value and a value without a place are mistakes of this room: KeyError.
    """
    unused = set(values)
    found: list[str] = []
    quote = scalar if name.endswith(".yaml") else shlex.quote
    for line in body(name):
        block = _LINE.fullmatch(line)
        if block:
            value = values[block[2]]
            assert not isinstance(value, str | int | Raw), "a place alone on its line takes lines"
            found += [f"{block[1]}{row}" if row else "" for row in value]
            unused.discard(block[2])
            continue
        unused -= set(_PLACE.findall(line))
        found.append(_PLACE.sub(lambda place: _one(values[place[1]], quote), line))
    if unused:
        raise KeyError(f"{name} has no place for {', '.join(sorted(unused))}")
    return found


@cache
def body(name: str) -> tuple[str, ...]:
    """The lines of a template file as it lies in the folder."""
    return tuple(files("advisor.launch").joinpath("templates", name).read_text(encoding="utf-8").splitlines())


def _one(value: Value | Sequence[str], quote: Callable[[str], str]) -> str:
    """A value as a word of the file's language; a number and what already is in that language are taken as they are."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, int):
        return str(value)
    assert isinstance(value, str), "a block has a line of its own"
    return quote(value)
