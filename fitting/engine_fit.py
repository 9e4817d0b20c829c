"""Fit an engine profile on measured serving figures.

    minimise  sum over rows and figures of rho(w ln(measured / predicted(x))) + sum over coefficients of (x_j / s_j)^2          (F1)

`x_j` is the logarithm of a coefficient against its starting value, `s_j` how far it may reasonably be from it, rho the soft L1
loss. Leaving a model or a GPU out re-solves (F1) linearised at the optimum, without that group's rows: one Gauss-Newton step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

from advisor.calibrate.cases import Case, Predictors, answer, figure
from advisor.roofline.engine_scales import scale_scopes
from advisor.specs.engine import Engine
from advisor.specs.keys import ScaleKey

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

# A TTFT under load scatters several times more than other figures (bursts, clients, mean or median) and counts less.
TTFT_WEIGHT = 0.4
STEP = 0.02  # of the logarithm of a coefficient, for a forward difference
STALE = 0.1  # slopes are taken anew after a move larger than this
ENOUGH = 0.01  # of the loss: a round that gains less ends the fit
SOFT = 0.1  # residuals beyond 10% count linearly


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """ln(measured / predicted) of one figure of one case, and how much it counts."""

    case: int
    figure: str
    value: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The engine with fitted coefficients, its residuals, and the coefficients without each left-out group."""

    engine: Engine
    residuals: tuple[Residual, ...]
    left_out: tuple[tuple[str, Engine], ...]


def residuals(cases: Sequence[Case], engines: Sequence[Engine], *, processes: int = 1) -> list[list[Residual]]:
    """Residuals of every case under each engine profile, in order; cases that do not fit give none."""
    found = _residuals_of(cases, [(index, engine) for engine in engines for index in range(len(cases))], processes=processes)
    size = len(cases)
    return [[r for rows in found[i * size : (i + 1) * size] for r in rows] for i in range(len(engines))]


