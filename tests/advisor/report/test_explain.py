"""The page of `explain`."""

from __future__ import annotations

from collections.abc import Callable

from advisor.catalog.engines import load_engine
from advisor.report.explain import assignment_lines, group_lines, memory_lines, step_lines
from advisor.report.screen import PLAIN, WIDTH
from advisor.specs.cluster import Cluster, Device
from advisor.specs.model import ModelSpec
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload


def problem(model: ModelSpec, cluster: Cluster) -> Problem:
    return Problem(model=model, cluster=cluster, workload=Workload(input_tokens=8, output_tokens=8), engine=load_engine("vllm"))


def test_tp2_pp2_dp2_on_8_gpus_as_the_field_has_it(llama_70b: ModelSpec, box: Callable[..., Cluster]) -> None:
    """PHYSICS: GPU 0,1 = replica 0 stage 0; 2,3 = replica 0 stage 1; 4,5 and 6,7 = replica 1; tp groups of neighbours."""
    plan = Plan(tp=2, pp=2, dp=2)
    rows = [line.split() for line in assignment_lines(problem(llama_70b, box(8)), plan, PLAIN)[2:]]
    assert rows == [
        ["0", "0", "0", "0", "0-39"],
        ["1", "0", "0", "1", "0-39"],
        ["2", "0", "1", "0", "40-79"],
        ["3", "0", "1", "1", "40-79"],
        ["4", "1", "0", "0", "0-39"],
        ["5", "1", "0", "1", "0-39"],
        ["6", "1", "1", "0", "40-79"],
        ["7", "1", "1", "1", "40-79"],
    ]
    assert group_lines(plan, PLAIN)[1:] == ["  tp  {0,1} {2,3} {4,5} {6,7}", "  pp  {0,2} {1,3} {4,6} {5,7}"]


def test_placed_ranks_show_their_gpus(llama_70b: ModelSpec, box: Callable[..., Cluster]) -> None:
    plan = Plan(tp=2, dp=2, gpus=(3, 1, 0, 2))
    assert group_lines(plan, PLAIN)[1:] == ["  tp  {3,1} {0,2}"]
    assert [line.split()[0] for line in assignment_lines(problem(llama_70b, box(4)), plan, PLAIN)[2:]] == ["3", "1", "0", "2"]


def test_nodes_are_named_where_there_are_several(llama_70b: ModelSpec, box: Callable[..., Cluster]) -> None:
    rows = [line.split() for line in assignment_lines(problem(llama_70b, box(8, nodes=2)), Plan(tp=8, pp=2), PLAIN)[2:]]
    assert rows[8][:4] == ["1", "0", "0", "1"]


def test_many_ranks_show_one_replica(llama_70b: ModelSpec, box: Callable[..., Cluster]) -> None:
    lines = assignment_lines(problem(llama_70b, box(8, nodes=128)), Plan(tp=8, dp=128), PLAIN)
    assert len(lines) == 11
    assert lines[-1] == "  ... and 127 more replicas like it"
    assert max(map(len, group_lines(Plan(tp=8, dp=128), PLAIN))) <= WIDTH


def test_a_step_is_bars_longest_first_and_a_place_on_the_roofline(prediction: Callable[..., Prediction], h100: Device) -> None:
    lines = step_lines("A decode step", prediction("tp=8").decode, h100, 989e12, PLAIN)
    assert lines[0] == "A decode step: 20 ms"
    assert [line.split()[0] for line in lines[1:4]] == ["weights", "all-reduce", "host"]
    assert "60%" in lines[1]
    # 1e12 FLOP / 2e10 B = 50 FLOP/B; ridge 989e12 / 3.35e12 = 295; 2e10 B / 20 ms = 1 TB/s of 3.35.
    text = " ".join(" ".join(lines[4:]).split())
    assert text == ("Roofline: 50 FLOP per byte, the ridge is at 295: memory-bound; the step reaches 1 TB/s of 3.35 TB/s (30%).")


def test_memory_adds_up_to_the_device(prediction: Callable[..., Prediction]) -> None:
    p = prediction("tp=4,dp=2")
    lines = memory_lines(p.memory, p.plan, PLAIN)
    shares = [int(word[:-1]) for line in lines[1:-1] for word in line.split() if word.endswith("%")]
    assert abs(sum(shares) - 100) <= 2
    assert lines[-1] == "  80 KiB of cache a token on this rank: 200,000 tokens a replica, 400,000 in all"
