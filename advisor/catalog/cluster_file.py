"""A machine as a short file that a person can write and `advisor probe` writes: file <-> `Cluster`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor.catalog.cluster_schema import ClusterFile, FileDevice, FileLink, FileNetwork
from advisor.catalog.devices import device_sheet, load_device
from advisor.catalog.machine_schema import validated
from advisor.catalog.nodes import build_node, carries, network_of, network_sheet, node_sheet, slot_link
from advisor.catalog.shipped import sheet_names
from advisor.errors import ProfileError, QuestionError
from advisor.specs.cluster import MOST_GPUS, NVLINKS, Cluster, Device, Link, Network, Node, Pair
from advisor.units import parse
from advisor.untrusted import parse_json, parse_yaml, read_text

# field of a file entry -> field of Device, unit ("" for plain values)
_FIGURES = (
    ("memory", "memory_bytes", "B"),
    ("bandwidth", "memory_bytes_per_s", "B/s"),
    ("l2", "l2_bytes", "B"),
    ("pcie", "pcie_bytes_per_s", "B/s"),
    ("power", "power_w", "W"),
)
_PLAIN = ("vendor", "architecture", "compute_capability", "sms", "p2p", "price_date")
_NEEDED = (*(name for name, _, _ in _FIGURES), "vendor", "architecture", "compute_capability", "sms", "p2p", "peaks")
_PREFIXES = {"B": ("GiB", "MiB", "GB", "B"), "B/s": ("GB/s", "B/s"), "FLOP/s": ("TFLOP/s", "FLOP/s")}
_SCALE = {"GiB": 2.0**30, "MiB": 2.0**20, "GB": 1e9, "GB/s": 1e9, "TFLOP/s": 1e12}


def read_cluster(path: Path) -> Cluster:
    """The machine in a YAML or JSON cluster file. Raises ProfileError or QuestionError with a sentence that names the file."""
    text = read_text(path)
    data = parse_json(text, origin=str(path)) if path.suffix == ".json" else parse_yaml(text, origin=str(path))
    if isinstance(data, dict) and {"cluster", "matrix"} <= set(data):  # what `advisor probe --json` prints holds the file as a part
        data = data["cluster"]
        if not isinstance(data, dict):
            raise ProfileError(f"{path} is a probe's answer that does not know its GPUs; run `advisor probe` again with --gpu.")
    return cluster_of(data, origin=str(path))


def cluster_of(data: dict[str, Any], *, origin: str) -> Cluster:
    """The machine in plain `data`, the inverse of `cluster_data`. Raises ProfileError naming `origin`."""
    file = validated(ClusterFile, data, origin=origin)
    try:
        node, said = _node(file)
        if (gpus := file.nodes * len(node.devices)) > MOST_GPUS:
            raise QuestionError(f"{gpus} GPUs are more than any machine has; give at most {MOST_GPUS}.")
        network, said_network = _network(file, node)
        assumed = " ".join(filter(None, (file.assumed, said, said_network)))
        return Cluster(node=node, nodes=file.nodes, network=network, assumed=assumed)
    except QuestionError as error:
        raise ProfileError(f"{origin}: {error}") from None
    except ValueError as error:
        raise ProfileError(f"{origin} contradicts itself: {error}.") from None


def cluster_data(cluster: Cluster) -> dict[str, Any]:
    """The cluster as plain data with units, fit for YAML or JSON; `cluster_of` gives back an equal cluster."""
    node = cluster.node
    data: dict[str, Any] = {"name": node.name}
    entries = [_entry(device) for device in node.devices]
    if all(entry == entries[0] for entry in entries):
        data |= {"gpu": entries[0], "count": len(entries)}
    else:
        data["gpus"] = entries
    data["link"] = _link_data(node.default_link)
    if node.pairs:
        data["pairs"] = [{"gpus": [pair.a, pair.b], **_link_data(pair.link)} for pair in node.pairs]
    if node.numa:
        data["numa"] = list(node.numa)
    if node.host_gpus:
        data["host_gpus"] = node.host_gpus
    if node.uplinks:
        data["uplinks"] = [list(group) for group in node.uplinks]
    if node.free_bytes:
        data["free"] = [None if free is None else _exact(free, "B") for free in node.free_bytes]
    if node.ids:
        data["ids"] = list(node.ids)
    if cluster.nodes > 1:
        data["nodes"] = cluster.nodes
    if cluster.network:
        net = cluster.network
        data["network"] = {
            "name": net.name, "bandwidth": _exact(net.bytes_per_s, "B/s"), "latency": f"{net.latency_s!r} s", "rdma": net.rdma,
            **({"assumed": True} if net.assumed else {}),
        }  # fmt: skip
    if cluster.assumed:
        data["assumed"] = cluster.assumed
    return data


def cluster_text(cluster: Cluster, *, as_json: bool = False) -> str:
    """The cluster file's text, YAML unless `as_json`."""
    if as_json:
        import json

        return json.dumps(cluster_data(cluster), indent=2) + "\n"
    import yaml

    return yaml.safe_dump(cluster_data(cluster), sort_keys=False, default_flow_style=None, width=120)


