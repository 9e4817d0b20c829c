"""What a measurement is compared with, and what may not be called measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from advisor.catalog.calibrations import load_calibration
from advisor.catalog.engines import load_engine
from advisor.measure.jobs import Candidate, Settings, cells_for, job_for, named, runner_problem
from advisor.measure.validation import CellResult, Pair, PlanResult, cell_s, order_of, plan_result, share_of_bound
from advisor.serving.predict import Predictor
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import Cluster
from advisor.specs.experiment import Cell, Job, Measurement, Timing
from advisor.specs.model import ModelSpec
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

DECODE = Cell(phase="decode", batch=16, context_tokens=1280)
SETTINGS = Settings(gpus=8)


@pytest.fixture
def ours(box: Callable[..., Cluster], llama_8b: ModelSpec) -> Problem:
    problem = Problem(
        model=llama_8b, cluster=box(), engine=load_engine("vllm"),
        workload=Workload(input_tokens=1024, output_tokens=512, mode="closed_loop", users=64),
    )  # fmt: skip
    return runner_problem(problem, load_engine("runner"), device="cuda")


@pytest.fixture
def calibration(ours: Problem) -> Calibration:
    return load_calibration(ours.cluster.device, local=False)


def measured(job: Job, seconds: float) -> Measurement:
    timings = tuple(
        Timing(
            cell=cell,
            median_s=seconds,
            low_s=seconds,
            high_s=seconds,
            repeats=5,
            achieved_flop_per_s=1e12,
            achieved_bytes_per_s=1e12,
        )
        for cell in job.cells
    )
    return Measurement(
        job_id=job.id, plan=job.plan, status="ok", reason="", timings=timings, kv_tokens=1, weights_bytes=1.0, device_name="g",
        driver="1", software="torch", date="2026-11-01T10:00:00+00:00",
    )  # fmt: skip


def result(label: str, predicted: float, got: float, *, shard: bool = False) -> PlanResult:
    rate = Pair(predicted=1 / predicted, measured=1 / got)
    return PlanResult(
        plan=Plan.parse(label), batch=1, ttft_s=Pair(predicted=0.1, measured=0.1), tpot_s=Pair(predicted=predicted, measured=got),
        tokens_per_s=rate, kv_tokens=None, shard=shard,
    )  # fmt: skip


def test_plans_whose_messages_are_the_models_have_no_measured_order() -> None:
    one_is = order_of([result("tp=2", 0.02, 0.03), result("tp=8", 0.01, 0.02, shard=True)], "throughput", 100)
    assert one_is.held is None
    assert one_is.measured == ("tp=2,pp=1,dp=1",)
    assert "Left out, because their messages between GPUs are the model's: tp=8,pp=1,dp=1." in one_is.sentence
    third = order_of(
        [result("tp=2", 0.02, 0.03), result("tp=8", 0.01, 0.02, shard=True), result("tp=4", 0.01, 0.02)], "throughput", 100
    )
    assert third.held is True
    assert "tp=8" not in third.measured


def test_a_run_on_another_machine_or_another_torch_has_another_name(ours: Problem, calibration: Calibration) -> None:
    candidate = Candidate(plan=Plan(tp=2), sequences=8)
    here = job_for(ours, candidate, replace(SETTINGS, machine="H200; driver 580; torch 2.11; runner a"), calibration)
    assert named(here).id == here.id
    for other in ("H100; driver 580; torch 2.11; runner a", "H200; driver 570; torch 2.11; runner a",
                  "H200; driver 580; torch 2.13; runner a", "H200; driver 580; torch 2.11; runner b"):  # fmt: skip
        assert job_for(ours, candidate, replace(SETTINGS, machine=other), calibration).id != here.id


def test_an_earlier_measurement_beside_a_prediction_of_now_says_so(ours: Problem, calibration: Calibration) -> None:
    job = job_for(ours, Candidate(plan=Plan(tp=2), sequences=16), SETTINGS, calibration)
    assert plan_result(ours, job, measured(job, 0.01), calibration, batch=16).notes == ()
    old = plan_result(ours, job, measured(job, 0.01), calibration, batch=16, resumed=True)
    assert old.notes == ("measured earlier (2026-11-01T10:00:00+00:00) and not again: the prediction is from rates of now",)


def test_figures_of_a_plan_are_of_plain_cells(ours: Problem, calibration: Calibration) -> None:
    """TTFT is a prompt in one piece and TPOT a step without a prompt, whatever else was measured."""
    job = job_for(ours, Candidate(plan=Plan(pp=2), sequences=16), SETTINGS, calibration)
    assert any(cell.chunk_tokens for cell in job.cells)
    assert any(cell.mixed_lengths for cell in job.cells)
    seconds = {cell: 1.0 if cell.chunk_tokens or cell.mixed_lengths else 0.01 for cell in job.cells}
    timings = tuple(replace(t, median_s=seconds[t.cell]) for t in measured(job, 1.0).timings)
    found = plan_result(ours, job, replace(measured(job, 1.0), timings=timings), calibration, batch=16)
    assert (found.ttft_s.measured, found.tpot_s.measured) == (0.01, 0.01)


def test_a_prompt_in_pieces_fills_the_stages(ours: Problem, calibration: Calibration) -> None:
    """Two stages, a prompt of 4,096: in one piece it visits both in turn, in four pieces (4 + 2 - 1) / 8 of that and the losses of
    smaller products; with one stage pieces only add losses.
    """
    whole = Cell(phase="prefill", batch=1, context_tokens=4096)
    pieces = replace(whole, chunk_tokens=1024)
    model = Predictor(ours, calibration).step_model(Plan(pp=2))
    ratio = cell_s(model, pieces) / cell_s(model, whole)
    assert 5 / 8 <= ratio < 0.85
    alone = Predictor(ours, calibration).step_model(Plan())
    assert cell_s(alone, pieces) > cell_s(alone, whole)


def test_a_piece_of_a_prompt_makes_a_step_longer(ours: Problem, calibration: Calibration) -> None:
    model = Predictor(ours, calibration).step_model(Plan())
    mixed = Cell(phase="mixed", batch=16, context_tokens=1280, chunk_tokens=512)
    prompt = cell_s(model, Cell(phase="prefill", batch=1, context_tokens=512))
    assert cell_s(model, DECODE) < cell_s(model, mixed) < cell_s(model, DECODE) + prompt
    assert cell_s(model, replace(DECODE, mixed_lengths=True)) == cell_s(model, DECODE)


def test_cells_are_what_engines_run(ours: Problem) -> None:
    one = cells_for(ours, Candidate(plan=Plan(tp=2), sequences=16))
    assert one[-2:] == (replace(DECODE, mixed_lengths=True), Cell(phase="mixed", batch=16, context_tokens=1280, chunk_tokens=512))
    two = cells_for(ours, Candidate(plan=Plan(pp=2), sequences=16))
    assert two[-1] == Cell(phase="prefill", batch=1, context_tokens=1024, chunk_tokens=256)


def test_the_share_of_the_bound_is_of_the_nearer_one() -> None:
    cell = CellResult(
        cell=DECODE, seconds=Pair(predicted=1, measured=1), low_s=1, high_s=1, achieved_flop_per_s=300e12, achieved_bytes_per_s=2e12
    )
    assert share_of_bound(cell, 4e12, 600e12) == 0.5
    assert share_of_bound(replace(cell, achieved_bytes_per_s=3.2e12), 4e12, 600e12) == 0.8
    assert share_of_bound(cell, 4e12, 0.0) == 0.5
