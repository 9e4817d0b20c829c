"""A user's own measured runs -> corrections of a calibration. Few rows move it a part of the way, and narrow no bar.

Each direction j scales some of decode, prefill, collective and host by exp(x_j), with a normal prior of spread `PRIOR`. Up to
`FEW` rows there is one direction, all four together: one figure cannot tell them apart. A row's figures are of one run, so that
together they weigh as one; its residual r_i has the whole spread of the prediction as its scatter. The posterior is solved by
Gauss-Seidel on its normal equations, and taken only as far as it brings the rows nearer:

    x_j = sum_i J_ij (r_i - sum_(k != j) J_ik x_k) / s_i^2  /  (1 / PRIOR_j^2 + sum_i J_ij^2 / s_i^2)                         (F2)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from advisor.calibrate.cases import Case, Predictors, answer, figure
from advisor.calibrate.lookup import Lookup
from advisor.calibrate.points import Point, figures_of_row, point_of_row
from advisor.errors import AdvisorError
from advisor.roofline.memory import stage_weight_bytes
from advisor.serving.familiarity import spread_for
from advisor.specs.calibration import Calibration, Spread
from advisor.specs.model import MoeFfn

PRIOR = {"decode": 0.25, "prefill": 0.3, "collective": 0.5, "host": 0.5}
FEW = len(PRIOR)  # rows; fewer cannot tell four corrections apart
HALVINGS = 6  # of a step that leads away from the rows, because the model is not a straight line
STEP = 0.05  # of a logarithm: how far a scale is moved to see what follows
CONTRADICTION = 1.5  # the same question answered twice, further apart than this
SPREAD_NAMES = {
    "ttft_s": "ttft", "tpot_s": "tpot", "latency_s": "latency", "decode_tokens_per_s": "tpot",
    "output_tokens_per_s": "throughput", "total_tokens_per_s": "throughput", "requests_per_s": "throughput",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """The corrected calibration, the rows that count, and those left out with the reason."""

    calibration: Calibration
    used: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    point: Point
    case: Case
    name: str


def scales_from_points(
    rows: Sequence[Mapping[str, str | None]], calibration: Calibration, *, lookup: Lookup | None = None
) -> Correction:
    """Correct `calibration` by measured rows in the columns of `advisor.calibrate.points`. Rows of other GPUs, rows that cannot
    be computed, contradict each other or beat the memory roofline are named and left out. Raises nothing for a bad row."""
    lookup = lookup or Lookup()
    predictors = Predictors()
    cases, left_out = _usable(rows, calibration, lookup, predictors)
    if not cases:
        return Correction(calibration=calibration, used=(), left_out=tuple(left_out))
    directions = _directions(len(cases))
    scaled = _moved(calibration, directions, _solved(cases, calibration, directions, predictors))
    for _ in range(HALVINGS):
        if _distance(cases, scaled, predictors) <= _distance(cases, calibration, predictors):
            break
        scaled = _halfway(calibration, scaled)
    engine, model = cases[0].case.problem.engine, cases[0].case.problem.model
    spreads = dict(calibration.spreads)
    for name in sorted(set(SPREAD_NAMES.values())):
        rows_of = sum(any(SPREAD_NAMES[column] == name for column, _ in run.case.figures) for run in cases)
        spreads[name] = _narrowed(spread_for(engine, calibration, name, model), rows_of)
    corrected = replace(
        scaled,
        spreads=tuple(sorted(spreads.items())),
        notes=(*calibration.notes, f"corrected by {len(cases)} own runs of {engine.name} {engine.version}"),
    )
    return Correction(calibration=corrected, used=tuple(run.name for run in cases), left_out=tuple(left_out))


def _directions(rows: int) -> list[tuple[tuple[str, ...], float]]:
    """The scales that move together, with the prior's spread."""
    if rows <= FEW:
        return [(tuple(PRIOR), min(PRIOR.values()))]
    return [((name,), prior) for name, prior in PRIOR.items()]


def _moved(calibration: Calibration, directions: Sequence[tuple[tuple[str, ...], float]], x: Sequence[float]) -> Calibration:
    factors = {name: math.exp(value) for (names, _), value in zip(directions, x, strict=True) for name in names}
    return _with_scales(calibration, factors)


def _halfway(calibration: Calibration, scaled: Calibration) -> Calibration:
    """The calibration whose scales are halfway, in logarithms, between the two."""
    before = dict(calibration.scales)
    half = {name: math.sqrt(value / before.get(name, 1.0)) for name, value in scaled.scales}
    return _with_scales(calibration, half)


def _distance(cases: Sequence[_Run], calibration: Calibration, predictors: Predictors) -> float:
    """The squared residuals of the rows in units of their scatter."""
    total = 0.0
    for run in cases:
        for column, residual in _logs(run.case, calibration, predictors).items():
            total += (residual / _scatter(run.case, calibration, column)) ** 2
    return total


def _scatter(case: Case, calibration: Calibration, column: str) -> float:
    """Standard deviation of one figure of a row: all that a prediction may be off by, and as many times more as it has figures."""
    spread = spread_for(case.problem.engine, calibration, SPREAD_NAMES[column], case.problem.model)
    return max(0.03, math.hypot(spread.shared, spread.independent)) * math.sqrt(len(case.figures))


