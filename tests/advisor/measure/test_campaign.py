"""The advisor's side of a validation: which jobs are made, how measurements stand beside predictions, and the results file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from advisor.catalog.calibrations import load_calibration
from advisor.catalog.engines import load_engine
from advisor.errors import MachineError, ProfileError, QuestionError
from advisor.measure.campaign import _visible, need_torch
from advisor.measure.jobs import (
    Candidate,
    Settings,
    cells_for,
    job_for,
    named,
    own_batch,
    runner_problem,
    suite,
    suite_job,
    whole_batch,
)
from advisor.measure.load_test import LoadTest, checked_url, load_for, load_tool, measure
from advisor.measure.results import Results
from advisor.measure.validation import Pair, PlanResult, cell_s, engine_result, order_of, plan_result
from advisor.serving.predict import Predictor
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import Cluster
from advisor.specs.experiment import Cell, Job, Measurement, Timing
from advisor.specs.model import ModelSpec
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

ON_EIGHT = Settings(gpus=8)


@pytest.fixture
def problem(box: Callable[..., Cluster], llama_8b: ModelSpec) -> Problem:
    return Problem(
        model=replace(llama_8b, repo="meta-llama/Llama-3.1-8B"), cluster=box(), engine=load_engine("vllm"),
        workload=Workload(input_tokens=1024, output_tokens=512, mode="closed_loop", users=64),
    )  # fmt: skip


@pytest.fixture
def ours(problem: Problem) -> Problem:
    return runner_problem(problem, load_engine("runner"), device="cuda")


@pytest.fixture
def calibration(problem: Problem) -> Calibration:
    return load_calibration(problem.cluster.device, local=False)


def measured(job: Job, seconds: Callable[[Cell], float], **changes: object) -> Measurement:
    timings = tuple(
        Timing(
            cell=cell, median_s=seconds(cell), low_s=seconds(cell) * 0.99, high_s=seconds(cell) * 1.01, repeats=10,
            achieved_flop_per_s=1e14, achieved_bytes_per_s=2e12,
        )
        for cell in job.cells
    )  # fmt: skip
    base = Measurement(
        job_id=job.id, plan=job.plan, status="ok", reason="", timings=timings, kv_tokens=400_000, weights_bytes=16e9,
        device_name="H100", driver="570", software="torch", date="2026-11-21",
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


# Jobs.


@pytest.mark.parametrize(("label", "batch", "whole"), [("tp=2", 7, 7), ("pp=2", 7, 8), ("pp=4", 2, 2), ("tp=2,adp=2,ep=4", 7, 8)])
def test_a_batch_has_equal_parts(label: str, batch: int, whole: int) -> None:
    assert whole_batch(batch, Plan.parse(label)) == whole


def test_a_grid_has_the_plans_own_batch_and_its_prompt(ours: Problem) -> None:
    cells = cells_for(ours, Candidate(plan=Plan(tp=2, dp=4), sequences=16))
    decodes = [c for c in cells if c.phase == "decode" and not c.mixed_lengths]
    assert [(c.batch, c.context_tokens) for c in decodes] == [(1, 1280), (16, 1280), (4, 5120)]
    assert [(c.batch, c.context_tokens) for c in cells if c.phase == "prefill"] == [(1, 1024), (1, 4096)]


def test_a_batch_is_no_larger_than_the_cache(ours: Problem) -> None:
    candidate = Candidate(plan=Plan(tp=1), sequences=10_000)
    batch = own_batch(ours, candidate)
    assert 1 < batch <= ours.engine.max_sequences


def test_fewer_gpus_than_the_plan_measure_the_slowest_rank_alone(ours: Problem, calibration: Calibration) -> None:
    whole = job_for(ours, Candidate(plan=Plan(tp=8), sequences=8), ON_EIGHT, calibration)
    shard = job_for(ours, Candidate(plan=Plan(tp=4, pp=2), sequences=8), replace(ON_EIGHT, gpus=1), calibration)
    assert not whole.shard
    assert shard.shard
    assert shard.plan.coordinates(shard.shard_rank).stage == 1  # the head is there


def test_the_same_question_has_the_same_name_whatever_its_limits(ours: Problem, calibration: Calibration) -> None:
    job = job_for(ours, Candidate(plan=Plan(tp=2), sequences=8), ON_EIGHT, calibration)
    assert named(replace(job, time_limit_s=1.0, stall_limit_s=1.0)).id == job.id
    assert named(replace(job, repeats=99)).id != job.id
    assert named(replace(job, layers=4)).id != job.id
    assert named(replace(job, plan=Plan(tp=4))).id != job.id


def test_another_machine_or_another_version_is_measured_anew(ours: Problem, calibration: Calibration) -> None:
    """What changes a measurement is in a job's name: nothing of a results file is taken for an answer after an update."""
    machines = ("torch 2.12; driver 570; NVIDIA H100", "torch 2.13; driver 570; NVIDIA H100", "torch 2.13; driver 575; NVIDIA H100",
                "torch 2.13; driver 575; NVIDIA H200")  # fmt: skip
    one = Candidate(plan=Plan(tp=2), sequences=8)
    jobs = [job_for(ours, one, replace(ON_EIGHT, machine=machine), calibration) for machine in machines]
    assert len({job.id for job in jobs}) == len(machines)
    assert [job.machine for job in jobs] == list(machines)


