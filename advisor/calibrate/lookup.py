"""Points -> problems: every name of a row is looked up once, and rows that share a question share its objects."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from advisor.calibrate.points import Point
from advisor.calibrate.recipes import as_started
from advisor.errors import AdvisorError
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import Cluster
from advisor.specs.engine import Engine
from advisor.specs.model import ModelSpec
from advisor.specs.problem import Problem

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Desk:
    """What has been looked up while answering rows.

    `calibration` overrules the one of every machine; `local` lets this machine's own file count, `own` the shipped file of the
    very GPU (without it its family answers). `fitted` profiles answer in place of those on disk.
    """

    online: bool = True
    calibration: Calibration | None = None
    local: bool = True
    own: bool = True
    fitted: tuple[Engine, ...] = ()
    models: dict[tuple[str, str, str], ModelSpec | AdvisorError] = field(default_factory=dict)
    clusters: dict[tuple[str, int, int, str], Cluster | AdvisorError] = field(default_factory=dict)
    engines: dict[tuple[str, str], Engine | AdvisorError] = field(default_factory=dict)
    calibrations: dict[str, Calibration] = field(default_factory=dict)

    def problem(self, point: Point) -> Problem:
        """The point as a problem. Raises the AdvisorError of the first name that is not known."""
        return Problem(model=self.model(point), cluster=self.cluster(point), workload=point.workload, engine=self.engine(point))

    def model(self, point: Point) -> ModelSpec:
        """The model in the row's number formats."""
        from advisor.catalog.models import load_model, requantise

        def load() -> ModelSpec:
            spec = load_model(point.model, online=self.online).spec
            if point.weight_dtype or point.kv_dtype:
                spec = requantise(spec, dtype=point.weight_dtype or None, kv_dtype=point.kv_dtype or None)
            return spec

        return _once(self.models, (point.model, point.weight_dtype, point.kv_dtype), load)

    def cluster(self, point: Point) -> Cluster:
        """The machine of the row."""
        from advisor.catalog.machines import load_cluster

        def load() -> Cluster:
            each = max(1, -(-point.gpus // point.nodes))
            return load_cluster(gpu=point.hardware, gpus=each, nodes=point.nodes, interconnect=point.interconnect)

        return _once(self.clusters, (point.hardware, point.gpus, point.nodes, point.interconnect), load)

    def engine(self, point: Point) -> Engine:
        """The engine profile of the row, started as its recipe says."""
        from advisor.catalog.engines import load_engine

        engine = _once(self.engines, (point.engine, point.engine_version), lambda: load_engine(point.engine, point.engine_version))
        engine = next((e for e in self.fitted if (e.name, e.version) == (engine.name, engine.version)), engine)
        return as_started(engine, point, self.cluster(point).device)

    def coefficients(self, cluster: Cluster) -> Calibration:
        """The calibration of the machine's device, or the one that overrules it."""
        from advisor.catalog.calibrations import load_calibration

        if self.calibration is not None:
            return self.calibration
        device = cluster.device
        if device.name not in self.calibrations:
            self.calibrations[device.name] = load_calibration(device, local=self.local, own=self.own)
        return self.calibrations[device.name]


def _once(found: dict[K, T | AdvisorError], key: K, load: Callable[[], T]) -> T:
    """The value of `key`, loaded the first time; a failure is remembered and raised again."""
    if key not in found:
        try:
            found[key] = load()
        except AdvisorError as error:
            found[key] = error
    value = found[key]
    if isinstance(value, AdvisorError):
        raise value
    return value
