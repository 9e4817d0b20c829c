"""Figures of many configurations: a CSV file in, a CSV file out, one row for each row.

Rows of one replica shape are computed together, so that its step model is built once; groups are spread over the cores.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from advisor.api.answer import predicted
from advisor.api.cores import on_cores
from advisor.calibrate.cases import Predictors
from advisor.calibrate.lookup import Lookup
from advisor.calibrate.points import FIGURES, Point, point_of_row
from advisor.catalog.devices import load_device
from advisor.errors import AdvisorError, PlanError, ProfileError, QuestionError
from advisor.files import read_bounded, shown, writable, write_whole
from advisor.report.terminal import progress
from advisor.roofline.memory import rank_memory
from advisor.search.legal import tensor_refusal
from advisor.serving.predict import Predictor
from advisor.serving.predict_pools import PoolsPredictor
from advisor.specs.calibration import Calibration
from advisor.specs.deployment import Deployment, DeploymentPrediction
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem

Row = Mapping[str, str | None]

STATUSES = ("ok", "infeasible", "unsupported")
COLUMNS = (
    "id", "status", "reason", *FIGURES, "kv_tokens", "max_sequences",
    *(f"{name}_{end}" for name in FIGURES for end in ("low", "high")),
)  # fmt: skip
_MOST_BYTES = 100_000_000  # half a million rows
ALONE_UP_TO = 40  # fewer rows than this are computed before a second process has started
_KEYS = ("model", "hardware", "gpus", "engine", "engine_version", "weight_dtype", "kv_dtype", "tp", "pp", "dp", "ep")


def estimate_file(points: Path, out: Path, *, calibration: Path | None, online: bool) -> dict[str, int]:
    """Read `points`, write `out`; how many rows have each status. A bad row says why and the others are computed.

    A calibration file counts for the rows on its own GPU.
    """
    target = writable(out)
    if points.exists() and target.exists() and target.samefile(points):
        raise QuestionError(f"--out {shown(out)} is the file that --points reads; name another file, so that the questions stay.")
    rows = read_rows(points)
    own = _calibration(calibration) if calibration else None
    answers = estimate_rows(rows, calibration=own, online=online)
    _write(out, answers)
    return {status: sum(a["status"] == status for a in answers) for status in STATUSES}


def _calibration(path: Path) -> Calibration:
    """The calibration in a file, checked against the GPU that it names itself."""
    from advisor.catalog.calibrations import read_calibration
    from advisor.untrusted import parse_json, parse_yaml, read_text

    parse = parse_json if path.suffix == ".json" else parse_yaml
    device = parse(read_text(path), origin=str(path)).get("device")
    if not isinstance(device, str):
        raise ProfileError(f"{path} is not a calibration file: it names no device.")
    return read_calibration(path, load_device(device))


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file with a header."""
    raw = read_bounded(path, most_bytes=_MOST_BYTES, what="a CSV file of configurations")
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        rows: list[Row] = [{k: v for k, v in row.items() if isinstance(k, str)} for row in reader]
        names = reader.fieldnames
    except (UnicodeDecodeError, csv.Error) as error:
        raise QuestionError(f"{shown(path)} is not a CSV file: {error}.") from None
    missing = [name for name in ("hardware", "engine", "model", "mode") if name not in (names or ())]
    if missing:
        raise QuestionError(
            f"{shown(path)} lacks the column {missing[0]}; the first line must name the columns, see `advisor estimate --help`."
        )
    return rows


