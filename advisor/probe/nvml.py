"""The only door to the NVIDIA driver's library: every call by itself, every failure an unknown field, never a guess.

A reading goes through one function, `call(name, *arguments)`, that returns plain values (numbers, text, lists, dicts); a test
replays a recorded machine by giving another one. Errors of NVML are unhashable and do not compare with numbers: only their `.value`
is looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from advisor.probe.readings import GpuReading, PairReading, Readings
from advisor.specs.cluster import LinkKind

Call = Callable[..., Any]

# NVML's own numbers (nvml.h, driver 575).
_NOT_SUPPORTED, _NO_PERMISSION, _NOT_FOUND, _INVALID = 3, 4, 6, 2
_NO_DRIVER, _NO_LIBRARY, _LOST, _RESET, _MISMATCH = 9, 12, 15, 16, 18
_P2P_READ, _P2P_WRITE, _P2P_NVLINK = 0, 1, 2  # the binding's own READ constant is a tuple by mistake
_P2P_OK, _P2P_UNKNOWN = 0, 6
_ANCESTORS: dict[int, LinkKind] = {0: "pix", 10: "pix", 20: "pxb", 30: "phb", 40: "node", 50: "sys"}
_REMOTE_GPU, _REMOTE_SWITCH = 0, 2
_VIRTUAL_GPU, _PASSED_THROUGH = 2, 1
_FABRIC_COMPLETE = 3
_MOST_LINKS = 36
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_AFFINITY_WORDS = 16  # NUMA nodes of the largest systems fit in 1024 bits
_MHZ, _MILLIWATT = 1e6, 1e-3

_REASONS = {
    _NO_LIBRARY: "No GPU was read: the NVIDIA driver's library (libnvidia-ml) is not on this machine",
    _NO_DRIVER: "The GPUs are unknown: the NVIDIA driver is not loaded; load it (modprobe nvidia), or give the container its GPUs",
    _MISMATCH: "The GPUs are unknown: the NVIDIA driver and its library are of different versions; reboot or reload the driver",
    _NO_PERMISSION: "The GPUs are unknown: this user may not talk to the NVIDIA driver; get the rights to /dev/nvidia*",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is known of the host without NVML: environment, whether it is WSL2, and the NUMA node that sysfs gives a PCI address."""

    environment: Mapping[str, str]
    wsl2: bool = False
    numa_of: Callable[[str], int | None] = lambda address: None


class NvmlError(Exception):
    """A failed call, with NVML's number and words."""

    def __init__(self, value: int, words: str) -> None:
        super().__init__(words)
        self.value = value


def read_nvml(*, call: Call | None = None, host: Host | None = None) -> Readings:
    """What the NVIDIA driver says of this machine, in the order and number that CUDA_VISIBLE_DEVICES leaves.

    Never raises for the machine's sake: a missing driver or library, a version mismatch, and every failed call leave unknown
    fields and a `reason` or a `problem` in words.
    """
    host = host or _this_host()
    platform = "wsl2" if host.wsl2 else ""
    if call is None:
        if not _library_here():
            return Readings(source="nvml", platform=platform, reason=_REASONS[_NO_LIBRARY] + ".")
        call = _driver_call()
        if call is None:
            reason = "No GPU was read: the package nvidia-ml-py is missing; pip install nvidia-ml-py."
            return Readings(source="nvml", platform=platform, reason=reason)
    try:
        call("nvmlInit")
    except NvmlError as error:
        return Readings(source="nvml", platform=platform, reason=_reason(error))
    try:
        return _read(call, host, platform)
    finally:
        _try(call, "nvmlShutdown")