def test_the_suite_is_the_table_of_the_issue(ours: Problem, calibration: Calibration) -> None:
    assert [plan.label for _, plan in suite()] == ["tp=1,pp=1,dp=1"] * 3 + ["tp=8,pp=1,dp=1"]
    job = suite_job(ours, Plan(tp=8), replace(ON_EIGHT, gpus=1), calibration)
    assert job.shard
    assert [(c.phase, c.batch, c.context_tokens) for c in job.cells] == [
        *(("decode", b, 1024) for b in (1, 16, 64, 256)), *(("prefill", 1, t) for t in (512, 4096, 16384)),
        ("decode", 64, 1024), ("mixed", 64, 1024),
    ]  # fmt: skip


def test_a_cpu_holds_its_weights_in_32_bits(problem: Problem) -> None:
    model = runner_problem(problem, load_engine("runner"), device="cpu").model
    assert (model.formats.ffn, model.kv_format) == ("fp32", "fp32")


def test_ranks_see_the_gpus_they_were_placed_on(ours: Problem, calibration: Calibration) -> None:
    from advisor.measure.ranks import Nodes

    plan = Plan(tp=2, dp=2, gpus=(4, 5, 6, 7))
    job = job_for(ours, Candidate(plan=plan, sequences=8), ON_EIGHT, calibration)
    node = ours.cluster.node
    assert _visible(job, node, Nodes(), 1) == {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}
    named_node = replace(node, ids=tuple(f"GPU-{i}" for i in range(8)))
    assert _visible(job, named_node, Nodes(), 1) == {"CUDA_VISIBLE_DEVICES": "GPU-4,GPU-5,GPU-6,GPU-7"}
    assert _visible(replace(job, device="cpu"), node, Nodes(), 3) == {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "3"}


# Beside the prediction.


def test_what_runs_as_predicted_has_no_error(ours: Problem, calibration: Calibration) -> None:
    candidate = Candidate(plan=Plan(tp=2, dp=4), sequences=16)
    job = job_for(ours, candidate, ON_EIGHT, calibration)
    model = Predictor(ours, calibration).step_model(job.plan)
    found = plan_result(ours, job, measured(job, lambda c: cell_s(model, c)), calibration, batch=16)
    assert found.tpot_s.error == pytest.approx(0.0)
    assert found.ttft_s.error == pytest.approx(0.0)
    assert found.batch == 16
    assert found.tokens_per_s.predicted == pytest.approx(64 / found.tpot_s.predicted)
    assert all(c.seconds.error == pytest.approx(0.0) for c in found.cells)


