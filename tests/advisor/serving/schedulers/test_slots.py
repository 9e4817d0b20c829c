"""Slots, as llama.cpp's server has them, on a few requests worked by hand."""

from __future__ import annotations

import pytest
from fixed_steps import Fixed, replica, requests

from advisor.specs.engine import Scheduler

SLOTS = Scheduler(family="slots", chunked_prefill=True, mixed_steps=True)


def test_a_request_waits_for_a_slot() -> None:
    simulator = replica(Fixed(SLOTS), most=2)
    simulator.run(requests((10, 5), (10, 9), (10, 5)))
    by_end = sorted(simulator.records, key=lambda r: r.end_s)
    assert by_end[1].queue_s == pytest.approx(0.0) or by_end[2].queue_s == pytest.approx(by_end[0].end_s)
    assert max(r.queue_s for r in simulator.records) == pytest.approx(by_end[0].end_s)


def test_sampled_tokens_come_before_prompts_in_the_batch() -> None:
    model = Fixed(SLOTS)
    simulator = replica(model, most=2, budget=100)
    simulator.run([*requests((50, 20)), *requests((150, 2), at_s=0.001)])
    assert model.steps == [(0, [50]), (1, [99]), (1, [51])]


def test_a_slot_has_room_for_the_whole_sequence_and_is_never_preempted() -> None:
    simulator = replica(Fixed(SLOTS), kv_tokens=100)
    simulator.run(requests((40, 30), (20, 15)))
    assert simulator.preemptions == 0
    assert max(r.queue_s for r in simulator.records) > 0.29
