"""What NVML says of a GPU while it is measured: driver, clocks, throttling, and who else is on it. Silent where NVML is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# nvml.h, nvmlClocksThrottleReasons*: power cap, hardware slowdown, software thermal, hardware thermal, power brake.
_THROTTLED = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}
_BUSY_BYTES = 512 * 2**20  # a desktop or a monitoring agent holds less


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Clocks in MHz, why they are below their best, and the memory other processes hold."""

    sm_mhz: float
    most_mhz: float
    throttled: tuple[str, ...]
    others_bytes: float


class Gpu:
    """One GPU as NVML sees it, found by its UUID or PCI bus so that CUDA_VISIBLE_DEVICES does not mislead."""

    def __init__(self, uuid: str) -> None:
        self._nvml: ModuleType | None = None
        self._handle: Any = None
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        except (pynvml.NVMLError, OSError):
            return
        self._nvml = pynvml

    def driver(self) -> str:
        """The driver's version, empty where unknown."""
        return str(self._ask("nvmlSystemGetDriverVersion", device=False) or "")

    def read(self) -> Reading | None:
        """The GPU now; None where NVML does not say."""
        if self._nvml is None:
            return None
        sm = self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)
        most = self._ask("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_SM)
        if sm is None or most is None:
            return None
        reasons = int(self._ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0)
        throttled = tuple(dict.fromkeys(word for bit, word in _THROTTLED.items() if reasons & bit))
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses") or []
        others = sum(float(p.usedGpuMemory or 0) for p in processes if p.pid != os.getpid())
        return Reading(sm_mhz=float(sm), most_mhz=float(most), throttled=throttled, others_bytes=others)

    def _ask(self, function: str, *arguments: Any, device: bool = True) -> Any:
        if self._nvml is None:
            return None
        try:
            return getattr(self._nvml, function)(*([self._handle] if device else []), *arguments)
        except self._nvml.NVMLError:
            return None


def notes(before: Reading | None, after: Reading | None) -> tuple[str, ...]:
    """What was not as it should be while a cell ran."""
    found = []
    for reading in (after, before):
        if reading is not None and reading.throttled:
            found.append(
                f"clocks were held down ({', '.join(reading.throttled)}): {reading.sm_mhz:.0f} of {reading.most_mhz:.0f} MHz"
            )
            break
    if before is not None and before.others_bytes > _BUSY_BYTES:
        found.append(f"another process holds {before.others_bytes / 2**30:.1f} GiB of this GPU; what it computes slows this down")
    return tuple(found)
