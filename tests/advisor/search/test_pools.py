"""When prefill and decode belong apart: rates matched, GPUs counted, and the error heeded."""

from __future__ import annotations

import pytest

from advisor.api.answer import answer
from advisor.api.question import question
from advisor.report.pools import pools_lines, speculation_words, verdict
from advisor.specs.advice import SpeculationAdvice


def test_a_dense_70b_on_two_boxes_is_not_taken_apart_within_the_error() -> None:
    advice = answer(question(model="llama-3.1-70b", gpu="h100-80g-sxm", gpus=8, nodes=2, online=False))
    found = advice.pools
    assert found is not None
    assert found.gain is not None
    assert not found.ahead
    assert "not better here" in "\n".join(pools_lines(advice))
    first = found.choices[0]
    assert first.deployment.world <= 16
    assert first.within_limits
    assert first.requests_per_s.value <= min(first.prefill_carries_per_s, first.decode_carries_per_s)


def test_a_wide_mixture_on_one_nvlink_domain_gains_from_pools() -> None:
    advice = answer(question(model="deepseek-r1", gpu="gb200", gpus=72, engine="trtllm", online=False))
    assert advice.pools is not None
    assert advice.pools.ahead
    assert advice.pools.gain is not None
    assert advice.pools.gain > 1.3
    assert "better than the recommended plan" in verdict(advice.pools)


def test_one_board_is_not_looked_at_unless_asked() -> None:
    asked = question(model="llama-3.1-8b", gpu="h100-80g-sxm", gpus=8, users=64, online=False)
    assert answer(asked).pools is None
    assert answer(asked, disaggregate="only").pools is not None
    wide = question(model="llama-3.1-8b", gpu="h100-80g-sxm", gpus=8, nodes=2, users=64, online=False)
    assert answer(wide, disaggregate="never").pools is None


def test_drafting_pays_one_user_and_not_a_crowd_of_short_ones() -> None:
    few = answer(question(model="llama-3.1-8b", gpu="h100-80g-sxm", gpus=1, users=2, speculate="eagle3:3", online=False))
    assert few.speculation is not None
    assert few.speculation.plain_tpot_s > 1.5 * few.speculation.tpot_s
    crowd = answer(
        question(
            model="llama-3.1-8b", gpu="h100-80g-sxm", gpus=1, users=900, input_tokens=32, output_tokens=64, speculate="eagle3:5",
            acceptance="1.4", online=False,
        )
    )  # fmt: skip
    assert crowd.speculation is not None
    assert crowd.speculation.pays_below_users is not None
    assert crowd.speculation.pays_below_users < 900
    assert speculation_words(crowd.speculation).startswith("Leave speculation off")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (SpeculationAdvice(tpot_s=0.01, plain_tpot_s=0.02, pays_below_users=None), "at every load that the cache holds"),
        (SpeculationAdvice(tpot_s=0.01, plain_tpot_s=0.02, pays_below_users=128.0), "from 128 users on"),
        (SpeculationAdvice(tpot_s=0.02, plain_tpot_s=0.02, pays_below_users=0.0), "Leave speculation off"),
        (None, ""),
    ],
)
def test_words_on_drafting(found: SpeculationAdvice | None, words: str) -> None:
    assert words in speculation_words(found)
