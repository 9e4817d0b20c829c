"""A load generator's result beside the prediction, and as a row of measured points that `advisor calibrate --from` reads.

Results: the flat JSON of `vllm bench serve --save-result` (times in ms) and aiperf's `profile_export_aiperf.json` (metrics with
their units). Means on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from advisor.errors import QuestionError, one_line
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, Prediction
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

COLUMNS = (
    "id", "source", "url", "date", "hardware", "interconnect", "nodes", "gpus", "engine", "engine_version", "model",
    "weight_dtype", "kv_dtype", "tp", "pp", "dp", "ep", "input_tokens", "output_tokens", "mode", "load", "request_rate_per_s",
    "ttft_s", "tpot_s", "itl_s", "latency_s", "decode_tokens_per_s", "output_tokens_per_s", "total_tokens_per_s",
    "requests_per_s", "anomaly", "notes",
)  # fmt: skip
LEAST, MOST = 1e-6, 1e15  # of any figure in a result, in its own unit
_SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What was measured. `users` 0: not limited; `rate_per_s` 0: no pace was set. Figures are None where the file lacks them."""

    tool: str
    requests: int
    failed: int
    input_tokens: float
    output_tokens: float
    users: int
    rate_per_s: float
    ttft_s: float | None
    tpot_s: float | None
    latency_s: float | None
    output_tokens_per_s: float | None
    requests_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One figure on both sides. `ratio` is measured over predicted; `inside` whether it lies in the 90% interval."""

    name: str
    unit: str
    predicted: Estimate
    measured: float
    ratio: float
    inside: bool


def result_of(data: Any) -> LoadResult:
    """The result in a load generator's JSON. Raises QuestionError where it is none."""
    if isinstance(data, Mapping) and "mean_ttft_ms" in data and "completed" in data:
        return _of_vllm(data)
    if isinstance(data, Mapping) and isinstance(data.get("time_to_first_token"), Mapping):
        return _of_aiperf(data)
    raise QuestionError("the file is not a result of `vllm bench serve --save-result` or `aiperf profile`; give its JSON file.")


def _number(data: Mapping[str, Any], key: str, scale: float = 1.0) -> float | None:
    """A positive figure; None where there is none. Raises QuestionError for one that no benchmark can give."""
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or value == math.inf:
        return None
    if not LEAST <= value <= MOST:
        raise QuestionError(
            f"the result says that {key} is {one_line(str(value), most=40)}, which no benchmark measures; give an unchanged file."
        )
    return value * scale


def _of_vllm(data: Mapping[str, Any]) -> LoadResult:
    completed = _number(data, "completed")
    if completed is None or completed < 1:
        raise QuestionError("the result has no completed request, so there is nothing to compare.")
    inputs, outputs = _number(data, "total_input_tokens"), _number(data, "total_output_tokens")
    if inputs is None or outputs is None:
        raise QuestionError("the result does not say how many tokens went in and came out.")
    return LoadResult(
        tool="vllm bench serve", requests=round(completed), failed=round(_number(data, "failed") or 0),
        input_tokens=inputs / completed, output_tokens=outputs / completed, users=round(_number(data, "max_concurrency") or 0),
        rate_per_s=_number(data, "request_rate") or 0.0, ttft_s=_number(data, "mean_ttft_ms", 1e-3),
        tpot_s=_number(data, "mean_tpot_ms", 1e-3), latency_s=_number(data, "mean_e2el_ms", 1e-3),
        output_tokens_per_s=_number(data, "output_throughput"), requests_per_s=_number(data, "request_throughput"),
    )  # fmt: skip


def _of_aiperf(data: Mapping[str, Any]) -> LoadResult:
    requests = _metric(data, "request_count")
    inputs, outputs = _metric(data, "input_sequence_length"), _metric(data, "output_sequence_length")
    if requests is None or requests < 1 or inputs is None or outputs is None:
        raise QuestionError("the aiperf result lacks its request count or sequence lengths; give profile_export_aiperf.json.")
    settings = dict(_leaves(data.get("input_config", {})))
    return LoadResult(
        tool="aiperf", requests=round(requests), failed=round(_metric(data, "error_request_count") or 0), input_tokens=inputs,
        output_tokens=outputs, users=round(_number(settings, "concurrency") or 0),
        rate_per_s=_number(settings, "request_rate") or 0.0, ttft_s=_metric(data, "time_to_first_token"),
        tpot_s=_metric(data, "inter_token_latency"), latency_s=_metric(data, "request_latency"),
        output_tokens_per_s=_metric(data, "output_token_throughput"), requests_per_s=_metric(data, "request_throughput"),
    )  # fmt: skip


