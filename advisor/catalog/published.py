"""The published measurements that ship, and the engine coefficients fitted without each model and each GPU."""

from __future__ import annotations

import csv
from dataclasses import replace

from advisor.catalog.devices import load_device
from advisor.catalog.engines import load_engine
from advisor.catalog.shipped import folder, sheet_text
from advisor.specs.engine import Engine, HostTime
from advisor.specs.keys import ScaleKey
from advisor.specs.wire import from_data
from advisor.untrusted import parse_yaml

LEFT_OUT = "left_out"


def published_rows() -> list[dict[str, str | None]]:
    """The rows of profiles/published/points.csv, as text."""
    text = folder("published").joinpath("points.csv").read_text(encoding="utf-8")
    return [dict(row) for row in csv.DictReader(text.splitlines())]


def left_out() -> dict[tuple[str, str, str], Engine]:
    """(engine, version, group) -> the profile with the coefficients fitted without that group; empty where none ship."""
    if not folder("published").joinpath(f"{LEFT_OUT}.yaml").is_file():
        return {}
    found: dict[tuple[str, str, str], Engine] = {}
    origin = f"published {LEFT_OUT}"
    for entry in parse_yaml(sheet_text("published", LEFT_OUT), origin=origin)["fits"]:
        engine = load_engine(entry["engine"], entry["version"])
        host = from_data(entry["host"], HostTime, origin=origin)
        kind, _, name = entry["without"].partition(" ")
        fitted_on = engine.fitted_on
        if kind == "gpu":
            fitted_on = tuple(device for device in fitted_on if device != load_device(name).name)
        families = tuple(entry["families"])
        scales = tuple((ScaleKey.parse(name), factor) for name, factor in sorted(entry["scales"].items()))
        key = (entry["engine"], entry["version"], entry["without"])
        found[key] = replace(engine, host=host, scales=scales, fitted_on=fitted_on, fitted_families=families)
    return found
