"""Two and more that write one file at a time: nothing is lost."""

from __future__ import annotations

import csv
import subprocess
from dataclasses import replace
from pathlib import Path

from faults.advisor_process import COMMAND, QUESTION, environment
from faults.test_disk import vllm_result
from tiny_models import CONFIGS

from advisor.catalog.huggingface import model_from_config
from advisor.measure.results import Results
from advisor.specs.experiment import Job, Measurement
from advisor.specs.plan import Plan


def test_six_comparisons_at_once_add_six_rows(tmp_path: Path) -> None:
    result, out = vllm_result(tmp_path / "run.json"), tmp_path / "points.csv"
    command = [*COMMAND, "compare", str(result), *QUESTION, "--plan", "tp=8", "--out", str(out)]
    running = [subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.DEVNULL) for _ in range(6)]
    assert [process.wait(timeout=120) for process in running] == [0] * 6
    with out.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["points.csv", "run.json"]


def job(number: int) -> Job:
    model = model_from_config(CONFIGS["llama"], None, name="tiny", source="test")
    return Job(id=f"job{number}", model=model, plan=Plan(), cells=())


def measurement(number: int) -> Measurement:
    return Measurement(
        job_id=f"job{number}", plan=Plan(), status="ok", reason="", timings=(), kv_tokens=1, weights_bytes=1.0, device_name="cpu",
        driver="", software="", date="2026-01-01",
    )  # fmt: skip


def test_two_validations_of_one_results_file_keep_the_runs_of_both(tmp_path: Path) -> None:
    """Both read the file while it is empty; each then keeps a run of its own."""
    path = tmp_path / "results.json"
    first, second = Results.open(path, fresh=False), Results.open(path, fresh=False)
    first.keep(job(1), measurement(1))
    second.keep(job(2), measurement(2))
    first.keep(job(3), measurement(3))
    assert {run.job.id for run in Results.open(path, fresh=False).runs.runs} == {"job1", "job2", "job3"}


def test_fresh_takes_nothing_for_done_and_begins_a_damaged_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    Results.open(path, fresh=False).keep(job(1), measurement(1))
    again = Results.open(path, fresh=True)
    assert again.done(job(1)) is None
    again.keep(job(1), replace(measurement(1), date="2026-02-02"))
    found = Results.open(path, fresh=False).done(job(1))
    assert found is not None
    assert found.date == "2026-02-02"
    path.write_text(path.read_text()[:100])
    Results.open(path, fresh=True).keep(job(2), measurement(2))
    assert {run.job.id for run in Results.open(path, fresh=False).runs.runs} == {"job2"}
