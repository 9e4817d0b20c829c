"""Calibration files: the one of a device, its family's where it has none, the user's own; checked when read, written whole."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from advisor.catalog.devices import load_device
from advisor.catalog.shipped import known_names, plain, sheet_names, sheet_text
from advisor.errors import ProfileError
from advisor.files import write_whole
from advisor.specs.calibration import Calibration, Provenance
from advisor.specs.cluster import Device
from advisor.specs.wire import from_data, to_data
from advisor.untrusted import parse_json, parse_yaml, read_text

VERSION = 1
_CLOSENESS = ("device", "family", "default")
# A kernel may beat a data sheet by reading from cache or by a clock above the rated one, and NVLink SHARP adds in the switch, so
# that fewer bytes cross the links than the ring's count; half as much again is a typing mistake.
MOST_REACH = 1.5
_LONGEST_S = 0.1  # of one kernel's launch or one collective's start: measured ones are 1 us to 1 ms


def load_calibration(device: Device, *, local: bool = True, exact: bool = True) -> Calibration:
    """What this device reaches: this machine's own file where `local` and it is sound, else the shipped one.

    `exact` False passes over the shipped file of this very device, to see what its family would say of it.

    A device without a shipped file takes the nearest of its architecture (closeness "family"), else the shipped `default` set
    (closeness "default"); the source then names whose it is. A local file that cannot be read is named in `notes`, and the
    shipped one stays.
    """
    note = ""
    path = local_calibration_path(device)
    if local and path.exists():
        try:
            return read_calibration(path, device)
        except ProfileError as error:
            note = f"The calibration of this machine is left out: {error}"
    found = _shipped_for(device, exact=exact)
    return replace(found, notes=(*found.notes, note)) if note else found


def read_calibration(path: Path, device: Device) -> Calibration:
    """The calibration in a file. Raises ProfileError when it is damaged, of another version or GPU, or holds impossible figures."""
    text = read_text(path)
    origin = str(path)
    data = parse_json(text, origin=origin) if path.suffix == ".json" else parse_yaml(text, origin=origin)
    version = data.get("version")
    if version != VERSION:
        raise ProfileError(
            f"{origin} is of calibration version {str(version)[:20]}, this program reads {VERSION}: calibrate again."
        )
    written = data.pop("entries", None)
    if written is not None and written != (found := _entries(data)):
        raise ProfileError(f"{origin} was cut short: it holds {found} of its {str(written)[:20]} entries; calibrate again.")
    calibration = from_data(data, Calibration, origin=origin)
    if calibration.device != device.name and known_names("hardware").get(plain(calibration.device)) != device.name:
        raise ProfileError(f"{origin} was measured on {calibration.device}, not on {device.name}: calibrate on that GPU.")
    return checked(calibration, origin=origin)


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as YAML, whole or not at all. Raises as `files.write_whole` does."""
    import yaml

    checked(calibration, origin=f"calibration {calibration.name}")
    data = to_data(calibration)
    data = {"entries": _entries(data), **data}
    text = yaml.dump(data, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, width=120)
    write_whole(path, text)


def _entries(data: Mapping[str, Any]) -> int:
    """Coefficients and notes of a calibration file: half a file can be whole YAML, so it says how many it holds."""
    return sum(len(value) for value in data.values() if isinstance(value, list))


