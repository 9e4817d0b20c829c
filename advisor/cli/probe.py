"""`advisor probe`: read the GPUs and links of this machine, or of a pasted text."""

from __future__ import annotations

import json as json_text
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.cli.show import emit, screen
from advisor.errors import AdvisorError, MachineError, QuestionError
from advisor.files import read_bounded
from advisor.probe.readings import Readings
from advisor.specs.cluster import Cluster

_MOST_BYTES = 4_000_000  # a paste is kilobytes; a whole log may be a few megabytes
From = Annotated[
    str,
    typer.Option(
        "--from", help="Text with `nvidia-smi topo -m` (or rocm-smi --showtopo) in it; - reads a paste.", show_default=False
    ),
]
Yaml = Annotated[bool, typer.Option("--yaml", help="The machine as a cluster file for `recommend --cluster`.")]
Redact = Annotated[bool, typer.Option("--redact", help="Leave out UUIDs and PCI addresses.")]


@options.asking(only=("gpu",), offline=False)
def probe(
    *,
    source: From = "",
    given: Options,
    json: options.Json = False,
    yaml: Yaml = False,
    redact: Redact = False,
) -> None:
    """Read the GPUs and links of this machine, or of a pasted `nvidia-smi topo -m`."""
    from advisor.probe.redact import redacted

    if json and yaml:
        raise QuestionError("--json and --yaml are two forms of one answer; choose one (a cluster file may be either).")
    readings = _from_text(source) if source else _from_driver()
    readings = redacted(readings) if redact else readings
    gpu = given["gpu"]
    if source and not gpu and not (json or yaml):
        gpu = _asked(readings)
    cluster, missing = _cluster(readings, gpu)
    if json:
        emit(json_text.dumps(_data(readings, cluster), indent=2))
    elif yaml:
        from advisor.catalog.machines import cluster_text

        if cluster is None:
            raise missing or QuestionError("There is no machine to write.")
        emit(cluster_text(cluster))
    elif readings.gpus:
        from advisor.report.topology import page

        emit(page(readings, cluster, missing=str(missing or ""), screen=screen()))
    if not readings.gpus:
        raise MachineError(readings.reason or "No GPU was found.")


def _from_driver() -> Readings:
    from advisor.probe import probe as read

    return read()


def _from_text(source: str) -> Readings:
    from advisor.probe.nvidia_smi import read_topology_text

    if source == "-":
        raw = _pasted()
    else:
        raw = read_bounded(Path(source), most_bytes=_MOST_BYTES, what="a text file with the topology, or - for a paste")
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return read_topology_text(raw.decode(encoding, "replace"))


def _pasted() -> bytes:
    if sys.stdin is None:
        raise QuestionError("there is nothing to read: standard input is closed; name a text file.")
    if sys.stdin.isatty():
        sys.stderr.write("Paste the output of `nvidia-smi topo -m`, then press Ctrl-D.\n")
    raw = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise QuestionError(f"the paste is larger than {_MOST_BYTES // 1_000_000} MB; give the part with the topology.")
    return raw


def _asked(readings: Readings) -> str:
    """The GPU's name from the user where the text has none and somebody is there to answer."""
    if all(gpu.name for gpu in readings.gpus) or not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return ""
    sys.stderr.write("Which GPUs are these, e.g. h100-80g-sxm (Enter to leave it open)? ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _cluster(readings: Readings, gpu: str) -> tuple[Cluster | None, AdvisorError | None]:
    """The cluster of a reading, or why there is none."""
    from advisor.catalog.machines import device_for_reading, list_devices, load_device
    from advisor.probe.topology import cluster_from

    device = load_device(gpu) if gpu else None
    if not readings.gpus:
        return None, None
    try:
        devices = [] if device else list_devices()
        return cluster_from(readings, devices, find=device_for_reading, device=device), None
    except AdvisorError as error:
        return None, error


def _data(readings: Readings, cluster: Cluster | None) -> dict[str, Any]:
    from advisor.catalog.machines import cluster_data
    from advisor.report.topology import data

    return data(readings, cluster, cluster_data(cluster) if cluster else None)
