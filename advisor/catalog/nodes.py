"""Node and network sheets -> `Node` and `Network`: how the GPUs of one machine are joined, and the machines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations

from advisor.catalog.devices import device_of
from advisor.catalog.machine_schema import DeviceSheet, NetworkSheet, NodeSheet, validated
from advisor.catalog.shipped import find_sheet, sheet_names, sheet_text
from advisor.errors import QuestionError
from advisor.specs.cluster import NVLINKS, Device, Link, LinkKind, Network, Node, Pair
from advisor.untrusted import parse_yaml

# The figures of HGX-type nodes and data sheets are for whole links; a PCIe hop runs at the slot's rate.
_NEEDS: dict[LinkKind, tuple[str, ...]] = {
    "nvswitch": ("nvswitch",),
    "nvlink": ("nvlink", "nvswitch"),
    "xgmi": ("xgmi",),
    "c2c": ("c2c",),
}


@cache
def node_sheet(name: str) -> NodeSheet:
    """A node sheet by name. Raises QuestionError with their names."""
    found = find_sheet("nodes", name, what="node")
    origin = f"node sheet {found}"
    return validated(NodeSheet, parse_yaml(sheet_text("nodes", found), origin=origin), origin=origin)


@cache
def network_sheet(name: str) -> NetworkSheet:
    """A network sheet by name or alias. Raises QuestionError with their names."""
    found = find_sheet("networks", name, what="network")
    origin = f"network sheet {found}"
    return validated(NetworkSheet, parse_yaml(sheet_text("networks", found), origin=origin), origin=origin)


def list_nodes() -> list[NodeSheet]:
    """Every shipped node sheet, by name."""
    return [node_sheet(name) for name in sheet_names("nodes")]


def list_networks() -> list[NetworkSheet]:
    """Every shipped network sheet, by name."""
    return [network_sheet(name) for name in sheet_names("networks")]


def network_of(sheet: NetworkSheet, *, gpus_of_a_node: int) -> Network:
    """The share of one GPU: a sheet's bandwidth is of a GPU, or of a node and divided among its GPUs."""
    share = 1 if sheet.per == "gpu" else gpus_of_a_node
    return Network(name=sheet.name, bytes_per_s=sheet.bandwidth.value / share, latency_s=sheet.latency.value, rdma=sheet.rdma)


def kinds_of(sheet: NodeSheet) -> set[LinkKind]:
    """The kinds of link that a node names; the links of its `pairs` and `groups_of` are whatever its GPUs have."""
    return {kind for kind in (sheet.between, sheet.same_socket, sheet.same_uplink) if kind}


def has_links(sheet: NodeSheet, device: DeviceSheet) -> bool:
    """Whether the GPU has the links that the node joins its GPUs by."""
    own = device.link.kind if device.link else None
    if (sheet.groups_of or sheet.pairs) and own is None:
        return False
    return all(own in _NEEDS[kind] for kind in kinds_of(sheet) if kind in _NEEDS)


def carries(sheet: NodeSheet, device: DeviceSheet) -> bool:
    """Whether this node is made with this GPU: either sheet names the other, or the node takes any and the GPU has its links."""
    if sheet.name in device.nodes or device.name in sheet.gpus:
        return has_links(sheet, device)
    bridgeable = not sheet.groups_of or (
        device.link is not None and device.link.kind != "nvswitch"
    )  # a bridge joins cards, not modules
    return not sheet.gpus and bridgeable and has_links(sheet, device)


def build_node(sheet: NodeSheet, device: DeviceSheet, gpus: int) -> Node:
    """A node of this sheet with its first `gpus` places taken by this GPU. Raises QuestionError when it holds fewer."""
    if gpus > sheet.most:
        raise QuestionError(f"a {sheet.name} node holds {sheet.most} GPUs, not {gpus}; use --nodes for more, or another --node.")
    figures = device_of(device)
    together = sheet.groups_of or sheet.uplink_of or 1  # a bridge or a switch lies within one socket
    each = -(-gpus // (sheet.sockets * together)) * together if sheet.sockets else 0
    numa: tuple[int | None, ...] = tuple(gpu // each for gpu in range(gpus)) if each else ()
    default = _link(sheet.between, device, count=1)
    return Node(
        name=sheet.name,
        devices=(figures,) * gpus,
        default_link=default,
        pairs=_pairs(sheet, device, numa, gpus, default),
        numa=numa,
        uplinks=_groups(sheet.uplink_of, gpus),
        host_gpus=sheet.tray if sheet.tray and gpus > sheet.tray else 0,
    )


def slot_link(kind: LinkKind, devices: Sequence[Device]) -> Link:
    """A PCIe path between GPUs: the slowest slot binds, and all must have P2P."""
    return Link(kind=kind, bytes_per_s=min(d.pcie_bytes_per_s for d in devices), p2p=all(d.p2p for d in devices))


def _pairs(sheet: NodeSheet, device: DeviceSheet, numa: tuple[int | None, ...], gpus: int, default: Link) -> tuple[Pair, ...]:
    if not (sheet.groups_of or sheet.pairs or sheet.uplink_of or sheet.same_socket):
        return ()
    wired = {tuple(sorted(pair.gpus)): pair.count for pair in sheet.pairs}
    found = []
    for a, b in combinations(range(gpus), 2):
        link = default
        if (a, b) in wired:
            link = _link(_fabric(device), device, count=wired[a, b])
        elif sheet.groups_of and a // sheet.groups_of == b // sheet.groups_of:
            link = _link(_fabric(device), device, count=max(1, _link_count(device) // (sheet.groups_of - 1)))
        elif sheet.uplink_of and sheet.same_uplink and a // sheet.uplink_of == b // sheet.uplink_of:
            link = _link(sheet.same_uplink, device, count=1)
        elif sheet.same_socket and numa[a] == numa[b]:
            link = _link(sheet.same_socket, device, count=1)
        if link != default:
            found.append(Pair(a=a, b=b, link=link))
    return tuple(found)


def _groups(size: int | None, gpus: int) -> tuple[tuple[int, ...], ...]:
    if not size:
        return ()
    groups = (tuple(range(first, min(first + size, gpus))) for first in range(0, gpus, size))
    return tuple(group for group in groups if len(group) > 1)


def _fabric(device: DeviceSheet) -> LinkKind:
    """The kind of a direct link between two of these GPUs: a GPU made for a switch is joined by plain NVLink without one."""
    kind: LinkKind = device.link.kind if device.link else "unknown"
    return "nvlink" if kind == "nvswitch" else kind


def _link_count(device: DeviceSheet) -> int:
    return device.link.count if device.link else 0


def _link(kind: LinkKind, device: DeviceSheet, *, count: int) -> Link:
    """A link of this kind at the sheet's figures: all links through a switch, `count` of them between two GPUs, or the slot."""
    if kind in NVLINKS and device.link:
        count = device.link.count if kind == "nvswitch" else count
        return Link(kind=kind, bytes_per_s=device.link.bandwidth.value * count / device.link.count, count=count)
    return slot_link(kind, (device_of(device),))