def test_a_shard_gets_the_models_collectives(ours: Problem, calibration: Calibration) -> None:
    """One rank of tp=8 as fast as its kernels alone are predicted: with the collectives it is as predicted as a whole."""
    one = replace(ON_EIGHT, gpus=1)
    job = job_for(ours, Candidate(plan=Plan(tp=8), sequences=16), one, calibration)
    model = Predictor(ours, calibration).step_model(job.plan)
    kernels = plan_result(ours, job, measured(job, lambda c: 1e-9), calibration, batch=16)
    wires = {c.cell: c.from_model_s for c in kernels.cells}
    found = plan_result(ours, job, measured(job, lambda c: cell_s(model, c) - wires[c]), calibration, batch=16)
    assert found.shard
    assert all(w > 0 for w in wires.values())
    assert found.tpot_s.error == pytest.approx(0.0, abs=1e-6)


def test_a_plan_that_stopped_keeps_what_it_had(ours: Problem, calibration: Calibration) -> None:
    job = job_for(ours, Candidate(plan=Plan(tp=2), sequences=16), ON_EIGHT, calibration)
    whole = measured(job, lambda c: 0.01)
    partial = replace(whole, status="failed", reason="rank 1 died", timings=whole.timings[:1], kv_tokens=0)
    found = plan_result(ours, job, partial, calibration, batch=16)
    assert found.failed == "rank 1 died"
    assert len(found.cells) == 1
    assert found.ttft_s.measured is None
    assert found.kv_tokens is not None
    assert found.kv_tokens.measured is None


def result(label: str, predicted: float, got: float | None) -> PlanResult:
    plan = Plan.parse(label)
    rate = Pair(predicted=1 / predicted, measured=1 / got if got else None)
    return PlanResult(
        plan=plan, batch=1, ttft_s=Pair(predicted=0.1, measured=0.1), tpot_s=Pair(predicted=predicted, measured=got),
        tokens_per_s=rate, kv_tokens=None,
    )  # fmt: skip


def test_the_order_holds_or_it_is_said_by_how_much_it_does_not() -> None:
    held = order_of([result("tp=2", 0.02, 0.03), result("tp=4", 0.01, 0.02)], "throughput", 100)
    assert held.held is True
    assert "is as predicted: tp=4,pp=1,dp=1 is the best" in held.sentence
    wrong = order_of([result("tp=2", 0.02, 0.01), result("tp=4", 0.01, 0.02)], "throughput", 100)
    assert wrong.held is False
    assert "tp=2,pp=1,dp=1 was the best, 100% ahead of tp=4,pp=1,dp=1, which was predicted; 1 of 1 pairs" in wrong.sentence
    tie = order_of([result("tp=2", 0.02, 0.0200), result("tp=4", 0.01, 0.0202)], "throughput", 100)
    assert tie.held is True
    assert order_of([result("tp=2", 0.02, None)], "throughput", 100).held is None
    # Per GPU the smaller one wins though it is slower.
    assert order_of([result("tp=2", 0.015, 0.015), result("tp=4", 0.01, 0.01)], "cost", 100).measured[0] == "tp=2,pp=1,dp=1"


# The results file.


def test_results_are_kept_whole_and_found_again(ours: Problem, calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    results = Results.open(path, fresh=False)
    job = job_for(ours, Candidate(plan=Plan(tp=2), sequences=8), ON_EIGHT, calibration)
    failed = measured(job, lambda c: 0.01, status="failed", reason="a rank died")
    results.keep(job, failed)
    assert Results.open(path, fresh=False).done(job) is None  # a failure is tried again
    results.keep(job, measured(job, lambda c: 0.01))
    again = Results.open(path, fresh=False)
    assert again.done(job) == measured(job, lambda c: 0.01)
    assert len(again.runs.runs) == 1
    assert Results.open(path, fresh=True).done(job) is None
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ["", "{", '{"version": 1}', '{"version": 7, "runs": []}', "[]"])
def test_a_damaged_results_file_is_refused_in_a_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"--fresh starts it anew\.$"):
        Results.open(path, fresh=False)


def test_without_torch_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MachineError, match=r"needs torch, which is not installed: pip install 'parallelism-advisor\[validate\]'\.$"
    ):
        need_torch()


# Real engines, by stand-ins of their programs.