def _write(out: Path, answers: Sequence[Mapping[str, object]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(answers)
    write_whole(out, text.getvalue())


def estimate_rows(rows: Sequence[Row], *, calibration: Calibration | None = None, online: bool = True) -> list[dict[str, object]]:
    """One answer a row, in the order of the rows."""
    order = sorted(range(len(rows)), key=lambda i: tuple(str(rows[i].get(key) or "") for key in _KEYS))
    cores = min(os.cpu_count() or 1, 8)
    if len(rows) <= ALONE_UP_TO or cores == 1:
        found = _answers([rows[i] for i in order], calibration, online)
    else:
        pieces = _pieces(order, rows, cores * 8)
        parts = on_cores(
            _answers,
            [[rows[i] for i in piece] for piece in pieces],
            [calibration] * len(pieces),
            [online] * len(pieces),
            cores=cores,
        )
        found = [answer for part in progress(parts, "configurations", total=len(pieces)) for answer in part]
    answers: list[dict[str, object]] = [{} for _ in rows]
    for index, answer in zip(order, found, strict=True):
        answers[index] = answer
    return answers


def _pieces(order: Sequence[int], rows: Sequence[Row], about: int) -> list[list[int]]:
    """`order` cut into about so many runs, only where the question changes."""
    size, pieces = max(1, len(order) // about), [[order[0]]]
    for index in order[1:]:
        last = pieces[-1]
        same = all(rows[index].get(key) == rows[last[-1]].get(key) for key in _KEYS)
        if len(last) >= size and not same:
            pieces.append([index])
        else:
            last.append(index)
    return pieces


def _answers(rows: Sequence[Row], calibration: Calibration | None, online: bool) -> list[dict[str, object]]:
    lookup, predictors = Lookup(online=online), Predictors()
    if calibration is not None:
        lookup.calibrations[load_device(calibration.device).name] = calibration
    return [_answer(lookup, predictors, row) for row in rows]


def _answer(lookup: Lookup, predictors: Predictors, row: Row) -> dict[str, object]:
    """The answer to one row; a bad row says why."""
    name = (row.get("id") or "").strip()
    try:
        point = point_of_row(row)
        problem = lookup.problem(point)
        predictor = predictors.of(problem, lookup.coefficients(problem.cluster))
        prediction = _predicted(predictor, problem, point)
    except PlanError as error:
        return {"id": name, "status": "infeasible", "reason": str(error)}
    except AdvisorError as error:
        return {"id": name, "status": "unsupported", "reason": str(error)}
    return {"id": name, "status": "ok", "reason": "; ".join(prediction.notes), **_figures(prediction)}


def _predicted(predictor: Predictor, problem: Problem, point: Point) -> Prediction | DeploymentPrediction:
    """The plan of a row, or its pools of workers."""
    if point.deployment is None:
        return predicted(predictor, _meant(problem, point.plan))
    pools = Deployment(prefill=_meant(problem, point.deployment.prefill), decode=_meant(problem, point.deployment.decode))
    return PoolsPredictor(predictor).predict(replace(pools, decode=_as_it_can_hold(problem, pools.decode)))


def _as_it_can_hold(problem: Problem, worker: Plan) -> Plan:
    """The decode worker, with attention-DP where the latent cache, whole on every tensor-parallel rank, cannot hold its users: some
    collections leave that column at 1."""
    ranks = worker.tp * worker.adp
    if not problem.model.is_mla or worker.tp == 1 or "adp" not in problem.engine.axes:
        return worker
    held = rank_memory(problem, replace(worker, dp=1)).kv_tokens
    wanted = problem.workload.users / worker.dp * problem.workload.context_tokens
    return worker if wanted <= held else Plan(adp=ranks, ep=ranks, pp=worker.pp, dp=worker.dp)


def _meant(problem: Problem, plan: Plan) -> Plan:
    """The plan that a row means: where the heads cannot be split so, a group of attention-DP ranks with the experts over all.

    Collections write tp=72 for DeepSeek on 72 GPUs with attention-DP; 128 heads do not divide by 72.
    """
    if tensor_refusal(problem.model, plan.tp) and problem.model.is_mla and "adp" in problem.engine.axes:
        ranks = plan.tp * plan.adp
        return Plan(adp=ranks, ep=ranks, pp=plan.pp, dp=plan.dp)
    return plan


def _figures(prediction: Prediction | DeploymentPrediction) -> dict[str, object]:
    figures: dict[str, object] = {"kv_tokens": prediction.kv_tokens, "max_sequences": prediction.max_sequences}
    for name in FIGURES:
        estimate = getattr(prediction, name)
        figures |= {name: f"{estimate.value:.6g}", f"{name}_low": f"{estimate.low:.6g}", f"{name}_high": f"{estimate.high:.6g}"}
    return figures
