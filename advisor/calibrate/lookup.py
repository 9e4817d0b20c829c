"""Points -> problems: every name of a row is looked up once, and rows that share a question share its objects."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from advisor.calibrate.names import checkpoint
from advisor.calibrate.points import Point
from advisor.calibrate.recipes import as_started, stored_format
from advisor.errors import AdvisorError, QuestionError
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import Cluster
from advisor.specs.engine import Engine
from advisor.specs.model import ModelSpec
from advisor.specs.problem import Problem
from advisor.specs.speculation import Speculation

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
USUAL_DRAFTS = 3  # of the MTP recipes of InferenceX and of the engines' documentation
NODE_GPUS = 8  # of an HGX board


@dataclass(slots=True, kw_only=True)
class Lookup:
    """What has been looked up while answering rows.

    `calibration` overrules the one of every machine; `local` lets this machine's own file count, `exact` the shipped file of the
    very GPU (without it its family answers). `fitted` profiles answer in place of those on disk.
    """

    online: bool = True
    calibration: Calibration | None = None
    local: bool = True
    exact: bool = True
    fitted: tuple[Engine, ...] = ()
    models: dict[tuple[str, str, str], ModelSpec | AdvisorError] = field(default_factory=dict)
    clusters: dict[tuple[str, int, int, str], Cluster | AdvisorError] = field(default_factory=dict)
    engines: dict[tuple[str, str], Engine | AdvisorError] = field(default_factory=dict)
    calibrations: dict[str, Calibration] = field(default_factory=dict)

    def problem(self, point: Point) -> Problem:
        """The point as a problem. Raises the AdvisorError of the first name that is not known."""
        return Problem(
            model=self.model(point), cluster=self.cluster(point), workload=point.workload, engine=self.engine(point),
            speculation=self.speculation(point),
        )  # fmt: skip

    def speculation(self, point: Point) -> Speculation | None:
        """The drafting of the row; None where it has none, or does not say whether it has (`mtp or none`).

        A method without a number drafts `USUAL_DRAFTS` tokens.
        """
        from advisor.catalog.speculation import load_speculation

        named = point.speculation.lower()
        if not named or "none" in named:
            return None
        text = named if ":" in named else f"{named}:{USUAL_DRAFTS}"
        return load_speculation(text, acceptance=point.acceptance)

    def model(self, point: Point) -> ModelSpec:
        """The model in the row's number formats."""
        from advisor.catalog.models import requantise

        dtype = stored_format(point)

        def load() -> ModelSpec:
            spec, stored = self._architecture(point.model)
            given = dtype or stored_format(replace(point, weight_dtype=stored))
            if given or point.kv_dtype:
                spec = requantise(spec, dtype=given or None, kv_dtype=point.kv_dtype or None)
            return spec

        return _once(self.models, (point.model, dtype, point.kv_dtype), load)

    def _architecture(self, name: str) -> tuple[ModelSpec, str]:
        """(the model of that name, ""), or where the catalogue lacks it the model it was made from, saying so, and the format that
        its name states. Raises the QuestionError of the name itself when no such model is known either."""
        from advisor.catalog.models import find_sheet, load_model

        try:
            return load_model(name, online=False).spec, ""
        except QuestionError as error:
            found = checkpoint(name)
            base = next((base for base in found.bases if find_sheet(base) is not None), None)
            if base is None:
                if self.online:
                    return load_model(name).spec, ""
                raise error from None
        spec = load_model(base, online=False).spec
        said = f"{name} is taken as {spec.name}" + (f" stored as {found.stored}" if found.stored else "")
        return replace(spec, caveats=(*spec.caveats, said)), found.stored

    def cluster(self, point: Point) -> Cluster:
        """The machine of the row."""
        from advisor.catalog.machines import load_cluster

        def load() -> Cluster:
            each = max(1, -(-point.gpus // point.nodes))
            try:
                return load_cluster(gpu=point.hardware, gpus=each, nodes=point.nodes, interconnect=point.interconnect)
            except QuestionError:
                if point.deployment is None or point.nodes > 1:
                    raise
            whole = -(-each // NODE_GPUS) * NODE_GPUS  # the workers of pools need not fill the last node
            return load_cluster(gpu=point.hardware, gpus=whole, interconnect=point.interconnect)

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
            self.calibrations[device.name] = load_calibration(device, local=self.local, exact=self.exact)
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
