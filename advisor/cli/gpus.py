"""`advisor gpus`: the GPU catalogue, or one GPU's sheet."""

from __future__ import annotations

from typing import Annotated

import typer

from advisor.cli import options
from advisor.cli.show import emit, screen


def gpus(
    name: Annotated[str, typer.Argument(help="GPU name or alias, or a path to a sheet.", show_default=False)] = "",
    as_json: options.Json = False,
) -> None:
    """List the GPU catalogue, or show one GPU's data sheet and what is known of how much of it is reached."""
    from advisor.catalog.devices import list_devices, load_device
    from advisor.report import catalog

    if not name:
        devices = sorted(list_devices(), key=lambda d: (d.vendor, d.architecture, d.name))
        emit(catalog.data_json(devices) if as_json else catalog.gpus_page(devices, screen=screen()))
        return
    device = load_device(name)
    if as_json:
        emit(catalog.data_json(device))
        return
    from advisor.catalog.calibrations import load_calibration

    emit(catalog.gpu_page(device, load_calibration(device), screen=screen()))
