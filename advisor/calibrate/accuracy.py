"""The scoreboard: published figures beside what is predicted for them without their own model, or without their own GPU."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from advisor.calibrate.cases import Case, Predictors, answer, figure
from advisor.calibrate.lookup import Lookup
from advisor.calibrate.points import Point, figures_of_row, point_of_row
from advisor.calibrate.recipes import unstated
from advisor.calibrate.residuals import Choices, Scatter, choices, scatter
from advisor.errors import AdvisorError
from advisor.specs.engine import Engine
from advisor.specs.model import ModelSpec

LeftOut = Mapping[tuple[str, str, str], Engine]  # (engine, version, group) -> the profile fitted without that group
QUEUEING = ("ttft_s", "tpot_s")  # of an offline run TTFT is queueing, and its TPOT belongs to whatever batch was tuned for


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published figure and its prediction.

    `without` names what the coefficients were fitted without ("": nothing), `family` is that of the model, `architecture` that of
    the GPU.
    """

    point: Point
    url: str
    figure: str
    measured: float
    predicted: float
    low: float
    high: float
    without: str
    anomaly: str
    family: str
    architecture: str

    @property
    def log(self) -> float:
        """ln(measured / predicted)."""
        return math.log(self.measured / self.predicted)

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted / self.measured - 1

    @property
    def covered(self) -> bool:
        """Whether the measured figure is inside the interval."""
        return self.low <= self.measured <= self.high


Group = Callable[[Point, ModelSpec], str]


def model_group(point: Point, model: ModelSpec) -> str:
    """The group a row leaves the fit with when its model does."""
    return f"model {point.model}"


def gpu_group(point: Point, model: ModelSpec) -> str:
    """The group a row leaves the fit with when its GPU does."""
    return f"gpu {point.hardware}"


def family_group(point: Point, model: ModelSpec) -> str:
    """The group a row leaves the fit with when all models of its family do."""
    return f"family {model.family}"


def score(
    rows: Iterable[Mapping[str, str | None]],
    left_out: LeftOut,
    *,
    group: Group = model_group,
    lookup: Lookup | None = None,
) -> tuple[list[Row], list[tuple[str, str]]]:
    """(scored figures, rows that could not be computed with the reason). Rows whose group was left out use that fit."""
    lookup = lookup or Lookup(online=False, local=False)
    predictors = Predictors()
    scored: list[Row] = []
    failed: list[tuple[str, str]] = []
    for row in rows:
        try:
            point = point_of_row(row)
            problem = lookup.problem(point)
            known = lookup.coefficients(problem.cluster)
            case = Case(id=point.id, problem=problem, plan=point.plan, calibration=known, measured=())
        except AdvisorError as error:
            failed.append((row.get("id") or "", str(error)))
            continue
        engine = problem.engine
        without = left_out.get((engine.name, engine.version, group(point, problem.model)))
        prediction = answer(case, engine if without is None else without, predictors)
        if prediction is None:
            failed.append((point.id, "the plan does not fit in memory by the model"))
            continue
        for name, measured in figures_of_row(row).items():
            if point.workload.mode == "offline" and name in QUEUEING:
                continue
            estimate = getattr(prediction, name)
            if estimate.value > 0:
                scored.append(
                    Row(
                        point=point,
                        url=row.get("url") or "",
                        figure=name,
                        measured=measured,
                        predicted=figure(prediction, name),
                        low=estimate.low,
                        high=estimate.high,
                        without=group(point, problem.model) if without is not None else "",
                        anomaly=row.get("anomaly") or unstated(point),
                        family=problem.model.family,
                        architecture=problem.cluster.device.architecture,
                    )
                )
    return scored, failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One line of the scoreboard: which figures it counts, and what is aimed at."""

    name: str
    median: float
    p90: float
    figures: tuple[str, ...]
    counts: Callable[[Point], bool]


def _is(mode: Sequence[str], engines: Sequence[str] = ()) -> Callable[[Point], bool]:
    return lambda point: point.workload.mode in mode and (not engines or point.engine in engines)


TARGETS = (
    Target(
        name="latency of static batches, vLLM and TensorRT-LLM",
        median=0.06,
        p90=0.18,
        figures=("latency_s",),
        counts=_is(("static_batch", "single_stream"), ("vllm", "trtllm")),
    ),
    Target(name="TPOT, closed loop", median=0.08, p90=0.22, figures=("tpot_s",), counts=_is(("closed_loop",))),
    Target(
        name="throughput, closed loop and offline",
        median=0.08,
        p90=0.25,
        figures=("output_tokens_per_s",),
        counts=_is(("closed_loop", "offline")),
    ),
    Target(name="TTFT, closed loop", median=0.15, p90=0.40, figures=("ttft_s",), counts=_is(("closed_loop",))),
    Target(
        name="gpt-fast single stream",
        median=0.05,
        p90=0.12,
        figures=("decode_tokens_per_s",),
        counts=_is(("single_stream",), ("gpt-fast",)),
    ),
    Target(name="everything else", median=0.10, p90=0.30, figures=(), counts=lambda point: True),
)

# The aims where a row's whole family, or its own GPU, is left out.
ANOTHER_FAMILY = tuple(replace(target, median=0.15, p90=0.40) for target in TARGETS)
ANOTHER_GPU = tuple(replace(target, median=0.12, p90=0.30) for target in TARGETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLine:
    """A target with what was reached."""

    target: Target
    reached: Scatter


def scoreboard(rows: Sequence[Row], targets: Sequence[Target] = TARGETS) -> list[ScoreLine]:
    """Each target's scatter over rows that were left out of the fit; every figure counts in the first line that wants it."""
    buckets: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if counted(row) and (target := _target(row, targets)):
            buckets[target.name].append(row)
    return [ScoreLine(target=target, reached=_scatter(found)) for target in targets if (found := buckets.get(target.name))]