def _node(file: ClusterFile) -> tuple[Node, str]:
    devices = _devices(file)
    n = len(devices)
    base, said = _base(file, devices)
    link = _link(file.link, devices) if file.link else base.default_link
    pairs = {(pair.a, pair.b): pair for pair in base.pairs} if not file.link else {}
    listed: set[tuple[int, int]] = set()
    for pair in file.pairs:
        a, b = sorted(pair.gpus)
        if a == b or b >= n:
            raise ProfileError(f"pair {a}-{b} names no two of the {n} GPUs 0 to {n - 1}.")
        if (a, b) in listed:
            raise ProfileError(f"pair {a}-{b} stands twice.")
        listed.add((a, b))
        pairs[a, b] = Pair(a=a, b=b, link=_link(pair, (devices[a], devices[b])))
    _check_uplinks(file.uplinks, n)
    node = Node(
        name=file.name if "name" in file.model_fields_set else base.name,
        devices=devices,
        default_link=link,
        pairs=tuple(pairs.values()),
        numa=tuple(file.numa) or (() if file.link else base.numa),
        uplinks=tuple(tuple(group) for group in file.uplinks) or (() if file.link else base.uplinks),
        free_bytes=tuple(file.free),
        ids=tuple(file.ids),
        host_gpus=file.host_gpus or base.host_gpus,
    )
    return node, said


def _devices(file: ClusterFile) -> tuple[Device, ...]:
    if (file.gpu is None) == (file.gpus is None):
        raise ProfileError("say either gpu with its count, or gpus as a list.")
    if file.gpus is not None:
        if file.count is not None:
            raise ProfileError("count belongs to gpu; the list of gpus has its own length.")
        return tuple(_device(entry) for entry in file.gpus)
    assert file.gpu is not None
    return (_device(file.gpu),) * (file.count or 1)


def _device(entry: FileDevice) -> Device:
    given = entry.model_fields_set - {"gpu", "name"}
    if entry.gpu is None:
        if entry.name is None:
            raise ProfileError("a GPU needs gpu (the name of a sheet) or name (and all its figures).")
        missing = [field for field in _NEEDED if getattr(entry, field) is None]
        if missing:
            raise ProfileError(f"GPU {entry.name} has no sheet named by gpu, so it needs {', '.join(missing)}.")
        link = entry.link
        return Device(
            name=entry.name,
            **{target: getattr(entry, field) for field, target, _ in _FIGURES},
            **{field: getattr(entry, field) for field in _PLAIN if field != "price_date"},
            peak_flop_per_s=tuple(sorted((entry.peaks or {}).items())),
            link_kind=link.kind if link else None,
            link_bytes_per_s=link.bandwidth if link else 0.0,
            link_count=link.count if link else 0,
            price_usd_per_hour=entry.price,
            price_date=entry.price_date or "",
            driver_names=tuple(entry.driver_names or ()),
        )
    changed: dict[str, Any] = {"name": entry.name} if entry.name else {}
    for field, target, _ in _FIGURES:
        if field in given:
            changed[target] = _not_null(entry, field)
    for field in _PLAIN:
        if field in given:
            changed[field] = _not_null(entry, field)
    if "peaks" in given:
        changed["peak_flop_per_s"] = tuple(sorted(_not_null(entry, "peaks").items()))
    if "link" in given:
        link = entry.link
        changed |= {
            "link_kind": link.kind if link else None, "link_bytes_per_s": link.bandwidth if link else 0.0,
            "link_count": link.count if link else 0,
        }  # fmt: skip
    if "price" in given:
        changed["price_usd_per_hour"] = entry.price
    if "driver_names" in given:
        changed["driver_names"] = tuple(_not_null(entry, "driver_names"))
    return replace(load_device(entry.gpu), **changed)


def _not_null(entry: FileDevice, field: str) -> Any:
    value = getattr(entry, field)
    if value is None:
        raise ProfileError(f"{field} of GPU {entry.gpu} is empty: give a figure, or leave the line out.")
    return value


def _base(file: ClusterFile, devices: Sequence[Device]) -> tuple[Node, str]:
    """What the file does not say: the node sheet it names, or the usual one of its GPU, or PCIe slots where GPUs are mixed."""
    n, first = len(devices), devices[0]
    known = first.name in sheet_names("hardware") and all(device.name == first.name for device in devices)
    if file.node:
        if not known:
            raise ProfileError(f"node {file.node} is for equal GPUs that have a sheet; describe link and pairs instead.")
        sheet = node_sheet(file.node)
        if not carries(sheet, device_sheet(first.name)):
            raise ProfileError(f"a {sheet.name} node is not made with {first.name}; describe link and pairs instead.")
        return build_node(sheet, device_sheet(first.name), n), ""
    if known and not file.link:
        sheets = [node_sheet(name) for name in device_sheet(first.name).nodes]
        held = next((sheet for sheet in sheets if sheet.most >= n), None)
        if held:
            all_of_them = f"{n} {first.name} in one machine" if not file.pairs else "pairs of GPUs that the file leaves out"
            said = f"{all_of_them[0].upper()}{all_of_them[1:]} are taken as {held.assumed} (node {held.name})."
            return build_node(held, device_sheet(first.name), n), said if held.assumed and n > 1 else ""
    link = slot_link("phb", devices)
    said = "No link given: every pair of GPUs is assumed to meet at a host bridge (PHB)." if n > 1 and not file.link else ""
    return Node(name=file.name, devices=tuple(devices), default_link=link), said