def _metric(data: Mapping[str, Any], name: str) -> float | None:
    """The mean of an aiperf metric, in SI."""
    metric = data.get(name)
    if not isinstance(metric, Mapping):
        return None
    return _number(metric, "avg", _SECONDS.get(str(metric.get("unit", "")), 1.0))


def _leaves(data: Any) -> Iterator[tuple[str, Any]]:
    """Every named value of nested settings; aiperf has moved them between groups from version to version."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(value, Mapping):
                yield from _leaves(value)
            else:
                yield str(key), value


def load_run(result: LoadResult, asked: Workload) -> Workload:
    """The load that made a result: so many requests from a cold start, with the lengths that were asked about."""
    if result.rate_per_s:
        return replace(asked, mode="open_loop", users=0, rate_per_s=result.rate_per_s, start="burst", requests=result.requests)
    if result.users:
        return replace(asked, mode="closed_loop", users=result.users, start="burst", requests=max(result.users, result.requests))
    return replace(asked, mode="static_batch", users=result.requests)


def beside(result: LoadResult, prediction: Prediction) -> tuple[Comparison, ...]:
    """Every figure that both sides have."""
    pairs = (
        ("time to first token", "s", prediction.ttft_s, result.ttft_s),
        ("time per output token", "s", prediction.tpot_s, result.tpot_s),
        ("request latency", "s", prediction.latency_s, result.latency_s),
        ("output", "tokens/s", prediction.output_tokens_per_s, result.output_tokens_per_s),
        ("requests", "requests/s", prediction.requests_per_s, result.requests_per_s),
    )
    return tuple(
        Comparison(
            name=name, unit=unit, predicted=estimate, measured=measured, ratio=measured / estimate.value,
            inside=estimate.low <= measured <= estimate.high,
        )
        for name, unit, estimate, measured in pairs
        if measured is not None and estimate.value > 0
    )  # fmt: skip


def point_row(result: LoadResult, problem: Problem, plan: Plan, *, name: str, date: str) -> dict[str, str]:
    """The measured point with the columns that the accuracy and calibration runs read.

    Raises QuestionError for a plan that those columns cannot say: attention-DP without experts spread, or several replicas of it.
    """
    if plan.adp > 1 and (plan.ep == 1 or plan.dp > 1):
        raise QuestionError(
            f"{plan.label} cannot be written as a point: its columns know attention-DP only with ep and one replica."
        )
    load = problem.workload
    mode = (
        "open_loop" if result.rate_per_s else "single_stream" if result.users == 1 else "closed_loop" if result.users else "offline"
    )
    model = problem.model
    row: dict[str, object] = {
        "id": name, "source": "own run", "date": date, "hardware": problem.cluster.device.name,
        "interconnect": problem.cluster.node.default_link.kind, "nodes": problem.cluster.nodes, "gpus": plan.world,
        "engine": problem.engine.name, "engine_version": problem.engine.flags_version or problem.engine.version,
        "model": model.repo or model.name, "weight_dtype": model.weight_format,
        "kv_dtype": model.kv_format, "tp": plan.tp, "pp": plan.pp, "dp": plan.adp if plan.adp > 1 else plan.dp, "ep": plan.ep,
        "input_tokens": round(result.input_tokens), "output_tokens": round(result.output_tokens), "mode": mode,
        "load": result.users or "", "request_rate_per_s": result.rate_per_s or "", "ttft_s": result.ttft_s,
        "tpot_s": result.tpot_s, "latency_s": result.latency_s, "output_tokens_per_s": result.output_tokens_per_s,
        "requests_per_s": result.requests_per_s,
        "notes": f"{result.tool}, {result.requests} requests, preset {load.preset or 'none'}",
    }  # fmt: skip
    return {column: "" if row.get(column) is None else str(row[column]) for column in COLUMNS}