def counted(row: Row) -> bool:
    """Whether a row counts in headlines: predicted without its own group, under conditions that it states."""
    return bool(row.without) and not row.anomaly


def _target(row: Row, targets: Sequence[Target]) -> Target | None:
    return next((t for t in targets if (not t.figures or row.figure in t.figures) and t.counts(row.point)), None)


def _scatter(rows: Sequence[Row]) -> Scatter:
    return scatter([r.log for r in rows], [r.covered for r in rows], [r.high / r.low for r in rows if r.low > 0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The scatter of one target's rows that have something in common: an engine, a family of models, an architecture of GPUs."""

    axis: str
    value: str
    target: Target
    reached: Scatter


AXES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("engine", lambda row: row.point.engine),
    ("models", lambda row: row.family),
    ("GPUs", lambda row: row.architecture),
)
FEWEST = 8  # rows that a slice is shown for


def slices(rows: Sequence[Row], targets: Sequence[Target] = TARGETS) -> list[Slice]:
    """Every slice with enough rows, the one that misses its aim by most first."""
    buckets: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    by_name = {target.name: target for target in targets}
    for row in rows:
        if counted(row) and (target := _target(row, targets)):
            for axis, value in AXES:
                buckets[axis, value(row), target.name].append(row)
    found = [
        Slice(axis=axis, value=value, target=by_name[name], reached=_scatter(group))
        for (axis, value, name), group in sorted(buckets.items())
        if len(group) >= FEWEST
    ]
    return sorted(found, key=lambda part: -part.reached.median / part.target.median)


def of_vendor(rows: Sequence[Row], *, amd: bool) -> list[Row]:
    """The rows on AMD's GPUs, or on the others."""
    return [row for row in rows if row.architecture.startswith("cdna") == amd]


def plan_choices(rows: Sequence[Row], *, tie: float = 0.003) -> Choices:
    """Choices on equal GPUs at equal load that the rows allow, by time per request: tp = N at C users against N / t replicas of
    tp = t at C t / N users each (replicas share nothing, so one of them was measured)."""
    latency: dict[tuple[str, ...], dict[tuple[int, int, int], tuple[float, float]]] = defaultdict(dict)
    for (point, kind), (measured, predicted) in request_seconds(rows).items():
        if kind != point.workload.mode or point.plan.ep > 1 or point.plan.dp > 1:
            continue
        key: tuple[str, ...] = (
            point.source,
            point.hardware,
            point.engine,
            point.engine_version,
            point.model,
            point.weight_dtype,
            point.kv_dtype,
            str(point.workload.input_tokens),
            str(point.workload.output_tokens),
            point.workload.mode,
        )
        latency[key][(point.plan.tp, point.plan.pp, point.workload.users)] = (measured, predicted)
    alternatives: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for key, table in latency.items():
        for (tp, pp, users), pair in table.items():
            for gpus in (1, 2, 4, 8):
                replicas, rest = divmod(gpus, tp * pp)
                if not rest and replicas:
                    alternatives[f"{key} {gpus} GPUs {users * replicas} users"][f"tp{tp:03d} pp{pp}"] = pair
    return choices(alternatives, tie=tie)


def request_seconds(rows: Sequence[Row]) -> dict[tuple[Point, Literal["closed_loop", "static_batch"]], tuple[float, float]]:
    """(measured, predicted) seconds from sending a request to its last token, where a row's figures tell."""
    by_point: dict[Point, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if not row.anomaly:
            by_point[row.point][row.figure] = row
    found: dict[tuple[Point, Literal["closed_loop", "static_batch"]], tuple[float, float]] = {}
    for point, figures in by_point.items():
        if point.workload.mode == "static_batch" and "latency_s" in figures:
            row = figures["latency_s"]
            found[(point, "static_batch")] = (row.measured, row.predicted)
        elif point.workload.mode == "closed_loop" and {"ttft_s", "tpot_s"} <= figures.keys():
            first, each, tokens = figures["ttft_s"], figures["tpot_s"], point.workload.output_tokens - 1
            found[(point, "closed_loop")] = (
                first.measured + tokens * each.measured,
                first.predicted + tokens * each.predicted,
            )
    return found


def read_points(text: str) -> list[dict[str, str | None]]:
    """Rows of a points file's text."""
    return [dict(row) for row in csv.DictReader(text.splitlines())]
