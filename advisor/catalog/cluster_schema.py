"""What a cluster file may say, whether a person or `advisor probe` wrote it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from advisor.catalog.machine_schema import (
    MOST_GPUS_OF_A_NODE,
    MOST_NODES,
    Bandwidth,
    Bytes,
    Compute,
    Name,
    Power,
    Price,
    Rate,
    Seconds,
    Strict,
    Text,
    quantity,
)
from advisor.specs.cluster import LinkKind

FreeBytes = Annotated[float, BeforeValidator(quantity("B", low=0.0, high=1e14))]


class FileLink(Strict):
    """A link in a cluster file; `bandwidth` may be left out where the kind and the GPU's sheet tell it."""

    kind: LinkKind
    count: Annotated[int, Field(ge=0, le=64)] | None = None
    bandwidth: Bandwidth | None = None
    p2p: bool | None = None


class FilePair(FileLink):
    """A link between two GPUs of the node."""

    gpus: Annotated[list[Annotated[int, Field(ge=0, lt=MOST_GPUS_OF_A_NODE)]], Field(min_length=2, max_length=2)]


class FileDeviceLink(Strict):
    """All links of a GPU in a cluster file; `count` 0 where their number is not known."""

    kind: LinkKind | None
    count: Annotated[int, Field(ge=0, le=64)] = 0
    bandwidth: Annotated[float, BeforeValidator(quantity("B/s", low=0.0, high=1e15))]


class FileDevice(Strict):
    """A GPU in a cluster file: `gpu` with what differs from its sheet, or `name` with every figure."""

    gpu: Name | None = None
    name: Name | None = None
    vendor: Name | None = None
    architecture: Name | None = None
    compute_capability: Name | None = None
    memory: Bytes | None = None
    bandwidth: Bandwidth | None = None
    peaks: dict[Compute, Rate] | None = None
    sms: Annotated[int, Field(ge=1, le=100_000)] | None = None
    l2: Annotated[float, BeforeValidator(quantity("B", low=0.0, high=1e12))] | None = None
    link: FileDeviceLink | None = None
    pcie: Bandwidth | None = None
    p2p: bool | None = None
    power: Power | None = None
    price: Price | None = None
    price_date: Annotated[str, Field(max_length=40)] | None = None
    driver_names: Annotated[list[Name], Field(max_length=20)] | None = None


class FileNetwork(Strict):
    """A network in a cluster file; bandwidth is of one GPU, one way. `assumed` where the program that wrote the file assumed it."""

    name: Name
    bandwidth: Bandwidth
    latency: Seconds
    rdma: bool
    assumed: bool = False


def _gpu_entry(value: object) -> object:
    return {"gpu": value} if isinstance(value, str) else value


Entry = Annotated[FileDevice, BeforeValidator(_gpu_entry)]


class ClusterFile(Strict):
    """A machine as a person writes it and the probe does. `gpu` with `count`, or `gpus` one by one; the rest where known."""

    name: Name = "cluster"
    gpu: Entry | None = None
    count: Annotated[int, Field(ge=1, le=MOST_GPUS_OF_A_NODE)] | None = None
    gpus: Annotated[list[Entry], Field(min_length=1, max_length=MOST_GPUS_OF_A_NODE)] | None = None
    node: Name | None = None
    host_gpus: Annotated[int, Field(ge=1, le=MOST_GPUS_OF_A_NODE)] | None = None
    link: FileLink | None = None
    pairs: list[FilePair] = Field(default_factory=list)
    numa: list[Annotated[int, Field(ge=0, le=4096)] | None] = Field(default_factory=list)
    uplinks: list[list[Annotated[int, Field(ge=0, lt=MOST_GPUS_OF_A_NODE)]]] = Field(default_factory=list)
    free: list[FreeBytes | None] = Field(default_factory=list)
    ids: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list)
    nodes: Annotated[int, Field(ge=1, le=MOST_NODES)] = 1
    network: Name | FileNetwork | None = None
    assumed: Text = ""
