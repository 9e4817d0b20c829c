"""Readings fit to be posted: nothing in them tells one card or host from another of its kind."""

from __future__ import annotations

from dataclasses import replace

from advisor.probe.readings import GpuReading, Readings


def redacted(readings: Readings) -> Readings:
    """Readings without UUIDs, PCI addresses and the UUID of the fabric; GPUs are named by their index."""
    notes = tuple(note for note in readings.notes if "GPU-" not in note and "MIG-" not in note)
    return replace(readings, gpus=tuple(_plain(gpu) for gpu in readings.gpus), notes=notes)


def _plain(gpu: GpuReading) -> GpuReading:
    named = gpu.visible_as if gpu.visible_as.isdigit() else ("" if gpu.kind == "mig" else str(gpu.index))
    fabric = ("redacted", gpu.fabric[1]) if gpu.fabric else None
    return replace(gpu, uuid=None, pci_address=None, parent=None, fabric=fabric, visible_as=named)
