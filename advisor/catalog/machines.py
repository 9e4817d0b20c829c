"""The door to machines: GPUs by name, clusters by name and number, cluster files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor.catalog.devices import device_for_reading, device_sheet, list_devices, load_device
from advisor.catalog.machine_schema import MOST_NODES, DeviceSheet, NodeSheet
from advisor.catalog.nodes import build_node, carries, kinds_of, list_networks, list_nodes, network_of, network_sheet, node_sheet
from advisor.errors import QuestionError, unknown
from advisor.specs.cluster import NVLINKS, Cluster

__all__ = [
    "assumed_cluster", "cluster_data", "cluster_text", "device_for_reading", "device_sheet", "list_devices", "list_networks",
    "list_nodes", "load_cluster", "load_device", "read_cluster",
]  # fmt: skip

ASSUMED_GPU, ASSUMED_GPUS = "h100-80g-sxm", 8
INTERCONNECTS = ("", "unknown", "nvswitch", "nvlink", "xgmi", "pcie")


def load_cluster(
    *, gpu: str, gpus: int, nodes: int = 1, node: str | None = None, network: str | None = None, interconnect: str = ""
) -> Cluster:
    """`nodes` equal nodes of `gpus` GPUs each. With one node and more GPUs than it holds, as many equal nodes as they need.

    `node` names a node sheet, else the GPU's usual one that holds them and has `interconnect` (`nvswitch`, `nvlink`, `xgmi`,
    `pcie`; "" or `unknown`: any). `network` names what joins the nodes, else the GPU's usual one. What was chosen and not asked
    for stands in `assumed`. Raises QuestionError. The cost does not grow with `nodes`: they are equal.
    """
    if gpus < 1 or nodes < 1 or gpus * nodes > MOST_NODES:
        raise QuestionError(f"{nodes} nodes of {gpus} GPUs are not possible; give 1 to {MOST_NODES} GPUs in all.")
    device = device_sheet(gpu)
    candidates = _candidates(device, node=node, interconnect=interconnect)
    sheet = next((c for c in candidates if c.most >= gpus), None)
    spread = 1
    if sheet is None:
        sheet = max(candidates, key=lambda c: c.most)
        if nodes > 1:
            raise QuestionError(
                f"{gpus} GPUs are more than the {sheet.most} of a {sheet.name} node; --gpus counts those of each of {nodes} nodes."
            )
        spread = _spread(gpus, sheet, device)
    each, count = gpus // spread, nodes * spread
    said = [f"{gpus} {device.name} are taken as {count} nodes of {each}"] if spread > 1 else []
    if sheet.tray and not network and count > 1 and each <= sheet.tray and each * count <= sheet.most:
        said.append(f"{count} trays of {each} {device.name} are taken as one NVLink domain (--network to join them otherwise)")
        each, count = each * count, 1
    if network and count == 1:
        raise QuestionError(f"--network {network} joins several nodes, and there is one; add --nodes, or leave it out.")
    joined = network_of(network_sheet(network or device.network), gpus_of_a_node=each) if count > 1 else None
    joined = replace(joined, assumed=not network) if joined else None
    if not node and each > 1 and sheet.assumed:
        said.append(f"{each} {device.name} in one machine are taken as {sheet.assumed} (node {sheet.name})")
    if count > 1 and not network:
        said.append(f"the network between nodes is taken as {network_sheet(device.network).title}")
    return Cluster(
        node=build_node(sheet, device, each),
        nodes=count,
        network=joined,
        assumed="".join(f"{s[0].upper()}{s[1:]}. " for s in said).strip(),
    )


def assumed_cluster() -> Cluster:
    """What is assumed where no GPU is found and none is named: eight H100 SXM."""
    return replace(
        load_cluster(gpu=ASSUMED_GPU, gpus=ASSUMED_GPUS),
        assumed=f"No GPU was found here and none was named: {ASSUMED_GPUS} x {ASSUMED_GPU} are assumed.",
    )


def read_cluster(path: Path) -> Cluster:
    """The machine in a YAML or JSON cluster file. Raises ProfileError or QuestionError with a sentence that names the file."""
    from advisor.catalog import cluster_file

    return cluster_file.read_cluster(path)


def cluster_data(cluster: Cluster) -> dict[str, Any]:
    """The cluster as plain data with units, as `read_cluster` reads it back: equal to the last digit."""
    from advisor.catalog import cluster_file

    return cluster_file.cluster_data(cluster)


def cluster_text(cluster: Cluster, *, as_json: bool = False) -> str:
    """The text of a cluster file, YAML unless `as_json`."""
    from advisor.catalog import cluster_file

    return cluster_file.cluster_text(cluster, as_json=as_json)


def _candidates(device: DeviceSheet, *, node: str | None, interconnect: str) -> list[NodeSheet]:
    """Nodes that this GPU comes in and that have the interconnect, the usual one first."""
    if interconnect not in INTERCONNECTS:
        raise unknown("interconnect", interconnect, filter(None, INTERCONNECTS))
    if node:
        sheet = node_sheet(node)
        if not carries(sheet, device):
            fitting = [other.name for other in list_nodes() if carries(other, device)]
            raise QuestionError(f"a {sheet.name} node is not made with {device.name}; use {', '.join(fitting)}.")
        return [sheet]
    sheets = [node_sheet(name) for name in device.nodes]
    if interconnect in ("", "unknown"):
        return sheets
    if interconnect == "pcie":
        return [s for s in sheets if not _is_fabric(s)] or [node_sheet("pcie-1-socket"), node_sheet("pcie-2-socket")]
    # A table says "nvlink" of switched nodes too: direct links first, then the switch.
    wanted = {"nvlink": ("nvlink", "nvswitch")}.get(interconnect, (interconnect,))
    found = [s for kind in wanted for s in sheets if _fabric_kind(s, device) == kind]
    if not found:
        raise QuestionError(f"{device.name} has no {interconnect} between GPUs; leave the interconnect out, or use pcie.")
    return found


def _is_fabric(sheet: NodeSheet) -> bool:
    return bool(sheet.groups_of or sheet.pairs or kinds_of(sheet) & NVLINKS)


def _fabric_kind(sheet: NodeSheet, device: DeviceSheet) -> str:
    """What joins the GPUs of this node beside PCIe: `nvswitch`, `nvlink`, `xgmi`, or nothing."""
    if not _is_fabric(sheet) or not device.link:
        return ""
    if "nvswitch" in kinds_of(sheet):
        return "nvswitch"
    return "xgmi" if device.link.kind == "xgmi" else "nvlink"


def _spread(gpus: int, sheet: NodeSheet, device: DeviceSheet) -> int:
    """The number of equal nodes that hold `gpus`. Raises QuestionError where they do not divide."""
    nodes = -(-gpus // sheet.most)
    if gpus % nodes:
        low, high = (nodes - 1) * sheet.most, nodes * sheet.most
        raise QuestionError(
            f"{gpus} {device.name} do not spread evenly over nodes of at most {sheet.most}; use {low} or {high}, or say --nodes."
        )
    return nodes
