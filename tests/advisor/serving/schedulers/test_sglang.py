"""SGLang's rules, each on a few requests worked by hand."""

from __future__ import annotations

import pytest
from fixed_steps import Fixed, replica, requests

from advisor.serving.schedulers.sglang import SglangRules
from advisor.specs.engine import Scheduler

RULES = Scheduler(family="sglang", chunked_prefill=True, mixed_steps=False, max_prefill_tokens=16384)


def test_all_waiting_prompts_are_prefilled_before_any_decode() -> None:
    model = Fixed(RULES)
    simulator = replica(model, budget=1000)
    simulator.run(requests((600, 5), (600, 5), (600, 5)))
    # 600 + 400, then 200 + 600: no decode in between, all three end in the same step.
    assert model.steps == [(0, [600, 400]), (0, [200, 600])]
    ends = {round(r.end_s, 6) for r in simulator.records}
    assert ends == {0.220}  # 180 ms of prompts and four decode steps


def test_a_new_prompt_stops_the_decodes_for_a_whole_step() -> None:
    model = Fixed(RULES)
    simulator = replica(model)
    simulator.run([*requests((100, 11)), *requests((500, 2), at_s=0.045)])
    first = min(simulator.records, key=lambda r: r.arrival_s)
    assert model.steps == [(0, [100]), (0, [500])]
    assert first.end_s == pytest.approx(0.160)


def test_admission_counts_a_share_of_the_outputs_to_come() -> None:
    # 100 tokens. The first takes 40 and owes 39: 60 - 0.7 x 39 = 32.7 are left, of which the second wants 20 + 10 + 1.
    simulator = replica(Fixed(RULES), kv_tokens=100)
    simulator.run([*requests((40, 40)), *requests((20, 10), at_s=0.001)])
    assert max(r.queue_s for r in simulator.records) < 0.01
    # With 22 + 10 + 1 = 33 it does not fit. Nobody is tried again before the first leaves, after 4 + 390 ms.
    simulator = replica(Fixed(RULES), kv_tokens=100)
    simulator.run([*requests((40, 40)), *requests((22, 10), at_s=0.001)])
    assert max(r.admitted_s for r in simulator.records) == pytest.approx(0.394)


def test_the_shortest_output_is_retracted_of_equals_the_longest_prompt() -> None:
    simulator = replica(Fixed(RULES), kv_tokens=70)
    rules = simulator.rules
    assert isinstance(rules, SglangRules)
    rules.ratio = 0.0  # admits whatever fits now
    # Three prefill batches one after the other take 48 of 70 tokens; seven decode steps of three tokens fit, the eighth does not.
    # All have eight tokens by then: the prompt of 30 leaves, and comes back when one of the others has ended.
    simulator.run([*requests((10, 20)), *requests((30, 20), at_s=0.0005), *requests((8, 20), at_s=0.0015)])
    assert {r.input_tokens: r.preemptions for r in simulator.records} == {10: 0, 30: 1, 8: 0}
    # Two stay, with 2 x 8 tokens of 2 x 20: (16 + 20 x 2) / (40 + 1) is above 1, and falls from there with the steps after.
    assert 0.9 < rules.ratio <= 1.0


def test_the_share_falls_with_the_decode_steps_to_a_seventh() -> None:
    rules = SglangRules(RULES, budget=1000, most=8, ranks=1)
    assert rules.ratio == 0.7
    rules.decoded(300)
    assert rules.ratio == pytest.approx((0.7 + 0.14 * 0.7) / 2)
    rules.decoded(1000)
    assert rules.ratio == pytest.approx(0.14 * 0.7)


def test_with_attention_dp_the_forecast_is_a_third() -> None:
    assert SglangRules(RULES, budget=1000, most=8, ranks=8).ratio == pytest.approx(0.21)
