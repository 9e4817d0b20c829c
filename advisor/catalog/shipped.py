"""The data sheets that ship with the program: found by name or alias without parsing the others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from advisor.errors import QuestionError

_ALIASES = re.compile(r"^(aliases|driver_names):[ ]*(?:\[([^\]]*)\]|((?:\n[ ]*-[^\n]*)+))", re.MULTILINE)
_HEAD_CHARACTERS = 1500  # names stand at the top of a sheet
_MAKERS = ("nvidia", "geforce", "tesla", "quadro", "amd", "instinct", "rtx")


def folder(kind: str) -> Traversable:
    """The folder of one kind of sheet: `hardware`, `nodes`, `networks`, `engines`, `calibration`, ..."""
    return files("profiles").joinpath(kind)


@cache
def sheet_names(kind: str) -> tuple[str, ...]:
    """Names of all sheets of a kind, sorted; reads no file."""
    place = folder(kind)
    if not place.is_dir():
        return ()
    return tuple(sorted(entry.name[: -len(".yaml")] for entry in place.iterdir() if entry.name.endswith(".yaml")))


def sheet_text(kind: str, name: str) -> str:
    """The text of a shipped sheet, by its own name."""
    return folder(kind).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def _head(kind: str, name: str) -> str:
    with folder(kind).joinpath(f"{name}.yaml").open(encoding="utf-8") as file:
        return file.read(_HEAD_CHARACTERS)


def plain(name: str) -> str:
    """A name without case, punctuation and maker, so that `NVIDIA GeForce RTX 4090` and `rtx-4090` are one."""
    text = re.sub(r"[^a-z0-9.]", "", name.lower())
    text = re.sub(r"(?<=\d)gb", "g", text)
    stripped = True
    while stripped:
        stripped = False
        for maker in _MAKERS:
            if text.startswith(maker) and len(text) > len(maker):
                text, stripped = text[len(maker) :], True
    return text


@cache
def known_names(kind: str) -> dict[str, str]:
    """Plain name or alias -> sheet name; a driver's name where no alias is the same, since drivers call several products by one."""
    aliases, drivers = _scan(kind)
    return {**{name: sheets[0] for name, sheets in drivers.items()}, **aliases}


def driver_sheets(kind: str, reading: str) -> tuple[str, ...]:
    """The sheets that the driver's name may mean, the usual one first."""
    usual = known_names(kind).get(plain(reading))
    return (usual, *(s for s in _scan(kind)[1].get(plain(reading), ()) if s != usual)) if usual else ()


@cache
def _scan(kind: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """(alias -> sheet, driver name -> sheets) from one pass over the heads of the texts for `aliases:` and `driver_names:`."""
    aliases = {plain(sheet): sheet for sheet in sheet_names(kind)}
    drivers: dict[str, tuple[str, ...]] = {}
    for sheet in sheet_names(kind):
        for field, flow, block in _ALIASES.findall(_head(kind, sheet)):
            words = flow.split(",") if flow else [line.strip()[1:] for line in block.strip().splitlines()]
            for word in words:
                name = plain(word.strip().strip("'\""))
                if name and field == "aliases":
                    aliases.setdefault(name, sheet)
                elif name:
                    drivers[name] = (*drivers.get(name, ()), sheet)
    return aliases, drivers


def find_sheet(kind: str, name: str, *, what: str, list_with: str = "") -> str:
    """The sheet that `name` means. Raises QuestionError with the nearest names and the command that lists them, or with all."""
    if name in sheet_names(kind):
        return name
    known = known_names(kind)
    sheet = known.get(plain(name))
    if sheet is None:
        names = sheet_names(kind)
        others = f", nearest are {nearest(name, known, names)}; see `{list_with}`" if list_with else f"; use {', '.join(names)}"
        raise QuestionError(f"unknown {what} {name[:60]!r}{others}.")
    return sheet


def nearest(name: str, known: dict[str, str], names: Iterable[str]) -> str:
    """The three names most like it, as words: `a, b or c`; those that begin with it count as well."""
    import difflib

    target = plain(name)[:80]
    near = [other for other in names if target and plain(other).startswith(target)]
    for word in difflib.get_close_matches(target, known, n=8, cutoff=0.0):
        if known[word] not in near:
            near.append(known[word])
    return " or ".join(filter(None, (", ".join(near[:3][:-1]), near[:3][-1])))
