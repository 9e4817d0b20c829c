"""The batch file under a real Slurm of two nodes: as many processes as the plan has, an answer, and nothing left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_questions import cluster, model
from launch_stand_ins import Box, answers, put
from slurm_cluster import Slurm, missing

from advisor.specs.plan import Plan

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
TWO = {"machine": cluster(nodes=2)}
# Plan, engine, and the processes it has to have on each of its nodes.
CASES = {
    "trtllm-tp-dp": ("trtllm", Plan(tp=4, dp=2), {}, 8),
    "trtllm-two-nodes": ("trtllm", Plan(tp=8, pp=2), TWO, 16),
    "vllm-two-nodes": ("vllm", Plan(tp=8, pp=2), TWO, 2),
    "vllm-dp-over-nodes": ("vllm", Plan(tp=4, ep=4, dp=4), TWO | {"spec": model(moe=True)}, 4),
    "sglang-two-nodes": ("sglang", Plan(tp=8, pp=2), TWO, 2),
    "vllm-attention-dp": ("vllm", Plan(adp=16, ep=16), TWO | {"spec": model(moe=True)}, 2),
}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    started = Slurm.start(tmp_path_factory.mktemp("slurm"))
    yield started
    started.stop()


def until_ready(slurm: Slurm, job: str, log: Path) -> str:
    for _ in range(600):
        said = log.read_text() if log.exists() else ""
        if "ready: " in said:
            return said
        if not slurm.state(job):
            raise AssertionError(f"the job has ended: {said}")
        time.sleep(0.1)
    raise AssertionError(f"never ready: {said}")


def records(box: Box) -> list[dict]:
    return [json.loads(path.read_text()) for path in box.record.glob("*.json")]


@pytest.mark.parametrize("case", CASES)
def test_a_job_has_the_processes_of_the_plan_and_leaves_none(case: str, box, slurm: Slurm) -> None:
    engine, plan, question, processes = CASES[case]
    here = box(engine, plan, target="slurm", **question)
    script, log = here.folder / "job.sbatch", here.folder / "log"
    if case == "trtllm-two-nodes":  # both nodes are this machine, and Slurm's PMIx servers of a step share a folder of /tmp
        put(script, script.read_text().replace("--mpi=pmix", "--mpi=none"))
    environment = here.environment | {"RUN_DIR": str(here.folder / "run"), "STOP_SECONDS": "3"}
    job = slurm.run("sbatch", "--parsable", f"--output={log}", f"--chdir={here.folder}", str(script), **environment).strip()
    said = until_ready(slurm, job, log)
    time.sleep(0.5)
    ranks = [path.read_text().splitlines()[0] for path in here.record.glob("rank-*")]
    started = records(here)
    if engine == "trtllm":
        assert len(ranks) == processes
        assert len(started) == plan.dp
    else:
        assert len(started) == processes
    assert {record["env"]["CUDA_DEVICE_ORDER"] for record in started} == {"PCI_BUS_ID"}
    assert "has ended" not in said
    assert "warning: without API_KEY" in said  # the network reaches the job's node
    assert answers(here)
    slurm.run("scancel", job)
    for _ in range(300):
        if not slurm.state(job):
            break
        time.sleep(0.1)
    assert not slurm.state(job)
    assert here.nothing_left()


def test_two_servers_never_share_a_port_or_gpus(box, slurm: Slurm) -> None:
    engine, plan, question, processes = CASES["vllm-dp-over-nodes"]
    here = box(engine, plan, target="slurm", **question)
    log = here.folder / "log"
    environment = here.environment | {"RUN_DIR": str(here.folder / "run"), "API_KEY": "k1"}
    job = slurm.run("sbatch", "--parsable", f"--output={log}", str(here.folder / "job.sbatch"), **environment).strip()
    assert "warning" not in until_ready(slurm, job, log)
    places = [(r["env"]["SLURMD_NODENAME"], r["env"]["CUDA_VISIBLE_DEVICES"]) for r in records(here)]
    assert len(set(places)) == len(places) == processes
    assert {r["env"]["VLLM_API_KEY"] for r in records(here)} == {"k1"}
    slurm.run("scancel", job)
    for _ in range(300):
        if not slurm.state(job):
            return
        time.sleep(0.1)
