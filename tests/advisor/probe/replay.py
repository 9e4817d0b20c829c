"""A recorded or constructed machine behind the same door as the driver: JSON in, `call` out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from advisor.probe.nvml import Host, NvmlError, read_nvml
from advisor.probe.readings import Readings

FOLDER = Path(__file__).parent / "readings"
MACHINES = sorted(path.stem for path in FOLDER.glob("*.json"))


def machine(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


class Replay:
    """`faults`: name of a call -> NVML error that it raises instead of answering. `called` counts by name."""

    def __init__(self, recorded: dict[str, Any], faults: dict[str, int] | None = None) -> None:
        self.recorded, self.faults = recorded, faults or {}
        self.called: dict[str, int] = {}

    def __call__(self, name: str, *arguments: Any) -> Any:
        self.called[name] = self.called.get(name, 0) + 1
        if name in self.faults:
            raise NvmlError(self.faults[name], f"error {self.faults[name]}")
        value = self._answer(name, *arguments)
        if isinstance(value, dict) and set(value) == {"error"}:
            raise NvmlError(value["error"], f"error {value['error']}")
        return value

    def _answer(self, name: str, *arguments: Any) -> Any:
        gpus = self.recorded["gpus"]
        if name == "nvmlInit":
            return {"error": self.recorded["init"]} if "init" in self.recorded else None
        if name == "nvmlShutdown":
            return None
        if name == "nvmlSystemGetDriverVersion":
            return "575.57.08"
        if name == "nvmlSystemGetCudaDriverVersion":
            return 12090
        if name == "nvmlDeviceGetCount":
            return len(gpus)
        if name == "nvmlDeviceGetHandleByIndex":
            return gpus[arguments[0]].get("handle", ["gpu", arguments[0]])
        kind, *where = arguments[0]
        if kind == "mig":
            return gpus[where[0]]["instances"][where[1]].get(name, {"error": 3})
        gpu = gpus[where[0]]
        if name in ("nvmlDeviceGetTopologyCommonAncestor", "nvmlDeviceGetP2PStatus"):
            pair = self.recorded["pairs"]["{}-{}".format(*sorted((where[0], arguments[1][1])))]
            return pair["ancestor"] if name.endswith("Ancestor") else pair["p2p"][arguments[2]]
        if name == "nvmlDeviceGetMigDeviceHandleByIndex":
            found = gpu.get("instances", [])
            return ["mig", where[0], arguments[1]] if arguments[1] < len(found) else {"error": 6}
        if name == "fabricInfo":
            return gpu.get("fabric", {"error": 3})
        if name == "nvmlDeviceGetMaxClockInfo":
            clocks = gpu.get(name, {"error": 3})
            return clocks if isinstance(clocks, dict) else clocks[arguments[1] - 1]
        if ("Link" in name and "NvLink" in name) or name == "nvlinkStateField":
            return self._link(name, gpu, arguments[1])
        return gpu.get(name, {"error": 3})

    def _link(self, name: str, gpu: dict[str, Any], link: int) -> Any:
        links = gpu.get("links")
        if not links or link >= len(links):
            return {"error": 3 if not links else 2}
        end, state = links[link]
        if name == "nvlinkStateField":
            return state
        if name == "nvmlDeviceGetNvLinkState":
            return {"error": 3} if gpu.get("links_by_field") else state
        if end == "?":
            return {"error": 3} if name.endswith("DeviceType") else "00000000:00:00.0"
        if name.endswith("DeviceType"):
            return 2 if end == "switch" else 0
        return "00000000:03:00.0" if end == "switch" else self.recorded["gpus"][int(end[3:])]["nvmlDeviceGetPciInfo"]


def read(name: str, *, faults: dict[str, int] | None = None, environment: dict[str, str] | None = None) -> Readings:
    recorded = machine(name)
    host = Host(environment=environment or recorded.get("environment", {}), wsl2=recorded.get("wsl2", False))
    return read_nvml(call=Replay(recorded, faults), host=host)