def _residuals_of(cases: Sequence[Case], jobs: Sequence[tuple[int, Engine]], *, processes: int) -> list[list[Residual]]:
    """Residuals of each (case, engine profile), in order."""
    if processes <= 1:
        return [_residual(cases, index, engine) for index, engine in jobs]
    global _CASES
    _CASES = cases
    with get_context("fork").Pool(processes) as pool:
        return pool.map(_residual_of_job, jobs, chunksize=max(1, len(jobs) // (8 * processes)))


_PREDICTORS = Predictors()  # of this process
_CASES: Sequence[Case] = ()  # handed to forked workers once, instead of pickling every case with every job


def _residual_of_job(job: tuple[int, Engine]) -> list[Residual]:
    return _residual(_CASES, job[0], job[1])


def _residual(cases: Sequence[Case], index: int, engine: Engine) -> list[Residual]:
    load = cases[index].problem.workload
    prediction = answer(cases[index], engine, _PREDICTORS, screen=load.start == "steady")
    if prediction is None:
        return []
    rows = []
    loaded = cases[index].problem.workload.mode not in ("static_batch", "single_stream")
    for name, measured in cases[index].figures:
        predicted = figure(prediction, name)
        if predicted > 0:
            weight = TTFT_WEIGHT if name == "ttft_s" and loaded else 1.0
            rows.append(Residual(case=index, figure=name, value=math.log(measured / predicted), weight=weight))
    return rows


# Coefficients of (F1): the spread s_j of the prior, in natural logarithms.
HOST_PRIORS = {
    "step_s": 1.0,
    "sequence_s": 1.0,
    "request_s": 0.5,
    "admit_s": 1.0,
    "kernel_s": 0.7,
    "token_s": 1.0,
    "wait_steps": 0.7,
    "prefill_s": 1.0,
    "context_s": 1.0,
    "ranks_s": 1.0,
}
# Matrix products, attention and experts were measured in the engines that the tables are of; collectives vary more.
SCALE_PRIORS = {"decode": 0.15, "prefill": 0.2, "collective": 0.5, "experts": 0.3, "attention": 0.3}
FINER_PRIORS = {**SCALE_PRIORS, "host": 0.2}  # the engine's own host times are in HOST_PRIORS


OTHER_KERNELS = {"decode": 0.3, "prefill": 0.3, "experts": 0.8}  # of an engine that the tables are not of


def coefficients(engine: Engine, finer: Mapping[str, float], *, measured: bool = True) -> list[tuple[str, float]]:
    """(name, prior spread) of everything that is fitted for this engine; `finer` scales have a share of their part's spread.
    `measured`: the tables hold this engine's kernels."""
    names = [(f"host/{name}", spread) for name, spread in HOST_PRIORS.items() if getattr(engine.host, name) > 0]
    names += [("host/overlap", 1.0)] if 0 < engine.host.overlap < 1 else []
    names += [(f"scales/{name}", spread) for name, spread in (SCALE_PRIORS if measured else SCALE_PRIORS | OTHER_KERNELS).items()]
    return names + [(f"scales/{name}", share * FINER_PRIORS[name.partition("/")[0]]) for name, share in sorted(finer.items())]


def with_coefficients(engine: Engine, names: Sequence[tuple[str, float]], x: Iterable[float]) -> Engine:
    """The engine with each named coefficient multiplied by exp(x); the overlap moves on the logit scale."""
    host, scales = engine.host, {str(key): factor for key, factor in engine.scales}
    for (name, _), value in zip(names, x, strict=True):
        kind, _, rest = name.partition("/")
        if name == "host/overlap":
            odds = math.log(host.overlap / (1 - host.overlap)) + value
            host = replace(host, overlap=1 / (1 + math.exp(-odds)))
        elif kind == "host":
            host = replace(host, **{rest: getattr(host, rest) * math.exp(value)})
        else:
            scales[rest] = scales.get(rest, 1.0) * math.exp(value)
    return replace(engine, host=host, scales=tuple((ScaleKey.parse(name), scales[name]) for name in sorted(scales)))


def fit_engine(
    cases: Sequence[Case],
    engine: Engine,
    *,
    finer: Mapping[str, float] | None = None,
    measured: bool = True,
    groups: Callable[[Case], Sequence[str]] = lambda case: (),
    processes: int = 1,
    rounds: int = 4,
) -> Fitted:
    """Solve (F1) by damped Gauss-Newton from the engine's present values; `groups` names what each case is left out with.

    Needs numpy (the `fit` extra). Deterministic: no random numbers, cases in the order given.
    """
    import numpy as np

    names = coefficients(engine, finer or {}, measured=measured)
    spread = np.array([s for _, s in names])
    x = np.zeros(len(names))

    def at(point: Vector) -> list[Residual]:
        return residuals(cases, [with_coefficients(engine, names, point)], processes=processes)[0]

    best, slopes, moved = at(x), {}, math.inf
    for _ in range(rounds):
        if moved > STALE:
            slopes = _slopes(cases, engine, names, x, processes)
        move, before = np.clip(_move(best, slopes, x, spread), -0.7, 0.7), _loss(best, x, spread)
        for damping in (1.0, 0.5, 0.25, 0.1):
            trial = x + damping * move
            after = at(trial)
            if (reached := _loss(after, trial, spread)) < before:
                break
        else:
            break
        x, best, moved = trial, after, float(np.max(np.abs(damping * move)))
        if moved < 0.01 or reached > (1 - ENOUGH) * before:
            break
    if moved > STALE:
        slopes = _slopes(cases, engine, names, x, processes)
    left_out = []
    for group in sorted({name for case in cases for name in groups(case)}):
        kept = [r for r in best if group not in groups(cases[r.case])]
        if len(kept) >= len(names) // 2:
            move = np.clip(_move(kept, slopes, x, spread), -0.7, 0.7)
            left_out.append((group, with_coefficients(engine, names, x + move)))
    return Fitted(engine=with_coefficients(engine, names, x), residuals=tuple(best), left_out=tuple(left_out))


Slopes = dict[tuple[int, str], "Vector"]  # (case, figure) -> how its residual moves with each coefficient


def _slopes(cases: Sequence[Case], engine: Engine, names: Sequence[tuple[str, float]], x: Vector, processes: int) -> Slopes:
    """Forward differences of every residual that all variants answer (a shift may push a plan over the edge of its memory).

    A scale of another architecture, format or device moves nothing and is not tried. A benchmark from its first burst to its last
    answer takes a hundred times longer to simulate than its steady state takes to solve, and the two move alike: slopes are those
    of the steady state, residuals never.
    """
    import numpy as np

    steady = [_steady(case) for case in cases]
    here = with_coefficients(engine, names, x)
    shifted = [with_coefficients(engine, names, x + STEP * (np.arange(len(names)) == j)) for j in range(len(names))]
    jobs = [(i, j) for i in range(len(cases)) for j, (name, _) in enumerate(names) if touches(name, cases[i])]
    tried = [(i, here) for i in range(len(cases))] + [(i, shifted[j]) for i, j in jobs]
    answers = _residuals_of(steady, tried, processes=processes)
    base = {(r.case, r.figure): r.value for rows in answers[: len(cases)] for r in rows}
    slopes: Slopes = {key: np.zeros(len(names)) for key in base}
    for (i, j), rows in zip(jobs, answers[len(cases) :], strict=True):
        found = {r.figure: r.value for r in rows}
        for key in [key for key in slopes if key[0] == i]:
            if key[1] in found:
                slopes[key][j] = (found[key[1]] - base[key]) / STEP
            else:
                del slopes[key]
    return slopes


def _steady(case: Case) -> Case:
    """The case as a load that has run for long, where it is a closed loop from a cold start."""
    load = case.problem.workload
    if load.mode != "closed_loop" or not load.requests:
        return case
    return replace(case, problem=replace(case.problem, workload=replace(load, start="steady", requests=0)))


def touches(name: str, case: Case) -> bool:
    """Whether a coefficient changes anything of a case: scales of an architecture, of a format on it or of a device only theirs."""
    kind, _, rest = name.partition("/")
    if kind != "scales" or "/" not in rest or rest == "attention/unsplit":
        return True
    key, problem = ScaleKey.parse(rest), case.problem
    return (key.where, key.number_format) in scale_scopes(problem.model, problem.engine, problem.cluster.device)


def _move(rows: Sequence[Residual], slopes: Slopes, x: Vector, spread: Vector) -> Vector:
    """One Gauss-Newton step of (F1) with its prior, which is worth a handful of rows at the loss's own scale."""
    import numpy as np

    rows = [r for r in rows if (r.case, r.figure) in slopes]
    value = np.array([r.value for r in rows])
    jacobian = np.array([slopes[r.case, r.figure] for r in rows])
    weights = np.array([r.weight for r in rows]) ** 2 / np.sqrt(1 + (value / SOFT) ** 2)
    prior = np.diag(4.0 * SOFT**2 / spread**2)
    normal = jacobian.T @ (weights[:, None] * jacobian) + prior
    return np.asarray(np.linalg.solve(normal, -jacobian.T @ (weights * value) - prior @ x), dtype=np.float64)


def _loss(rows: Sequence[Residual], x: Vector, spread: Vector) -> float:
    fit = sum(r.weight**2 * 2 * SOFT**2 * (math.sqrt(1 + (r.value / SOFT) ** 2) - 1) for r in rows)
    return float(fit + 4.0 * SOFT**2 * sum((value / s) ** 2 for value, s in zip(x, spread, strict=True)))
