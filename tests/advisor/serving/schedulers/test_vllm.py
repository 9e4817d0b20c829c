"""vLLM's rules, each on a few requests worked by hand."""

from __future__ import annotations

import pytest
from fixed_steps import Fixed, replica, requests

from advisor.specs.engine import Scheduler

V1 = Scheduler(family="vllm", chunked_prefill=True, mixed_steps=True)
V0 = Scheduler(family="vllm", chunked_prefill=False, mixed_steps=False, watermark=0.0)


def test_prompts_take_what_the_decodes_leave_of_the_budget_first_come_first_served() -> None:
    model = Fixed(V1)
    simulator = replica(model, budget=1000)
    simulator.run(requests((600, 3), (600, 3), (600, 3), (100, 1), (100, 1)))
    # 600 + 400; the one that decodes takes 1, the cut prompt goes on with its 200, then 600 and 100 begin; of the last 100 tokens
    # 99 fit, and the next step has the rest of them.
    assert model.steps == [(0, [600, 400]), (1, [200, 600, 100, 99]), (3, [1])]


def test_decodes_and_prompts_share_a_step() -> None:
    model = Fixed(V1)
    simulator = replica(model)
    simulator.run([*requests((100, 11)), *requests((500, 2), at_s=0.045)])
    first, second = sorted(simulator.records, key=lambda r: r.arrival_s)
    # The first token at 10 ms, four decode steps until 50 ms, a step of 10 + 50 ms with the other's prompt, then five of 10 ms.
    assert second.first_s == pytest.approx(0.110)
    assert first.end_s == pytest.approx(0.160)


def test_the_youngest_is_preempted_and_the_queue_waits_for_it() -> None:
    # A cache of 40 tokens. Three prompts of 10 are prefilled in 3 ms and write three tokens a step: after three steps 39 are full.
    # The fourth step preempts the youngest, which has 10 + 4 tokens; the two others go on and end at 3 + 8 x 10 = 83 ms. The short
    # request came at 25 ms, with one token free after the running ones, and then waits behind the preempted one. At 83 ms both
    # begin: 14 + 2 tokens in 1.6 ms, then four steps until the preempted one has its nine tokens.
    model = Fixed(V1)
    simulator = replica(model, kv_tokens=40)
    simulator.run([*requests((10, 9), (10, 9), (10, 9)), *requests((2, 2), at_s=0.025)])
    first, second, short, youngest = sorted(simulator.records, key=lambda r: r.end_s)
    assert model.steps == [(0, [10, 10, 10]), (0, [14, 2])]
    assert (first.end_s, second.end_s) == (pytest.approx(0.083), pytest.approx(0.083))
    assert (first.preemptions, second.preemptions, short.preemptions, youngest.preemptions) == (0, 0, 0, 1)
    assert short.admitted_s == pytest.approx(0.083)
    assert youngest.end_s == pytest.approx(0.083 + 0.0016 + 0.040)
    assert youngest.first_s == pytest.approx(0.003)  # the token that was sent stays sent


def test_the_first_prompt_that_does_not_fit_holds_up_all_behind_it() -> None:
    model = Fixed(V1)
    simulator = replica(model, kv_tokens=100)
    simulator.run(requests((60, 20), (50, 5), (10, 5)))
    long, blocked, short = sorted(simulator.records, key=lambda r: r.input_tokens, reverse=True)
    assert blocked.admitted_s >= long.end_s - 1e-9
    assert short.admitted_s >= blocked.admitted_s


def test_a_whole_prompt_must_be_free_before_its_first_chunk() -> None:
    loose = Scheduler(family="vllm", chunked_prefill=True, mixed_steps=True, reserve_prompt=False)
    admitted = {}
    for rules in (V1, loose):
        simulator = replica(Fixed(rules), kv_tokens=150, budget=100)
        simulator.run(requests((90, 10), (70, 5)))
        admitted[rules.reserve_prompt] = max(r.admitted_s for r in simulator.records)
    # 70 tokens are not free beside 90 of 150, but the first chunk of 10 is.
    assert admitted[False] == 0.0
    assert admitted[True] > 0.09


def test_the_watermark_stays_free_on_admission() -> None:
    guarded = Scheduler(family="vllm", chunked_prefill=True, mixed_steps=True, watermark=0.2)
    waits = []
    for rules in (V1, guarded):
        simulator = replica(Fixed(rules), kv_tokens=100)
        simulator.run([*requests((50, 5)), *requests((40, 2), at_s=0.001)])
        waits.append(max(r.queue_s for r in simulator.records))
    assert waits[0] < 0.01 < waits[1]


def test_before_v1_a_prompt_stops_the_decodes() -> None:
    model = Fixed(V0)
    simulator = replica(model)
    simulator.run([*requests((100, 11)), *requests((500, 2), at_s=0.045)])
    first = min(simulator.records, key=lambda r: r.arrival_s)
    assert model.steps == [(0, [100]), (0, [500])]
    assert first.end_s == pytest.approx(0.160)  # ten decode steps, one prompt of 10 ms and one of 50 ms
