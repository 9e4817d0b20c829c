from __future__ import annotations

import pytest
from launch_questions import model, prediction, problem

from advisor.calibrate.points import point_of_row
from advisor.errors import QuestionError
from advisor.measure.load_result import COLUMNS, beside, point_row, result_of
from advisor.specs.plan import Plan

VLLM = {
    "completed": 640, "failed": 2, "total_input_tokens": 640 * 1024, "total_output_tokens": 640 * 512, "max_concurrency": 64,
    "request_rate": "inf", "mean_ttft_ms": 300.0, "mean_tpot_ms": 22.0, "mean_e2el_ms": 11500.0, "output_throughput": 2800.0,
    "request_throughput": 5.5,
}  # fmt: skip
AIPERF = {
    "request_count": {"unit": "requests", "avg": 640.0}, "input_sequence_length": {"unit": "tokens", "avg": 1024.0},
    "output_sequence_length": {"unit": "tokens", "avg": 512.0}, "time_to_first_token": {"unit": "ms", "avg": 300.0},
    "inter_token_latency": {"unit": "ms", "avg": 22.0}, "request_latency": {"unit": "ms", "avg": 11500.0},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 2800.0}, "request_throughput": {"unit": "requests/sec", "avg": 5.5},
    "input_config": {"loadgen": {"concurrency": 64}},
}  # fmt: skip


@pytest.mark.parametrize("data", [VLLM, AIPERF])
def test_both_tools_give_the_same_figures_in_si(data):
    result = result_of(data)
    assert (result.ttft_s, result.tpot_s, result.latency_s) == pytest.approx((0.3, 0.022, 11.5))
    assert (result.output_tokens_per_s, result.requests_per_s, result.users, result.requests) == (2800.0, 5.5, 64, 640)
    assert (result.input_tokens, result.output_tokens, result.rate_per_s) == (1024.0, 512.0, 0.0)


def test_figures_stand_side_by_side():
    lines = {line.name: line for line in beside(result_of(VLLM), prediction(Plan(tp=4)))}
    assert lines["time to first token"].ratio == pytest.approx(0.3 / 0.31)
    assert lines["time to first token"].inside
    assert lines["output"].ratio == pytest.approx(2800 / 2900)


def test_a_point_is_read_back_by_the_calibration():
    row = point_row(result_of(VLLM), problem(), Plan(tp=4, dp=2), name="mine", date="2026-11-21")
    assert tuple(row) == COLUMNS
    point = point_of_row(row)
    assert (point.plan, point.hardware, point.engine_version) == (Plan(tp=4, dp=2), "h100-80g-sxm", "0.33.0")
    assert (point.workload.mode, point.workload.users, point.workload.input_tokens) == ("closed_loop", 64, 1024)
    moe = point_row(result_of(VLLM), problem(spec=model(moe=True)), Plan(adp=8, ep=8), name="mine", date="2026-11-21")
    assert point_of_row(moe).plan == Plan(adp=8, ep=8)


def test_what_cannot_be_said_is_refused():
    with pytest.raises(QuestionError, match="cannot be written as a point"):
        point_row(result_of(VLLM), problem(), Plan(adp=4), name="mine", date="2026-11-21")


@pytest.mark.parametrize("data", [{}, [], 3, None, {"mean_ttft_ms": 1, "completed": 0}, {"time_to_first_token": {"avg": 1}}])
def test_what_is_no_result_is_refused(data):
    with pytest.raises(QuestionError):
        result_of(data)
