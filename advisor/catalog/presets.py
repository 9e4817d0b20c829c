"""Named workloads: lengths and limits as data with source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from advisor.catalog.shipped import folder
from advisor.errors import ProfileError, unknown
from advisor.untrusted import parse_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named workload: mean lengths, the limits people hold it to (None: none), and whether requests queue or come one by one."""

    name: str
    input_tokens: int
    output_tokens: int
    ttft_s: float | None
    tpot_s: float | None
    mode: Literal["capacity", "offline"]
    source: str


def load_preset(name: str) -> Preset:
    """The preset of this name. Raises QuestionError with the nearest of them."""
    presets = _presets()
    if name not in presets:
        raise unknown("preset", name, presets)
    return presets[name]


def list_presets() -> list[Preset]:
    """Every preset, in the order of the file."""
    return list(_presets().values())


@cache
def _presets() -> dict[str, Preset]:
    from advisor.specs.wire import from_data

    origin = "profiles/presets.yaml"
    data = parse_yaml(folder("presets.yaml").read_text(encoding="utf-8"), origin=origin)
    found = {}
    for name, entry in data.items():
        if not isinstance(entry, dict):
            raise ProfileError(f"{origin}: {name} must be a mapping of its lengths and limits.")
        found[name] = from_data({"name": name, **entry}, Preset, origin=f"{origin}, {name}")
    return found
