"""A Grafana dashboard of the server: what the engine counts beside what was predicted for it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from advisor.errors import QuestionError
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile

NAME = "grafana.json"
WIDTH, HEIGHT, COLUMNS = 12, 8, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One graph: its queries by legend, the unit as Grafana calls it, and the predicted value where there is one."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str
    predicted: float | None = None


def render(request: Request) -> ScriptFile:
    """The dashboard as Grafana imports it. Raises QuestionError for an engine whose metrics are not known."""
    if not request.engine.REQUESTS_METRICS:
        raise QuestionError("--dashboard reads vllm's or sglang's metrics; leave it out for trtllm.")
    found = {
        "title": f"{request.name}: {request.plan.label}",
        "uid": request.name[:40],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": [_panel(place, panel) for place, panel in enumerate(panels(request))],
    }
    return ScriptFile(name=NAME, text=json.dumps(found, indent=2) + "\n")


def panels(request: Request) -> list[Panel]:
    """The panels: requests, queue, cache, then latencies and tokens beside their predictions."""
    names, found = request.engine.METRIC_NAMES, request.prediction
    running, waiting = request.engine.REQUESTS_METRICS

    def mean(name: str) -> str:
        return f"sum(rate({name}_sum[1m])) / sum(rate({name}_count[1m]))"

    def high(name: str) -> str:
        return f"histogram_quantile(0.9, sum by (le) (rate({name}_bucket[1m])))"

    first, each = names["ttft"], names["tpot"]
    return [
        Panel(title="Requests in flight", queries=(("running", f"sum({running})"),), unit="short", predicted=found.sequences),
        Panel(title="Requests that wait", queries=(("waiting", f"sum({waiting})"),), unit="short"),
        Panel(
            title="Time to first token", queries=(("mean", mean(first)), ("90 of 100 below", high(first))), unit="s",
            predicted=found.ttft_s.value,
        ),
        Panel(
            title="Time per output token", queries=(("mean", mean(each)), ("90 of 100 below", high(each))), unit="s",
            predicted=found.tpot_s.value,
        ),
        Panel(
            title="Output tokens per second", queries=(("tokens/s", f"sum(rate({names['tokens']}[1m]))"),), unit="short",
            predicted=found.output_tokens_per_s.value,
        ),
        Panel(title="KV cache in use", queries=(("fullest server", f"max({names['cache']})"),), unit="percentunit", predicted=1.0),
    ]  # fmt: skip


def _panel(place: int, panel: Panel) -> dict[str, object]:
    """The panel as Grafana stores it; the prediction is a dashed line."""
    targets = [
        {"expr": query, "legendFormat": legend, "refId": chr(ord("A") + n)} for n, (legend, query) in enumerate(panel.queries)
    ]
    steps: list[dict[str, object]] = [{"color": "green", "value": None}]
    if panel.predicted is not None:
        steps.append({"color": "orange", "value": panel.predicted})
    at = {"x": WIDTH * (place % COLUMNS), "y": HEIGHT * (place // COLUMNS), "w": WIDTH, "h": HEIGHT}
    return {
        "id": place + 1, "type": "timeseries", "title": panel.title, "gridPos": at, "targets": targets,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "description": "" if panel.predicted is None else f"Predicted: {panel.predicted:.3g}, the dashed line.",
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "dashed"}},
            },
            "overrides": [],
        },
    }  # fmt: skip
