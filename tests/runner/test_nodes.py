"""Two machines rehearsed on one: two agents, each with a rank of one plan, meet at an address as two nodes would."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_models import CONFIGS

pytest.importorskip("torch")

from advisor.catalog.huggingface import model_from_config
from advisor.measure.campaign import run_job
from advisor.measure.ranks import Nodes, Ranks
from advisor.specs.experiment import Cell, Job, Measurement
from advisor.specs.plan import Plan

SPEC = model_from_config(CONFIGS["llama"], None, name="t", source="t")
CELLS = (Cell(phase="decode", batch=2, context_tokens=16), Cell(phase="prefill", batch=1, context_tokens=8, chunk_tokens=3))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("plan", [Plan(tp=2), Plan(pp=2)], ids=lambda p: p.label)
def test_two_agents_measure_one_plan(plan: Plan) -> None:
    job = Job(
        id="two-nodes", model=SPEC, plan=plan, cells=CELLS, device="cpu", warmup=1, repeats=3, stall_limit_s=60, time_limit_s=120
    )
    port = free_port()
    environment = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}

    def node(rank: int) -> Measurement:
        nodes = Nodes(count=2, rank=rank, address="127.0.0.1", port=port)
        ranks = Ranks(module="runner", here=1, nodes=nodes, environment={**os.environ, **environment})
        return run_job(job, node=None, nodes=nodes, progress=lambda _: None, ranks=ranks)

    with ThreadPoolExecutor(2) as both:
        first, second = both.map(node, (0, 1))
    assert first.reason == ""
    assert first.status == "ok"
    assert {timing.cell for timing in first.timings} == set(CELLS)
    assert (second.status, second.timings) == ("ok", ())
    assert second.notes == ("the figures are on the first node",)