def _read(call: Call, host: Host, platform: str) -> Readings:
    driver = _text(_try(call, "nvmlSystemGetDriverVersion"))
    cuda = _whole(_try(call, "nvmlSystemGetCudaDriverVersion"))
    try:
        count = int(call("nvmlDeviceGetCount"))
    except NvmlError as error:
        return Readings(source="nvml", driver=driver, platform=platform, reason=_reason(error))
    boards = [_board(call, index, host) for index in range(count)]
    units = [unit for board in boards for unit in _units(board, call)]
    units, notes = _visible(units, host.environment)
    units = _named(units, host.environment)
    pairs = tuple(_pair(call, units[a], units[b], a, b, boards) for a in range(len(units)) for b in range(a + 1, len(units)))
    if not platform and any(board.virtual in (_VIRTUAL_GPU, _PASSED_THROUGH) for board in boards):
        platform = "vm"
    reason = ""
    if not units:
        reason = "The driver reports no GPU." if not count else "CUDA_VISIBLE_DEVICES hides every GPU of this machine; unset it."
    return Readings(
        source="nvml",
        gpus=tuple(replace(unit.reading, index=i) for i, unit in enumerate(units)),
        pairs=pairs,
        driver=driver,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        platform=platform,
        reason=reason,
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Board:
    """A physical GPU: its handle, its reading, and where each of its active NVLinks ends (None: links could not be read)."""

    index: int
    handle: Any
    reading: GpuReading
    ends: tuple[str, ...] | None = None
    virtual: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """What CUDA calls a device: a whole board, or a MIG instance of one (`legacy` is its name in old drivers)."""

    board: _Board
    reading: GpuReading
    legacy: str = ""


def _board(call: Call, index: int, host: Host) -> _Board:
    """Everything of one GPU, field by field. Where the GPU is lost, what was read stays, with the problem in words."""
    try:
        handle = call("nvmlDeviceGetHandleByIndex", index)
    except NvmlError as error:
        return _Board(index=index, handle=None, reading=GpuReading(index=index, visible_as=str(index), problem=_words(error)))
    lost: list[NvmlError] = []

    def get(name: str, *arguments: Any) -> Any:
        """A field, or None; a lost GPU is remembered."""
        if lost:
            return None
        try:
            return call(name, handle, *arguments)
        except NvmlError as error:
            if error.value in (_LOST, _RESET):
                lost.append(error)
            return None

    address = _address(get("nvmlDeviceGetPciInfo"))
    mig = get("nvmlDeviceGetMigMode")
    mig_on = bool(mig[0]) if isinstance(mig, list | tuple) and mig else None
    memory = None if mig_on else get("nvmlDeviceGetMemoryInfo")
    busy = get("nvmlDeviceGetComputeRunningProcesses")
    capability = get("nvmlDeviceGetCudaComputeCapability")
    ecc = get("nvmlDeviceGetEccMode")
    virtual = _whole(get("nvmlDeviceGetVirtualizationMode"))
    ends = _link_ends(get, capability, host)
    reading = GpuReading(
        index=index,
        visible_as=str(index),
        name=_text(get("nvmlDeviceGetName")),
        kind="vgpu" if virtual == _VIRTUAL_GPU else "gpu",
        uuid=_text(get("nvmlDeviceGetUUID")),
        pci_address=address,
        memory_bytes=_field(memory, "total"),
        free_bytes=_field(memory, "free"),
        compute_capability=f"{capability[0]}.{capability[1]}" if isinstance(capability, list | tuple) else None,
        sm_clock_hz=_scaled(get("nvmlDeviceGetMaxClockInfo", _CLOCK_SM), _MHZ),
        memory_clock_hz=_scaled(get("nvmlDeviceGetMaxClockInfo", _CLOCK_MEMORY), _MHZ),
        bus_width_bits=_whole(get("nvmlDeviceGetMemoryBusWidth")),
        power_limit_w=_scaled(get("nvmlDeviceGetPowerManagementLimit"), _MILLIWATT),
        ecc=bool(ecc[0]) if isinstance(ecc, list | tuple) and ecc else None,
        mig=mig_on,
        nvlinks=None if ends is None else len(ends),
        # The current generation falls when the GPU idles; the greatest that GPU and slot share does not. Lanes do not fall.
        pcie_generation=_whole(get("nvmlDeviceGetMaxPcieLinkGeneration")),
        pcie_width=_whole(get("nvmlDeviceGetCurrPcieLinkWidth")),
        pcie_width_most=_whole(get("nvmlDeviceGetMaxPcieLinkWidth")),
        numa=_numa(get, address, host),
        fabric=_fabric(get),
        busy_processes=len(busy) if isinstance(busy, list | tuple) else None,
        busy_bytes=float(sum(p.get("usedGpuMemory") or 0 for p in busy)) if isinstance(busy, list | tuple) else None,
    )
    if lost:
        reading = replace(reading, problem=_words(lost[0]))
    return _Board(index=index, handle=handle, reading=reading, ends=ends, virtual=virtual)


def _link_ends(get: Callable[..., Any], capability: Any, host: Host) -> tuple[str, ...] | None:
    """Where each active NVLink ends: a PCI address, "switch" or "?". None where no link's state could be read.

    A PCIe card without NVLink says NotSupported, which is not a count; an SXM board with links down says 0 for each.
    """
    ends: list[str] = []
    known = False
    newer = isinstance(capability, list | tuple) and capability[0] >= 9
    for link in range(_MOST_LINKS):
        state = get("nvmlDeviceGetNvLinkState", link)
        if state is None and newer:
            state = get("nvlinkStateField", link)
        if state is None:
            break
        known = True
        if state != 1:
            continue
        kind = get("nvmlDeviceGetNvLinkRemoteDeviceType", link)
        remote = _address(get("nvmlDeviceGetNvLinkRemotePciInfo", link))
        ends.append("switch" if kind == _REMOTE_SWITCH else (remote or "?"))
    return tuple(ends) if known else None


def _units(board: _Board, call: Call) -> list[_Unit]:
    """A board as CUDA shows it: itself, or its MIG instances."""
    if not board.reading.mig or board.handle is None:
        return [_Unit(board=board, reading=board.reading)]
    most = _whole(_try(call, "nvmlDeviceGetMaxMigDeviceCount", board.handle)) or 0
    found = [unit for slot in range(most) if (unit := _instance(board, call, slot))]
    if found:
        return found
    problem = board.reading.problem or "MIG is on and no instance of it can be seen; create one, or turn MIG off"
    return [_Unit(board=board, reading=replace(board.reading, problem=problem))]


def _instance(board: _Board, call: Call, slot: int) -> _Unit | None:
    """One MIG instance as a GPU of its own; None where the slot is empty."""
    handle = _try(call, "nvmlDeviceGetMigDeviceHandleByIndex", board.handle, slot)
    if handle is None:
        return None
    memory = _try(call, "nvmlDeviceGetMemoryInfo", handle)
    attributes = _try(call, "nvmlDeviceGetAttributes", handle)
    busy = _try(call, "nvmlDeviceGetComputeRunningProcesses", handle)
    uuid = _text(_try(call, "nvmlDeviceGetUUID", handle))
    gpu_instance, compute_instance = (
        _try(call, name, handle) for name in ("nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId")
    )
    name = _text(_try(call, "nvmlDeviceGetName", handle)) or board.reading.name
    total = _field(memory, "total")
    sized = _field(attributes, "memorySizeMB")
    slices = _field(attributes, "gpuInstanceSliceCount")
    if name and "MIG" not in name and slices:
        name = f"{name} MIG {slices:.0f}g.{(total or (sized or 0) * 2**20) / 1e9:.0f}gb"
    reading = replace(
        board.reading,
        kind="mig",
        name=name,
        uuid=uuid,
        parent=board.reading.uuid,
        visible_as=uuid or "",
        memory_bytes=total or (sized * 2**20 if sized else None),
        free_bytes=_field(memory, "free"),
        sms=int(sms) if (sms := _field(attributes, "multiprocessorCount")) else None,
        nvlinks=0,
        busy_processes=len(busy) if isinstance(busy, list | tuple) else None,
        busy_bytes=float(sum(p.get("usedGpuMemory") or 0 for p in busy)) if isinstance(busy, list | tuple) else None,
    )
    return _Unit(board=board, reading=reading, legacy=f"MIG-{board.reading.uuid}/{gpu_instance}/{compute_instance}")


def _visible(units: list[_Unit], environment: Mapping[str, str]) -> tuple[list[_Unit], list[str]]:
    """The devices that CUDA_VISIBLE_DEVICES names, in its order; like CUDA, it ends at the first name that is none."""
    asked = environment.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return units, []
    chosen: list[_Unit] = []
    boards = [unit for unit in units if unit.reading.kind != "mig"]
    for word in (w.strip() for w in asked.split(",")):
        if re.fullmatch(r"\d{1,4}", word):
            found = [u for u in boards if u.board.index == int(word)] or [u for u in units if u.board.index == int(word)][:1]
        else:
            found = [u for u in units if word and ((u.reading.uuid or "").startswith(word) or u.legacy == word)]
        if len(found) != 1 or found[0] in chosen:
            break
        chosen.append(found[0])
    hidden = len(units) - len(chosen)
    return chosen, [f"CUDA_VISIBLE_DEVICES={asked} leaves {len(chosen)} of {len(units)} GPUs"] if hidden else []


def _named(units: list[_Unit], environment: Mapping[str, str]) -> list[_Unit]:
    """Units by the name that is sure to mean them: CUDA counts the fastest GPU first, so mixed boxes are named by UUID."""
    names = {unit.reading.name for unit in units}
    if len(names) < 2 or environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return units
    return [replace(u, reading=replace(u.reading, visible_as=u.reading.uuid or u.reading.visible_as)) for u in units]


def _pair(call: Call, a: _Unit, b: _Unit, at: int, to: int, boards: list[_Board]) -> PairReading:
    """How two devices reach each other; what is not known for certain stays unknown."""
    one, other = a.board, b.board
    if one.handle is None or other.handle is None or one.reading.problem or other.reading.problem:
        return PairReading(a=at, b=to)
    if one.index == other.index:
        # MIG instances of one GPU have no peer access to each other (NVIDIA MIG user guide): copies go through the host.
        return PairReading(a=at, b=to, nvlinks=0, tier="phb", p2p=False)
    ancestor = _whole(_try(call, "nvmlDeviceGetTopologyCommonAncestor", one.handle, other.handle))
    tier = _ANCESTORS.get(ancestor) if ancestor is not None else None
    if "mig" in (a.reading.kind, b.reading.kind):
        return PairReading(a=at, b=to, nvlinks=0, tier=tier, p2p=False)
    status = [
        _whole(_try(call, "nvmlDeviceGetP2PStatus", one.handle, other.handle, index))
        for index in (_P2P_READ, _P2P_WRITE, _P2P_NVLINK)
    ]
    access = None if any(s in (None, _P2P_UNKNOWN) for s in status[:2]) else all(s == _P2P_OK for s in status[:2])
    links, switch = _links_between(one, other)
    if links:
        return PairReading(a=at, b=to, nvlinks=links, joined="nvlink", switch=switch, tier=tier, p2p=access)
    if status[2] == _P2P_OK:
        return PairReading(a=at, b=to, joined="nvlink", tier=tier, p2p=access)
    both_down = one.ends == () and other.ends == ()
    apart = status[2] not in (None, _P2P_UNKNOWN) or both_down
    return PairReading(a=at, b=to, nvlinks=0 if apart else None, tier=tier, p2p=access)


def _links_between(one: _Board, other: _Board) -> tuple[int, bool]:
    """NVLinks that end at the other GPU; through a switch, the fewer of both ends'. (0, False) where none are known."""
    if not one.ends or not other.ends:
        return 0, False
    straight = max(one.ends.count(other.reading.pci_address or "-"), other.ends.count(one.reading.pci_address or "-"))
    if straight:
        return straight, False
    through = min(one.ends.count("switch"), other.ends.count("switch"))
    return through, bool(through)


def _numa(get: Callable[..., Any], address: str | None, host: Host) -> int | None:
    """The only NUMA node in the memory affinity, else what sysfs says; none where there are several or -1."""
    words = get("nvmlDeviceGetMemoryAffinity", _AFFINITY_WORDS, 0)
    if isinstance(words, list | tuple):
        nodes = [64 * i + bit for i, word in enumerate(words) for bit in range(64) if word >> bit & 1]
        if len(nodes) == 1:
            return nodes[0]
    found = host.numa_of(address) if address else None
    return found if found is not None and found >= 0 else None


def _fabric(get: Callable[..., Any]) -> tuple[str, int] | None:
    """NVLink domain and clique of a multi-host fabric; an HGX board reports a zero UUID, which is none."""
    found = get("fabricInfo")
    if not isinstance(found, list | tuple) or len(found) != 3 or found[2] != _FABRIC_COMPLETE:
        return None
    uuid, clique = str(found[0]), int(found[1])
    return (uuid, clique) if uuid.strip("0-") else None


def _try(call: Call, name: str, *arguments: Any) -> Any:
    try:
        return call(name, *arguments)
    except NvmlError:
        return None


def _reason(error: NvmlError) -> str:
    return f"{_REASONS.get(error.value, f'The GPUs are unknown: NVML says {_words(error)}')}."


def _words(error: NvmlError) -> str:
    known = {
        _LOST: "the GPU is lost (fallen off the bus); reset it or reboot",
        _RESET: "the GPU needs a reset",
        _NO_PERMISSION: "this user may not use the GPU",
    }
    return known.get(error.value, str(error).strip().rstrip("."))


def _text(value: Any) -> str | None:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return text.strip() or None if isinstance(text, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _scaled(value: Any, scale: float) -> float | None:
    """A clock or a power in SI; a driver's 0 means that it does not know."""
    return value * scale if isinstance(value, int | float) and value else None


def _field(value: Any, name: str) -> float | None:
    found = value.get(name) if isinstance(value, dict) else None
    return float(found) if isinstance(found, int | float) and found > 0 else None


def _address(value: Any) -> str | None:
    """A PCI address as `0000:3b:00.0`; None where the driver leaves it blank, as in virtual machines."""
    text = _text(value)
    match = re.fullmatch(r"([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])", text or "")
    if not match:
        return None
    address = f"{int(match[1], 16):04x}:{match[2].lower()}:{match[3].lower()}.{match[4]}"
    return None if address == "0000:00:00.0" else address


def _library_here() -> bool:
    """Whether the driver's library can be loaded: milliseconds where there is none, without the bindings."""
    import ctypes
    import sys

    names = ("nvml.dll",) if sys.platform == "win32" else ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def _driver_call() -> Call | None:
    """The real driver behind `call`; None where the bindings are not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    import ctypes

    def special(name: str, *arguments: Any) -> Any:
        if name == "fabricInfo":
            info = pynvml.c_nvmlGpuFabricInfo_v2_t()
            pynvml.nvmlDeviceGetGpuFabricInfoV(arguments[0], ctypes.byref(info))
            return [bytes(info.clusterUuid).hex(), int(info.cliqueId), int(info.state)]
        if name == "nvlinkStateField":
            value = pynvml.nvmlDeviceGetFieldValues(arguments[0], [(165, arguments[1])])[0]  # NVML_FI_DEV_NVLINK_GET_STATE
            if value.nvmlReturn:
                raise NvmlError(int(value.nvmlReturn), "field value")
            return int(value.value.uiVal)
        return getattr(pynvml, name)(*arguments)

    def call(name: str, *arguments: Any) -> Any:
        try:
            return _plain(special(name, *arguments))
        except pynvml.NVMLError as error:
            raise NvmlError(int(error.value), str(error)) from None
        except (AttributeError, OSError, TypeError, ValueError, ctypes.ArgumentError) as error:
            # A binding older than the call, or text that is not UTF-8: as unknown as a call the driver lacks.
            raise NvmlError(_NOT_SUPPORTED, str(error)) from None

    return call


_FIELDS = (
    "total", "free", "used", "pid", "usedGpuMemory", "memorySizeMB", "gpuInstanceSliceCount", "multiprocessorCount",
)  # fmt: skip


def _plain(value: Any) -> Any:
    """A structure of the bindings as plain data."""
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple) or type(value).__name__.startswith("c_ulong"):
        return [_plain(v) for v in value]
    if hasattr(value, "busId"):
        return _plain(value.busId)
    plain = {name: getattr(value, name) for name in _FIELDS if hasattr(value, name)}
    return plain or value


def _this_host() -> Host:
    return Host(environment=os.environ, wsl2=_is_wsl2(), numa_of=_sysfs_numa)


def _is_wsl2() -> bool:
    try:
        with open("/proc/sys/kernel/osrelease", encoding="ascii", errors="replace") as file:
            return "microsoft" in file.read().lower()
    except OSError:
        return False


def _sysfs_numa(address: str) -> int | None:
    try:
        with open(f"/sys/bus/pci/devices/{address}/numa_node", encoding="ascii", errors="replace") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
