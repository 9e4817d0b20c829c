"""TensorRT-LLM's rules, each on a few requests worked by hand."""

from __future__ import annotations

import pytest
from fixed_steps import Fixed, replica, requests

from advisor.specs.engine import Scheduler

NO_EVICT = Scheduler(family="trtllm", chunked_prefill=True, mixed_steps=True)
MOST_USE = Scheduler(family="trtllm", chunked_prefill=True, mixed_steps=True, guaranteed_no_evict=False)


def test_a_request_is_admitted_only_with_room_for_its_whole_output() -> None:
    # 100 tokens: 40 + 30 are reserved at once, so that 20 + 15 wait for the end of the first, though 20 + 1 would fit now.
    simulator = replica(Fixed(NO_EVICT), kv_tokens=100)
    simulator.run(requests((40, 30), (20, 15)))
    first, second = sorted(simulator.records, key=lambda r: r.end_s)
    assert second.admitted_s == pytest.approx(first.end_s)
    assert simulator.preemptions == 0


def test_nobody_passes_the_first_that_does_not_fit() -> None:
    simulator = replica(Fixed(NO_EVICT), kv_tokens=100)
    simulator.run(requests((40, 30), (20, 15), (5, 5)))
    by_length = {r.input_tokens: r for r in simulator.records}
    assert by_length[5].admitted_s >= by_length[20].admitted_s


def test_maximum_utilisation_admits_by_present_need_and_pauses_the_last_started() -> None:
    simulator = replica(Fixed(MOST_USE), kv_tokens=100)
    simulator.run(requests((40, 30), (20, 28)))
    by_length = {r.input_tokens: r for r in simulator.records}
    assert by_length[20].queue_s == 0.0
    # 40 + 20 tokens and two more a step: after twenty steps the cache is full and the request that started last is paused.
    assert by_length[20].preemptions == 1
    assert by_length[40].preemptions == 0
    assert by_length[20].end_s > by_length[40].end_s


def test_generation_comes_first_and_chunks_are_whole_blocks() -> None:
    model = Fixed(NO_EVICT, page_tokens=32)
    simulator = replica(model, budget=100)
    simulator.run([*requests((64, 20)), *requests((200, 2), at_s=0.001)])
    # Beside one decode 99 tokens are left: 96 of them in whole blocks of 32.
    assert model.steps == [(0, [64]), (1, [96]), (1, [96]), (1, [8])]


def test_without_chunks_a_context_that_does_not_fit_the_step_waits() -> None:
    whole = Scheduler(family="trtllm", chunked_prefill=False, mixed_steps=True)
    model = Fixed(whole)
    simulator = replica(model, budget=100)
    simulator.run(requests((60, 3), (60, 3)))
    assert model.steps == [(0, [60]), (1, [60])]
