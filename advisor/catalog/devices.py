"""Hardware sheets -> `Device`, by name, alias, path, or what a driver calls the GPU."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from advisor.catalog.machine_schema import DeviceSheet, validated
from advisor.catalog.shipped import driver_sheets, find_sheet, sheet_names, sheet_text
from advisor.errors import ProfileError, QuestionError
from advisor.specs.cluster import Device
from advisor.untrusted import parse_yaml, read_text

# A driver's total is up to 3% below the sheet's (the driver's own share differs by version); a slice of a GPU is far below.
_SAME_MEMORY = 0.12


def load_device(name: str) -> Device:
    """The GPU that `name` means: a sheet's name, an alias, or the path of a hardware YAML.

    Raises QuestionError with the nearest names, ProfileError when a file does not say what it must.
    """
    return device_of(device_sheet(name))


def device_sheet(name: str) -> DeviceSheet:
    """The whole sheet, sources included, of the GPU that `name` means. Raises as `load_device`."""
    if not name.strip():
        raise QuestionError("no GPU was named: say one, e.g. h100-80g-sxm; see `advisor gpus`.")
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        sheet = validated(DeviceSheet, parse_yaml(read_text(path), origin=name), origin=name)
        if sheet.name in sheet_names("hardware"):
            raise ProfileError(f"{name} is named {sheet.name}, which is a shipped sheet: give it a name of its own.")
        return sheet
    return _shipped(find_sheet("hardware", name, what="GPU", list_with="advisor gpus"))


def list_devices() -> list[Device]:
    """Every shipped GPU, by name."""
    return [device_of(_shipped(name)) for name in sheet_names("hardware")]


def device_for_reading(nvml_name: str, memory_bytes: float | None) -> Device | None:
    """The shipped GPU that a driver calls `nvml_name`, told apart by its memory; None when no sheet fits.

    A board with more memory than the sheet (a modified card) keeps the sheet with the memory read; one with far less is a slice
    of the GPU, of which the sheet's other figures would be wrong.
    """
    candidates = [_device(name) for name in _driver_sheets(nvml_name)]
    if not candidates:
        return None
    if memory_bytes is None:
        return candidates[0]
    nearest = min(candidates, key=lambda device: abs(device.memory_bytes - memory_bytes))
    share = memory_bytes / nearest.memory_bytes
    if abs(share - 1) <= _SAME_MEMORY:
        return nearest
    return replace(nearest, memory_bytes=memory_bytes) if 1 < share < 4 else None


def device_of(sheet: DeviceSheet) -> Device:
    """The figures of a sheet as a Device; memory, rates and bandwidths as the sheet gives them, SI."""
    return Device(
        name=sheet.name,
        architecture=sheet.architecture,
        vendor=sheet.vendor,
        compute_capability=sheet.compute_capability,
        memory_bytes=sheet.memory.value,
        memory_bytes_per_s=sheet.bandwidth.value,
        peak_flop_per_s=tuple(sorted((name, figure.value) for name, figure in sheet.peaks.items())),
        sms=sheet.sms.value,
        l2_bytes=sheet.l2.value,
        link_kind=sheet.link.kind if sheet.link else None,
        link_bytes_per_s=sheet.link.bandwidth.value if sheet.link else 0.0,
        pcie_bytes_per_s=sheet.pcie.value,
        p2p=sheet.p2p.value,
        power_w=sheet.power.value,
        price_usd_per_hour=sheet.price.value if sheet.price else None,
        price_date=sheet.price.date if sheet.price else "",
        link_count=sheet.link.count if sheet.link else 0,
        driver_names=tuple(sheet.driver_names),
    )


@cache
def _shipped(name: str) -> DeviceSheet:
    origin = f"hardware sheet {name}"
    sheet = validated(DeviceSheet, parse_yaml(sheet_text("hardware", name), origin=origin), origin=origin)
    if sheet.name != name:
        raise ProfileError(f"{origin} is named {sheet.name} inside: file name and name must be the same.")
    return sheet


def _device(name: str) -> Device:
    return device_of(_shipped(name))


def _driver_sheets(reading: str) -> tuple[str, ...]:
    """Sheets for a driver's name; a virtual GPU's profile (`L40S-48C`) is dropped word by word from the end."""
    words = [word for word in re.split(r"[^A-Za-z0-9.]+", reading) if word]
    for end in range(len(words), 0, -1):
        found = driver_sheets("hardware", " ".join(words[:end]))
        if found:
            return found
    return ()