def _link(link: FileLink, devices: Sequence[Device]) -> Link:
    """A link of the file; what it leaves out follows from its kind and the GPUs it joins."""
    fabric = link.kind in NVLINKS
    count = link.count
    if link.bandwidth is not None:
        bandwidth = link.bandwidth
    elif not fabric:
        bandwidth = slot_link(link.kind, devices).bytes_per_s
    else:
        bandwidth, count = min(_fabric_figures(link, device) for device in devices)
    p2p = link.p2p if link.p2p is not None else (fabric or all(device.p2p for device in devices))
    return Link(kind=link.kind, bytes_per_s=bandwidth, count=count or 0, p2p=p2p)


def _fabric_figures(link: FileLink, device: Device) -> tuple[float, int]:
    """(bytes/s, links) of `link.count` links of this GPU, all of them where the file does not count."""
    if not device.link_count or not device.link_bytes_per_s:
        raise ProfileError(f"a link of kind {link.kind} needs its bandwidth: {device.name} has no sheet that tells it.")
    count = min(link.count or device.link_count, device.link_count)
    return device.link_bytes_per_s * count / device.link_count, count


def _check_uplinks(uplinks: list[list[int]], gpus: int) -> None:
    seen: set[int] = set()
    for group in uplinks:
        for gpu in group:
            if gpu >= gpus or gpu in seen:
                raise ProfileError(f"uplinks name GPU {gpu} twice or beyond the {gpus} GPUs: each belongs to one group at most.")
            seen.add(gpu)


def _network(file: ClusterFile, node: Node) -> tuple[Network | None, str]:
    n = len(node.devices)
    if isinstance(file.network, FileNetwork):
        net = file.network
        return Network(name=net.name, bytes_per_s=net.bandwidth, latency_s=net.latency, rdma=net.rdma, assumed=net.assumed), ""
    if file.network is not None:
        return network_of(network_sheet(file.network), gpus_of_a_node=n), ""
    if file.nodes == 1:
        return None, ""
    if node.devices[0].name not in sheet_names("hardware"):
        raise ProfileError(f"{file.nodes} nodes need a network: name one, e.g. network: ib-400g.")
    sheet = network_sheet(device_sheet(node.devices[0].name).network)
    network = replace(network_of(sheet, gpus_of_a_node=n), assumed=True)
    return network, f"The network between nodes is taken as {sheet.title}."


def _entry(device: Device) -> Any:
    """A device as its sheet's name with what differs, or in full where it has no sheet."""
    sheet = load_device(device.name) if device.name in sheet_names("hardware") else None
    full: dict[str, Any] = {}
    for field, target, unit in _FIGURES:
        if sheet is None or getattr(device, target) != getattr(sheet, target):
            full[field] = _exact(getattr(device, target), unit)
    for field in _PLAIN:
        if sheet is None or getattr(device, field) != getattr(sheet, field):
            full[field] = getattr(device, field)
    if sheet is None or device.peak_flop_per_s != sheet.peak_flop_per_s:
        full["peaks"] = {name: _exact(rate, "FLOP/s") for name, rate in device.peak_flop_per_s}
    link = (device.link_kind, device.link_bytes_per_s, device.link_count)
    if sheet is None or link != (sheet.link_kind, sheet.link_bytes_per_s, sheet.link_count):
        rate = _exact(device.link_bytes_per_s, "B/s")
        full["link"] = None if link == (None, 0.0, 0) else {"kind": device.link_kind, "count": device.link_count, "bandwidth": rate}
    if sheet is None or device.price_usd_per_hour != sheet.price_usd_per_hour:
        full["price"] = None if device.price_usd_per_hour is None else f"{device.price_usd_per_hour!r} USD/h"
    if device.driver_names != (sheet.driver_names if sheet else ()):
        full["driver_names"] = list(device.driver_names)
    if sheet is None:
        return {"name": device.name, **full}
    return {"gpu": device.name, **full} if full else device.name


def _link_data(link: Link) -> dict[str, Any]:
    return {"kind": link.kind, "count": link.count, "bandwidth": _exact(link.bytes_per_s, "B/s"), "p2p": link.p2p}


def _exact(value: float, unit: str) -> str:
    """The shortest text with a unit that parses back to exactly this value."""
    tries = [f"{value / _SCALE.get(name, 1.0):.{digits}g} {name}" for digits in (4, 6) for name in _PREFIXES.get(unit, (unit,))]
    for text in tries:
        if parse(text, unit) == value:
            return text
    return f"{float(value)!r} {unit}"
