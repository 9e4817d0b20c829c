"""Rows of a points file: what they ask, and one sentence for a bad cell."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.calibrate.points import INFERENCEX, Point, figures_of_row, point_of_row
from advisor.errors import QuestionError
from advisor.specs.plan import Plan

ROW = {
    "id": "a", "source": "s", "hardware": "h100-80g-sxm", "engine": "vllm", "engine_version": "0.19.0", "model": "m", "gpus": "8",
    "tp": "4", "pp": "1", "dp": "2", "input_tokens": "1024", "output_tokens": "512", "mode": "closed_loop", "load": "64",
    "ttft_s": "0.2", "tpot_s": "", "itl_s": "0.01",
}  # fmt: skip


def test_a_row_is_a_question() -> None:
    point = point_of_row(ROW)
    assert point.plan == Plan(tp=4, dp=2)
    assert (point.workload.users, point.workload.mode) == (64, "closed_loop")
    assert point.gpus == 8


def test_what_was_measured_does_not_reach_the_question() -> None:
    assert point_of_row(ROW) == point_of_row({**ROW, "ttft_s": "99", "tpot_s": "7", "itl_s": ""})
    assert figures_of_row(ROW) == {"ttft_s": 0.2, "tpot_s": 0.01}


def test_dp_with_ep_is_attention_data_parallel() -> None:
    assert point_of_row({**ROW, "tp": "1", "dp": "8", "ep": "8"}).plan == Plan(adp=8, ep=8)
    assert point_of_row({**ROW, "tp": "2", "dp": "2", "ep": "4"}).plan == Plan(tp=2, adp=2, ep=4)
    assert point_of_row({**ROW, "tp": "8", "dp": "1", "ep": "8"}).plan == Plan(tp=8, ep=8)


def test_fp8_weights_bring_an_fp8_cache_where_engines_do_so() -> None:
    trtllm = {**ROW, "engine": "trtllm", "weight_dtype": "fp8"}
    assert point_of_row(trtllm).kv_dtype == "fp8"
    assert point_of_row({**trtllm, "kv_dtype": "bf16"}).kv_dtype == "bf16"
    assert point_of_row({**trtllm, "weight_dtype": "bf16"}).kv_dtype == ""
    assert point_of_row({**ROW, "weight_dtype": "fp8"}).kv_dtype == ""


def test_recipes_of_inferencex_keep_16_bit_on_hopper() -> None:
    recipe = {**ROW, "source": INFERENCEX, "weight_dtype": "fp8", "input_tokens": "1024", "output_tokens": "1024"}
    assert point_of_row(recipe).kv_dtype == ""
    assert point_of_row({**recipe, "hardware": "b200-180g-sxm"}).kv_dtype == "fp8"
    assert point_of_row({**recipe, "output_tokens": "200"}).kv_dtype == "fp8"


@pytest.mark.parametrize(
    ("given", "date", "found"),
    [
        ("0.19.0", "2026-03-01", "0.19.0"),
        ("nightly-5b8c30d62b754b57", "", "nightly-5b8c30d62b754b57"),
        ("TensorRT 10.11, CUDA 12.9", "2025-07-01", "2025"),
        ("NIM 1.8.0", "2025-03-02", "2025"),
        ("", "2024-10-01", "2024"),
        ("NIM 1.8.0", "", ""),
    ],
)
def test_versions_of_containers_take_the_line_of_their_date(given: str, date: str, found: str) -> None:
    assert point_of_row({**ROW, "engine_version": given, "date": date}).engine_version == found


def test_a_row_says_what_it_leaves_open() -> None:
    assert point_of_row(ROW).assumed == ""
    open_row = {**ROW, "mode": "single_stream", "load": "", "input_tokens": ""}
    assert point_of_row(open_row).assumed == "a prompt of 16 tokens"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": ""}, "column model is empty"),
        ({"mode": "sprint"}, "mode is 'sprint'"),
        ({"load": ""}, "column load is empty"),
        ({"load": "2.5"}, "whole number"),
        ({"input_tokens": "-3"}, "column input_tokens is '-3'"),
        ({"input_tokens": "nan"}, "column input_tokens is 'nan'"),
        ({"tp": "0"}, "column tp is '0'"),
        ({"tp": "4", "ep": "3"}, "do not make a plan"),
        ({"mode": "open_loop"}, "request_rate_per_s is empty"),
    ],
)
def test_a_bad_cell_is_named(change: dict[str, str], says: str) -> None:
    with pytest.raises(QuestionError, match=says):
        point_of_row({**ROW, **change})


@given(st.dictionaries(st.sampled_from(sorted(ROW)), st.text(max_size=12) | st.integers().map(str) | st.floats().map(str)))
def test_any_row_is_a_point_or_a_sentence(change: dict[str, str]) -> None:
    with contextlib.suppress(QuestionError):
        assert isinstance(point_of_row({**ROW, **change}), Point)
