"""Several replicas behind a balancer, prefix caches, and what a summary says."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from fixed_steps import Fixed, replica, requests

from advisor.serving.fleet import Fleet
from advisor.serving.summary import quantile, summarise
from advisor.specs.engine import Scheduler
from advisor.specs.limit import Limit
from advisor.specs.trace import Request

VLLM = Scheduler(family="vllm", chunked_prefill=True, mixed_steps=True)


def poisson(count: int, rate_per_s: float, seed: int = 3) -> list[Request]:
    draw, at_s, found = random.Random(seed), 0.0, []
    for _ in range(count):
        at_s += draw.expovariate(rate_per_s)
        found.append(Request(arrival_s=at_s, input_tokens=draw.randint(1, 200), output_tokens=draw.randint(1, 80)))
    return found


def served(replicas: int, sent: list[Request]) -> Fleet:
    fleet = Fleet([replica(Fixed(VLLM), most=8) for _ in range(replicas)])
    fleet.run(sent, last_s=sent[-1].arrival_s)
    return fleet


def test_one_replica_in_a_fleet_is_that_replica_alone() -> None:
    sent = poisson(200, 8.0)
    alone = replica(Fixed(VLLM), most=8)
    alone.run(sent)
    assert list(served(1, sent).replicas[0].records) == list(alone.records)


def test_the_least_loaded_replica_gets_the_next_request() -> None:
    fleet = served(2, [*requests((10, 100)), *requests((10, 100), (10, 5), at_s=0.5)])
    # The first runs on one replica; of the two that come at 0.5 s one goes to the other, and one to either, each with one.
    assert sorted(len(each.records) for each in fleet.replicas) == [1, 2]
    waits = [r.queue_s for each in fleet.replicas for r in each.records]
    assert max(waits) < 0.011


def test_more_replicas_never_make_requests_wait_longer() -> None:
    sent = poisson(600, 20.0)
    waits = [summarise(served(count, sent), ()).times["ttft"] for count in (2, 4, 8)]
    for fewer, more in pairwise(waits):
        assert all(b <= a * 1.02 for a, b in zip(fewer, more, strict=True))


def test_a_growing_queue_is_an_overload_and_a_calm_one_is_not() -> None:
    assert served(1, poisson(2000, 40.0)).overloaded
    assert not served(1, poisson(2000, 4.0)).overloaded


def test_requests_that_begin_the_same_find_their_beginning_in_the_cache() -> None:
    caching = replace(VLLM, prefix_cache=True)
    model = Fixed(caching, page_tokens=16)
    simulator = replica(model)
    prefix = ((1, 512), (2, 256))
    first = Request(arrival_s=0.0, input_tokens=800, output_tokens=2, prefix=prefix)
    simulator.run([first, replace(first, arrival_s=1.0), replace(first, arrival_s=2.0, prefix=((1, 512), (3, 256)))])
    # 800 tokens, then the 32 behind the known 768, then the 288 behind the known 512.
    assert [sum(chunks) for _, chunks in model.steps] == [800, 32, 288]
    assert [r.cached_tokens for r in simulator.records] == [0, 768, 512]
    assert simulator.free_blocks == simulator.total_blocks


def test_a_prompt_that_is_known_whole_computes_its_last_block() -> None:
    model = Fixed(replace(VLLM, prefix_cache=True), page_tokens=16)
    simulator = replica(model)
    known = Request(arrival_s=0.0, input_tokens=512, output_tokens=2, prefix=((1, 512),))
    simulator.run([known, replace(known, arrival_s=1.0)])
    assert [sum(chunks) for _, chunks in model.steps] == [512, 16]


def test_what_was_freed_first_is_forgotten_first() -> None:
    model = Fixed(replace(VLLM, prefix_cache=True), page_tokens=16)
    simulator = replica(model, kv_tokens=1024)
    sent = [
        Request(arrival_s=float(at), input_tokens=400, output_tokens=1, prefix=((identity, 400),))
        for at, identity in enumerate((1, 2, 3, 1, 3))
    ]
    simulator.run(sent)
    # Two of three prompts fit into 1,024 tokens: the third takes the place of the first, which is then computed whole again and
    # takes the place of the second; the third is still there.
    assert [r.cached_tokens for r in simulator.records] == [0, 0, 0, 0, 384]


def test_a_preempted_request_finds_what_nobody_took() -> None:
    computed = []
    for cached in (False, True):
        model = Fixed(replace(VLLM, prefix_cache=cached), page_tokens=16)
        simulator = replica(model, kv_tokens=640)
        simulator.run(requests((300, 60), (300, 60)))
        assert simulator.preemptions == 1
        computed.append(sum(sum(chunks) for _, chunks in model.steps))
    assert computed[1] < computed[0]


def test_percentiles_are_linear_and_goodput_counts_requests_within_every_limit() -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0, 5.0], 0.9) == pytest.approx(4.6)
    fleet = served(1, requests((100, 3), (100, 3), (100, 3), (100, 3)))
    ends = sorted(r.ttft_s for r in fleet.replicas[0].records)
    assert ends == [pytest.approx(0.040)] * 4
    all_kept = summarise(fleet, (Limit(figure="ttft", seconds=0.041, share=0.9), Limit(figure="tpot", seconds=0.0101)))
    none_kept = summarise(fleet, (Limit(figure="ttft", seconds=0.041), Limit(figure="e2e", seconds=0.050)))
    assert (all_kept.kept, none_kept.kept) == (4, 0)
    assert all_kept.limited == (pytest.approx(0.040), pytest.approx(0.010))
