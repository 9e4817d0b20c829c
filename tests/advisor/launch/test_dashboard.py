"""The dashboard: the engine's own metrics, with the predictions as lines."""

from __future__ import annotations

import json

import pytest
from launch_questions import prediction, problem

from advisor.errors import QuestionError
from advisor.launch import render
from advisor.launch.script import Options
from advisor.specs.plan import Plan


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_panels_have_the_predictions_beside_the_engines_metrics(engine: str) -> None:
    files = render(problem(engine), prediction(Plan(tp=4)), target="bash", options=Options(dashboard=True))
    assert [file.name for file in files] == ["start.sh", "bench.sh", "grafana.json"]
    found = {panel["title"]: panel for panel in json.loads(files[2].text)["panels"]}
    tpot = found["Time per output token"]
    assert all(f"{engine}:" in target["expr"] for panel in found.values() for target in panel["targets"])
    assert tpot["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] == pytest.approx(0.0214)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in found.values()}) == len(found) == 6


def test_no_dashboard_where_the_metrics_are_not_known() -> None:
    with pytest.raises(QuestionError, match="leave it out for trtllm"):
        render(problem("trtllm"), prediction(Plan()), target="bash", options=Options(dashboard=True))