def _solved(
    cases: Sequence[_Run], calibration: Calibration, directions: Sequence[tuple[tuple[str, ...], float]], predictors: Predictors
) -> list[float]:
    """How far to go in each direction, by (F2)."""
    base = [_logs(run.case, calibration, predictors) for run in cases]
    shifted = []
    for names, _ in directions:
        moved = _with_scales(calibration, dict.fromkeys(names, math.exp(STEP)))
        shifted.append([_logs(run.case, moved, predictors) for run in cases])
    residuals: list[float] = []
    jacobian: list[list[float]] = []
    scatters: list[float] = []
    for index, run in enumerate(cases):
        for column, value in base[index].items():
            residuals.append(value)
            jacobian.append([(found[index].get(column, value) - value) / STEP for found in shifted])
            scatters.append(_scatter(run.case, calibration, column))
    return _posterior(residuals, jacobian, scatters, [prior for _, prior in directions])


def _usable(
    rows: Sequence[Mapping[str, str | None]], calibration: Calibration, lookup: Lookup, predictors: Predictors
) -> tuple[list[_Run], list[tuple[str, str]]]:
    found: list[_Run] = []
    left_out: list[tuple[str, str]] = []
    for number, row in enumerate(rows, start=1):
        name = (row.get("id") or "").strip() or f"row {number}"
        try:
            point = point_of_row(row)
            problem = lookup.problem(point)
        except AdvisorError as error:
            left_out.append((name, str(error)))
            continue
        case = Case(id=name, problem=problem, plan=point.plan, calibration=calibration, measured=tuple(figures_of_row(row).items()))
        reason = _refusal(case, calibration, predictors)
        if reason:
            left_out.append((name, reason))
        else:
            found.append(_Run(point=point, case=case, name=name))
    by_question: dict[tuple[object, ...], list[_Run]] = defaultdict(list)
    for run in found:
        p = run.point
        by_question[(p.model, p.hardware, p.engine, p.weight_dtype, p.kv_dtype, p.plan, p.workload)].append(run)
    kept = []
    for runs in by_question.values():
        if _contradict(runs):
            left_out += [(run.name, "contradicts another row of the same configuration by more than half") for run in runs]
        else:
            kept += runs
    return kept, left_out


def _refusal(case: Case, calibration: Calibration, predictors: Predictors) -> str:
    """Why a row does not count, or nothing."""
    device, measured = case.problem.cluster.device, dict(case.measured)
    if not measured:
        return "has no measured figure"
    if calibration.device not in (device.name, ""):
        return f"is of {device.name}, the calibration of {calibration.device}"
    if answer(case, case.problem.engine, predictors) is None:
        return "does not fit in memory by the model, so what ran was something else"
    tpot_s = measured.get("tpot_s")
    model = case.problem.model
    if tpot_s is not None and not any(isinstance(layer.ffn, MoeFfn) for layer in model.layers):
        weights = stage_weight_bytes(model, case.plan, case.problem.engine, 0) * case.plan.pp
        least_s = weights / device.memory_bytes_per_s / case.plan.pp
        if tpot_s < 0.95 * least_s:
            return f"is faster than memory: TPOT {tpot_s * 1e3:.3g} ms, reading the weights alone takes {least_s * 1e3:.3g} ms"
    return ""


def _contradict(runs: Sequence[_Run]) -> bool:
    for column in SPREAD_NAMES:
        values = [dict(run.case.measured)[column] for run in runs if column in dict(run.case.measured)]
        if len(values) > 1 and max(values) > CONTRADICTION * min(values):
            return True
    return False


def _logs(case: Case, calibration: Calibration, predictors: Predictors) -> dict[str, float]:
    prediction = answer(replace(case, calibration=calibration), case.problem.engine, predictors)
    if prediction is None:
        return {}
    logs = {}
    for name, measured in case.figures:
        predicted = figure(prediction, name)
        if predicted > 0:
            logs[name] = math.log(measured / predicted)
    return logs


def _with_scales(calibration: Calibration, factors: Mapping[str, float]) -> Calibration:
    scales = dict(calibration.scales)
    for name, factor in factors.items():
        scales[name] = scales.get(name, 1.0) * factor
    return replace(calibration, scales=tuple(sorted(scales.items())))


def _posterior(
    residuals: Sequence[float], jacobian: Sequence[Sequence[float]], scatters: Sequence[float], priors: Sequence[float]
) -> list[float]:
    """(F2). The Jacobian is of ln(measured / predicted), so the move that closes a residual has the other sign."""
    x = [0.0] * len(priors)
    for _ in range(60):
        for j, prior in enumerate(priors):
            pull, weight = 0.0, 1 / prior**2
            for r, row, s in zip(residuals, jacobian, scatters, strict=True):
                rest = r + sum(row[k] * x[k] for k in range(len(x)) if k != j)
                pull -= row[j] * rest / s**2
                weight += row[j] ** 2 / s**2
            x[j] = pull / weight
    return x


def _narrowed(spread: Spread, rows: int) -> Spread:
    """The shared part after `rows` own figures: 1 / s'^2 = 1 / s^2 + (n - FEW) / own^2. The first few are spent on the scales."""
    free = rows - FEW
    if free <= 0 or not spread.shared:
        return spread
    shared = 1 / math.sqrt(1 / spread.shared**2 + free / max(spread.independent, 0.03) ** 2)
    return replace(spread, shared=shared, points=spread.points + rows)