VLLM_RESULT = {
    "completed": 128, "failed": 0, "total_input_tokens": 131072, "total_output_tokens": 65536, "max_concurrency": 64,
    "request_rate": "inf", "mean_ttft_ms": 120.0, "mean_tpot_ms": 11.0, "mean_e2el_ms": 5700.0, "output_throughput": 5500.0,
    "request_throughput": 10.7,
}  # fmt: skip


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins, first in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def load_test(problem: Problem, calibration: Calibration, **changes: object) -> LoadTest:
    prediction = Predictor(problem, calibration).predict(Plan(tp=2))
    base = LoadTest(problem=problem, prediction=prediction, tool="vllm", endpoint="http://127.0.0.1:8000", time_limit_s=20)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_running_server_is_loaded_and_its_result_read(
    problem: Problem, calibration: Calibration, tools: Path, tmp_path: Path
) -> None:
    result_file = tmp_path / "r.json"
    result_file.write_text(json.dumps(VLLM_RESULT))
    program(tools, "vllm", f"""
        echo "$@" > {tmp_path}/said
        while [[ $# -gt 0 ]]; do case $1 in --result-dir) dir=$2 ;; --result-filename) name=$2 ;; esac; shift; done
        cp {result_file} "$dir/$name" """)  # fmt: skip
    test = load_test(problem, calibration)
    found = measure(test, lambda line: None)
    assert found.tpot_s == pytest.approx(0.011)
    said = (tmp_path / "said").read_text()
    assert "bench serve" in said
    assert "--base-url http://127.0.0.1:8000" in said
    beside = engine_result(test.prediction, found)
    assert beside.tpot_s.measured == pytest.approx(0.011)
    assert beside.rate == "output"


def test_a_load_generator_that_fails_is_quoted(problem: Problem, calibration: Calibration, tools: Path) -> None:
    program(tools, "vllm", "echo 'connection refused by the server' >&2; exit 7")
    with pytest.raises(MachineError, match=r"the load test failed: .*connection refused by the server"):
        measure(load_test(problem, calibration), lambda line: None)


def test_without_a_load_generator_one_sentence(tools: Path) -> None:
    with pytest.raises(MachineError, match=r"^measuring a real engine needs aiperf or vllm, which is not installed here: pip"):
        load_tool("")
    program(tools, "vllm", "true")
    assert load_tool("") == "vllm"
    with pytest.raises(QuestionError, match="unknown load tool 'ab'"):
        load_tool("ab")


@pytest.mark.parametrize("text", ["http://h:80; rm -rf /", "file:///etc/passwd", "127.0.0.1:8000", "http://$(id)", ""])
def test_an_endpoint_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(QuestionError, match="is not an address of a server"):
        checked_url(text)


def test_an_endpoint_may_name_its_path() -> None:
    assert checked_url("http://127.0.0.1:8000/v1/") == "http://127.0.0.1:8000"
    assert checked_url("https://[::1]:8000") == "https://[::1]:8000"


def test_as_many_as_fit_becomes_a_load_that_can_be_made() -> None:
    open_ended = Workload(input_tokens=100, output_tokens=100)
    assert load_for(open_ended, 41.6) == replace(open_ended, mode="closed_loop", users=42, start="burst", requests=420)
    assert load_for(open_ended, 0.2).users == 1
    arrivals = Workload(input_tokens=100, output_tokens=100, mode="open_loop", rate_per_s=3)
    assert (load_for(arrivals, 10).start, load_for(arrivals, 10).rate_per_s) == ("burst", 3)
    batch = Workload(input_tokens=100, output_tokens=100, mode="static_batch", users=8)
    assert load_for(batch, 8) is batch


def test_a_torch_that_does_not_start_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from advisor.measure import campaign as validate

    broken = tmp_path / "python"
    broken.write_text("#!/bin/bash\necho 'ImportError: libcudart.so.12: cannot open shared object file' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(validate.sys, "executable", str(broken))
    monkeypatch.setattr(validate, "need_torch", lambda: None)
    with pytest.raises(MachineError, match=r"torch does not start here: ImportError: libcudart\.so\.12.*install it again"):
        validate.ask_torch()
