"""This machine, or a pasted text of another: `probe()` reads the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advisor.probe.readings import Readings


def probe() -> Readings:
    """What the driver says of this machine; a `reason` in words where it says nothing. Raises nothing for the machine's sake."""
    from advisor.probe.nvml import read_nvml

    return read_nvml()
