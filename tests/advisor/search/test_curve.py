"""Lighter loads of the best plans, and the word about one user."""

from __future__ import annotations

import re

import pytest

from advisor.api.answer import answer, estimate_plan
from advisor.api.question import question


@pytest.mark.parametrize(("model", "gpu"), [("llama-3.1-70b", "h100-80g-sxm"), ("mixtral-8x7b", "h100-80g-sxm")])
def test_the_plan_named_for_one_user_is_the_fastest_of_all_for_one_user(model: str, gpu: str) -> None:
    advice = answer(question(model=model, gpu=gpu, gpus=8))
    said = next(note for note in advice.notes if note.startswith("A single user"))
    named = re.search(r"by (tp=\S+):", said)
    assert named is not None
    alone = answer(question(model=model, gpu=gpu, gpus=8, users=1)).choices
    fastest = min(p.tpot_s.value for p in alone)
    asked = question(model=model, gpu=gpu, gpus=8, users=1)
    assert estimate_plan(asked, named[1]).tpot_s.value == pytest.approx(fastest, rel=0.01)


def test_lighter_loads_are_asked_only_where_the_load_was_left_open() -> None:
    assert answer(question(model="llama-3.1-8b", gpu="l40s", gpus=2)).curve
    assert not answer(question(model="llama-3.1-8b", gpu="l40s", gpus=2, users=4)).curve


def test_nobody_is_named_for_one_user_where_an_answer_is_one_token() -> None:
    advice = answer(question(model="llama-3.1-70b", gpu="h100-80g-sxm", gpus=8, input_tokens=100, output_tokens=1))
    assert advice.choices
    assert not [note for note in advice.notes if "single user" in note]
