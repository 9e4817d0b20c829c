"""The simulator: queues of the textbook, Little's law, blocks, and runs that repeat."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from fixed_steps import Fixed, replica, requests
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.specs.engine import Scheduler
from advisor.specs.trace import Request

ONE_SLOT = Scheduler(family="slots", chunked_prefill=False, mixed_steps=False)
VLLM = Scheduler(family="vllm", chunked_prefill=True, mixed_steps=True)
FAMILIES = (
    VLLM,
    replace(VLLM, chunked_prefill=False, mixed_steps=False, watermark=0.01),
    Scheduler(family="sglang", chunked_prefill=True, mixed_steps=False),
    Scheduler(family="trtllm", chunked_prefill=True, mixed_steps=True),
    Scheduler(family="trtllm", chunked_prefill=True, mixed_steps=True, guaranteed_no_evict=False),
    Scheduler(family="slots", chunked_prefill=True, mixed_steps=True),
)


def poisson(count: int, rate_per_s: float, tokens: list[int]) -> list[Request]:
    draw, at_s, found = random.Random(1), 0.0, []
    for i in range(count):
        at_s += draw.expovariate(rate_per_s)
        found.append(Request(arrival_s=at_s, input_tokens=1, output_tokens=tokens[i % len(tokens)]))
    return found


def mean_queue_s(service_tokens: list[int], utilisation: float, count: int = 40_000) -> float:
    """One slot that serves a request in 10 ms a token (a prompt of one token costs nothing)."""
    model = Fixed(ONE_SLOT, prompt_s=0.0)
    simulator = replica(model, most=1)
    mean_s = 0.010 * (sum(service_tokens) / len(service_tokens) - 1)
    simulator.run(poisson(count, utilisation / mean_s, service_tokens))
    return sum(r.queue_s for r in simulator.records) / len(simulator.records) / mean_s


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_one_server_with_equal_services_is_the_m_d_1_queue(utilisation: float) -> None:
    expected = utilisation / (2 * (1 - utilisation))
    assert mean_queue_s([101], utilisation) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("utilisation", [0.3, 0.6])
def test_one_server_with_exponential_services_is_the_m_m_1_queue(utilisation: float) -> None:
    draw = random.Random(2)
    services = [1 + max(1, round(draw.expovariate(1 / 200))) for _ in range(40_000)]
    expected = utilisation / (1 - utilisation)
    assert mean_queue_s(services, utilisation) == pytest.approx(expected, rel=0.08)


@settings(max_examples=30, deadline=None)
@given(
    rules=st.sampled_from(FAMILIES), seed=st.integers(0, 1000), kv_tokens=st.sampled_from([150.0, 400.0, 1e6]),
    page=st.sampled_from([1, 16]),
)  # fmt: skip
def test_every_run_serves_all_keeps_its_blocks_and_obeys_little_s_law(
    rules: Scheduler, seed: int, kv_tokens: float, page: int
) -> None:
    draw = random.Random(seed)
    sent = [Request(arrival_s=i * 0.02, input_tokens=draw.randint(1, 60), output_tokens=draw.randint(1, 60)) for i in range(60)]
    simulator = replica(Fixed(rules, page_tokens=page), most=12, kv_tokens=kv_tokens, budget=64)
    simulator.run(sent)
    assert len(simulator.records) == 60
    assert simulator.free_blocks == simulator.total_blocks
    for record in simulator.records:
        assert record.arrival_s <= record.admitted_s <= record.first_s <= record.end_s
    # Decoding sequences averaged over time are the rate times the time each decodes; a preempted one does not decode all the time.
    decoding_s = math.fsum(r.end_s - r.first_s for r in simulator.records)
    if simulator.preemptions == 0:
        assert simulator.busy_s == pytest.approx(decoding_s, rel=1e-6)
    else:
        assert simulator.busy_s <= decoding_s * 1.000001


@pytest.mark.parametrize("rules", FAMILIES, ids=lambda rules: f"{rules.family}-{rules.mixed_steps}-{rules.guaranteed_no_evict}")
def test_running_equal_steps_at_once_changes_nothing(rules: Scheduler) -> None:
    """Arrivals that never come make no difference; a request that a longer run passes over would."""
    sent = requests((50, 40), (70, 10), (20, 30), (90, 25))
    ends = []
    for disturbed in (False, True):
        simulator = replica(Fixed(rules), kv_tokens=250, budget=64)
        tiny = [Request(arrival_s=5.0 + i, input_tokens=1, output_tokens=1) for i in range(3)]
        simulator.run([*sent, *tiny] if disturbed else sent)
        ends.append([round(r.end_s, 9) for r in list(simulator.records)[:4]])
    assert ends[0] == ends[1]


def test_a_closed_loop_keeps_its_users_and_sends_the_next_when_an_answer_ends() -> None:
    simulator = replica(Fixed(VLLM))
    upcoming = iter(requests(*[(10, 5)] * 6))

    def follow_up(now_s: float) -> Request | None:
        following = next(upcoming, None)
        return replace(following, arrival_s=now_s) if following else None

    simulator.run(requests((10, 5), (10, 5)), follow_up=follow_up)
    arrivals = sorted(r.arrival_s for r in simulator.records)
    assert len(arrivals) == 8
    for earlier, later in pairwise(arrivals[::2]):
        assert later - earlier == pytest.approx(0.002 + 0.040)


def test_a_request_that_never_fits_is_rejected_and_the_others_are_served() -> None:
    simulator = replica(Fixed(VLLM), kv_tokens=100)
    simulator.run(requests((90, 20), (10, 5)))
    assert simulator.rejected == 1
    assert [r.input_tokens for r in simulator.records] == [10]


def test_a_request_that_comes_during_a_long_run_of_steps_is_seen_at_its_next_step() -> None:
    simulator = replica(Fixed(VLLM))
    simulator.run([*requests((10, 1000)), *requests((10, 5), at_s=3.0042)])
    late = max(simulator.records, key=lambda r: r.arrival_s)
    assert late.queue_s <= 0.010


def test_a_scheduler_that_runs_ahead_sees_a_request_some_steps_later() -> None:
    waits = []
    for steps in (0.0, 2.0):
        model = Fixed(VLLM)
        model.engine = replace(model.engine, host=replace(model.engine.host, wait_steps=steps))
        simulator = replica(model)
        simulator.run([*requests((10, 1000)), *requests((10, 5), at_s=3.0042)])
        waits.append(max(simulator.records, key=lambda r: r.arrival_s).queue_s)
    assert waits[1] - waits[0] == pytest.approx(0.020, abs=1e-6)


def test_a_verify_step_yields_several_tokens_and_drops_what_is_beyond_the_last() -> None:
    """10 tokens at 2.5 a step: the prompt's step gives the first, ceil(9 / 2.5) = 4 decode steps of 10 ms the other nine."""
    model = Fixed(VLLM, prompt_s=0.0)
    model.tokens_per_step = 2.5
    found = replica(model)
    found.run([Request(arrival_s=0.0, input_tokens=100, output_tokens=10) for _ in range(3)])
    assert [record.end_s - record.first_s for record in found.records] == pytest.approx([0.04] * 3)
    assert found.free_blocks == found.total_blocks


