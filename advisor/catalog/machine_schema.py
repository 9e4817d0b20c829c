"""What hardware, node and network sheets may say: extra keys forbidden, text with units turned into SI."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from advisor.errors import ProfileError
from advisor.specs.cluster import LinkKind
from advisor.specs.wire import first_problem
from advisor.units import parse

MOST_GPUS_OF_A_NODE = 1024
MOST_NODES = 131_072  # the largest training clusters announced by 2025; beyond it is a typing mistake
Compute = Literal["fp32", "bf16", "fp8", "int8", "nvfp4"]


def quantity(unit: str, *, low: float, high: float) -> Callable[[object], float]:
    """A validator: text with a unit -> SI float within what any machine has."""

    def read(value: object) -> float:
        if not isinstance(value, str):
            raise ValueError(f"write it with its unit, in {unit}")
        number = parse(value, unit)
        if not (math.isfinite(number) and low <= number <= high):
            raise ValueError(f"{value!r} is not a possible figure")
        return number

    return read


# No product comes near these bounds: a figure outside has the wrong unit.
Bytes = Annotated[float, BeforeValidator(quantity("B", low=2.0**26, high=1e14))]
CacheBytes = Annotated[float, BeforeValidator(quantity("B", low=2.0**10, high=1e12))]
Bandwidth = Annotated[float, BeforeValidator(quantity("B/s", low=1e6, high=1e15))]
Rate = Annotated[float, BeforeValidator(quantity("FLOP/s", low=1e9, high=1e18))]
Power = Annotated[float, BeforeValidator(quantity("W", low=1.0, high=1e5))]
Price = Annotated[float, BeforeValidator(quantity("USD/h", low=0.0, high=1e4))]
Seconds = Annotated[float, BeforeValidator(quantity("s", low=0.0, high=1.0))]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, Field(max_length=1000)]
Day = Annotated[str, Field(pattern=r"^20\d\d-\d\d-\d\d$")]


class Strict(BaseModel):
    """No extra key, no other type, no change; the validator is built when it is first used."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Source(Strict):
    """Where figures were read: a `link`, the table or page (`where`), and the date."""

    link: Annotated[str, Field(min_length=1, max_length=500)]
    where: Annotated[str, Field(min_length=1, max_length=500)]
    read: Day


class _Figure(Strict):
    source: Name


class BytesFigure(_Figure):
    """Bytes and their source."""

    value: Bytes


class CacheFigure(_Figure):
    """Cache bytes and their source."""

    value: CacheBytes


class BandwidthFigure(_Figure):
    """Bytes/s and their source."""

    value: Bandwidth


class RateFigure(_Figure):
    """FLOP/s and their source."""

    value: Rate


class CountFigure(_Figure):
    """A count and its source."""

    value: Annotated[int, Field(ge=1, le=100_000)]


class FlagFigure(_Figure):
    """Yes or no and its source."""

    value: bool


class PowerFigure(_Figure):
    """Watts and their source."""

    value: Power


class PriceFigure(_Figure):
    """USD per hour, source and the day it was asked."""

    value: Price
    date: Day


class SecondsFigure(_Figure):
    """Seconds and their source."""

    value: Seconds


class LinkFigure(Strict):
    """All NVLink/xGMI/C2C links of one GPU: their number, and the sum of their bandwidth in one direction."""

    kind: Literal["nvswitch", "nvlink", "xgmi", "c2c"]
    count: Annotated[int, Field(ge=1, le=64)]
    bandwidth: BandwidthFigure


def _sources_of(value: object) -> set[str]:
    """The names of sources that the figures below `value` cite."""
    if isinstance(value, _Figure):
        return {value.source}
    if isinstance(value, BaseModel):
        return set().union(*(_sources_of(getattr(value, name)) for name in type(value).model_fields), set())
    if isinstance(value, dict):
        return set().union(*(_sources_of(item) for item in value.values()), set())
    return set()


class _Sheet(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=60)]
    title: Name
    sources: Annotated[dict[Name, Source], Field(min_length=1)]
    notes: Text = ""

    @model_validator(mode="after")
    def _sourced(self) -> _Sheet:
        cited = set().union(*(_sources_of(getattr(self, name)) for name in type(self).model_fields if name != "sources"), set())
        missing = sorted(cited - set(self.sources))
        if missing:
            raise ValueError(f"source {missing[0]!r} is cited but does not stand under sources")
        return self


class DeviceSheet(_Sheet):
    """One GPU. `nodes` names the node sheets it comes in, the usual one first; the first that holds the GPUs asked for is taken."""

    aliases: list[Name] = Field(default_factory=list)
    driver_names: list[Name] = Field(default_factory=list)
    vendor: Literal["nvidia", "amd"]
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9]+$")]
    compute_capability: Annotated[str, Field(pattern=r"^(\d+\.\d+|gfx[0-9a-f]+)$")]
    memory: BytesFigure
    bandwidth: BandwidthFigure
    peaks: dict[Compute, RateFigure]
    sms: CountFigure
    l2: CacheFigure
    link: LinkFigure | None
    pcie: BandwidthFigure
    p2p: FlagFigure
    power: PowerFigure
    price: PriceFigure | None
    nodes: Annotated[list[Name], Field(min_length=1)]
    network: Name

    @model_validator(mode="after")
    def _complete(self) -> DeviceSheet:
        if "bf16" not in self.peaks:
            raise ValueError("peaks needs bf16, the 16-bit tensor rate")
        return self


class PairSheet(Strict):
    """A linked pair of GPUs of a node and its number of links."""

    gpus: Annotated[list[int], Field(min_length=2, max_length=2)]
    count: Annotated[int, Field(ge=1, le=64)]


class NodeSheet(_Sheet):
    """How the GPUs of one machine (or one NVLink domain) are joined. `gpus` names what it is made for (empty: any).

    Pairs on one socket have `same_socket`, all others `between`. `groups_of` n: consecutive groups of n GPUs are a full mesh of
    all their links. `pairs`: meshes that are not. `uplink_of` n: consecutive groups of n share one upstream PCIe port, and their
    pairs are `same_uplink`. `tray` is the number of GPUs of one host where the domain spans hosts.
    """

    gpus: list[Name] = Field(default_factory=list)
    most: Annotated[int, Field(ge=1, le=MOST_GPUS_OF_A_NODE)]
    sockets: Annotated[int, Field(ge=1, le=16)] | None = None
    tray: Annotated[int, Field(ge=1, le=16)] | None = None
    between: LinkKind
    same_socket: LinkKind | None = None
    groups_of: Annotated[int, Field(ge=2, le=64)] | None = None
    pairs: list[PairSheet] = Field(default_factory=list)
    uplink_of: Annotated[int, Field(ge=2, le=64)] | None = None
    same_uplink: LinkKind | None = None
    assumed: Text = ""


class NetworkSheet(_Sheet):
    """What joins nodes: bandwidth one way, of each `gpu` or of the whole `node`."""

    aliases: list[Name] = Field(default_factory=list)
    bandwidth: BandwidthFigure
    per: Literal["gpu", "node"]
    latency: SecondsFigure
    rdma: bool


M = TypeVar("M", bound=BaseModel)


def validated(kind: type[M], data: dict[str, Any], *, origin: str) -> M:
    """`data` as this model. Raises ProfileError naming `origin` and the first thing that is wrong."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problem = first_problem(error).replace("Value error, ", "")
        raise ProfileError(f"{origin} does not say what it must: {problem[:300].rstrip('.')}.") from None