def local_calibration_path(device: Device) -> Path:
    """Where this machine's calibration of a device is kept: the user's configuration folder, as XDG places it."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(base) if base and os.path.isabs(base) else Path(os.path.expanduser("~")) / ".config"
    word = "".join(c if c.isalnum() or c in "-." else "-" for c in device.name)
    return home / "advisor" / "calibration" / f"{word}.yaml"


def checked(calibration: Calibration, *, origin: str) -> Calibration:
    """The calibration itself when its figures are possible. Raises ProfileError naming the first key that is not."""
    births = [(str(key), reach.provenance) for key, reach in calibration.kernels]
    births += [(str(key), line.provenance) for key, line in calibration.wires]
    for key, born in births:
        if born.closeness not in _CLOSENESS:
            raise ProfileError(f"{origin} says closeness {born.closeness[:20]!r} for {key}; use {', '.join(_CLOSENESS)}.")
    for key, figure, low, high in _figures(calibration):
        if not (math.isfinite(figure) and low <= figure <= high):
            raise ProfileError(f"{origin} says {figure:g} for {key}, possible are {low:g} to {high:g}: calibrate again.")
    return calibration


def _figures(calibration: Calibration) -> Iterator[tuple[str, float, float, float]]:
    """(name, figure, lowest, highest) of every figure that the physics divides or multiplies by."""
    for kernel, reach in calibration.kernels:
        yield f"{kernel} memory", reach.memory, 0.001, MOST_REACH
        yield f"{kernel} compute", reach.compute, 0.001, MOST_REACH
        yield f"{kernel} launch_s", reach.launch_s, 0.0, _LONGEST_S
        yield f"{kernel} sharpness", reach.sharpness, 0.2, 100.0
        for name, figure in reach.shape:
            yield f"{kernel} {name}", figure, -1e9, 1e15
    for wire, line in calibration.wires:
        yield f"{wire} alpha_s", line.alpha_s, 0.0, _LONGEST_S
        yield f"{wire} alpha_per_rank_s", line.alpha_per_rank_s, 0.0, _LONGEST_S
        yield f"{wire} bandwidth", line.bandwidth, 0.0001, MOST_REACH
        yield f"{wire} up_to_bytes", line.up_to_bytes, 0.0, 1e30
    for key, spread in calibration.spreads:
        yield f"{key} shared", spread.shared, 0.0, 5.0
        yield f"{key} independent", spread.independent, 0.0, 5.0
    for key, factor in calibration.scales:
        yield f"scale {key}", factor, 0.01, 100.0


def _shipped_for(device: Device, *, exact: bool) -> Calibration:
    shipped = [name for name in sheet_names("calibration") if exact or name != device.name]
    if device.name in shipped:
        return _shipped(device.name)
    others = [load_device(name) for name in shipped if name in sheet_names("hardware")]
    family = [other for other in others if other.architecture == device.architecture]
    if family:
        nearest = min(family, key=lambda other: _distance(device, other))
        return _borrowed(_shipped(nearest.name), device, closeness="family", whose=nearest.name)
    return _borrowed(_shipped("default"), device, closeness="default", whose="the default set")


def _distance(device: Device, other: Device) -> float:
    """How unlike two GPUs are: the logarithms of their bandwidth and 16-bit rate, and another chip generation on top."""
    generation = 0.0 if device.compute_capability == other.compute_capability else 0.5
    generation += 0.0 if device.compute_capability.split(".")[0] == other.compute_capability.split(".")[0] else 2.0
    memory = abs(math.log(device.memory_bytes_per_s / other.memory_bytes_per_s))
    return generation + memory + abs(math.log(max(device.peak("bf16"), 1.0) / max(other.peak("bf16"), 1.0)))


def _borrowed(calibration: Calibration, device: Device, *, closeness: str, whose: str) -> Calibration:
    """Another device's coefficients, each saying so."""

    def born(provenance: Provenance) -> Provenance:
        further = max(closeness, provenance.closeness, key=_CLOSENESS.index)
        return replace(provenance, source=f"taken from {whose}: {provenance.source}", closeness=further)

    return replace(
        calibration,
        name=f"{device.name} as {whose}",
        device=device.name,
        kernels=tuple((key, replace(reach, provenance=born(reach.provenance))) for key, reach in calibration.kernels),
        wires=tuple((key, replace(line, provenance=born(line.provenance))) for key, line in calibration.wires),
    )


@cache
def _shipped(name: str) -> Calibration:
    origin = f"calibration {name}"
    data = parse_yaml(sheet_text("calibration", name), origin=origin)
    return checked(from_data(data, Calibration, origin=origin), origin=origin)