def test_what_comes_during_a_step_begins_together_after_it() -> None:
    """A prompt of 10 takes 1 s; two more come at 0.2 and 0.6 s. Both are in the next step, at 1 s, however they are sent."""
    model = Fixed(VLLM, prompt_s=100.0)
    found = replica(model)
    found.run([Request(arrival_s=at_s, input_tokens=10, output_tokens=1) for at_s in (0.0, 0.2, 0.6)])
    assert [chunks for _, chunks in model.steps] == [[10], [10, 10]]
    assert [record.first_s for record in found.records] == pytest.approx([1.0, 3.0, 3.0])


@pytest.mark.parametrize("per_step", [1.0, 1.7, 2.5, 3.0])
@pytest.mark.parametrize("scheduler", FAMILIES, ids=lambda s: s.family)
def test_a_verify_step_never_takes_more_blocks_than_are_free(scheduler: Scheduler, per_step: float) -> None:
    """Five requests of up to 70 tokens in a cache of 160, with a prefix cache: blocks never run out, and all come back."""
    model = Fixed(replace(scheduler, prefix_cache=True), page_tokens=4)
    model.tokens_per_step = per_step
    found = replica(model, kv_tokens=160)
    least = []
    taken = found._take
    found._take = lambda blocks: (taken(blocks), least.append(found.free_blocks))  # type: ignore[method-assign,func-returns-value,assignment]
    found.run(requests(*[(30 + i, 40 - i) for i in range(5)]))
    assert least
    assert min(least) >= 0
    assert len(found.records) == 5
    assert found.free_blocks == found.total_blocks


def test_verified_tokens_take_the_budget() -> None:
    """Budget 16, three decodes that verify four tokens each: 4 tokens are left for a prompt of 8, which takes two steps."""
    model = Fixed(VLLM)
    model.queries = 4
    found = replica(model, budget=16)
    first = [Request(arrival_s=0.0, input_tokens=4, output_tokens=50) for _ in range(3)]
    found.run([*first, Request(arrival_s=0.05, input_tokens=8, output_tokens=5)])
    assert [chunks for decodes, chunks in model.steps if decodes == 3] == [[4], [4]]
