"""What the shell completes an option to: names of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import get_args

from advisor.catalog.engines import list_engines
from advisor.catalog.presets import list_presets
from advisor.catalog.shipped import sheet_names
from advisor.specs.formats import FORMATS
from advisor.specs.workload import Goal

_KNOWN: dict[str, Callable[[], Iterable[str]]] = {
    "model": lambda: sheet_names("models"),
    "gpu": lambda: sheet_names("hardware"),
    "node": lambda: sheet_names("nodes"),
    "network": lambda: sheet_names("networks"),
    "engine": lambda: dict.fromkeys(engine.name for engine in list_engines()),
    "preset": lambda: [preset.name for preset in list_presets()],
    "dtype": lambda: FORMATS,
    "kv_dtype": lambda: FORMATS,
    "goal": lambda: get_args(Goal),
}


def known(option: str) -> list[str]:
    """Words that an option may take; none where any text may be meant."""
    return list(_KNOWN[option]()) if option in _KNOWN else []
