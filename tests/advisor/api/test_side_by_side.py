"""The same question on several GPUs."""

from __future__ import annotations

import pytest

from advisor.api.answer import answer
from advisor.api.question import question
from advisor.api.side_by_side import compared
from advisor.errors import QuestionError
from advisor.report.side_by_side import page


def test_each_gpu_has_the_answer_that_it_has_alone_and_the_best_is_first() -> None:
    found = compared("8b", "l40s, h100,nope", {"gpus": 2, "users": 16})
    assert [each.gpu for each in found.machines] == ["h100-80g-sxm", "l40s", "nope"]
    alone = answer(question(model="8b", gpu="l40s", gpus=2, users=16))
    second = found.machines[1].advice
    assert second is not None
    assert second.choices[0] == alone.choices[0]
    assert "unknown GPU 'nope'" in found.machines[2].refused
    text = page(found)
    assert text.index("2 x h100-80g-sxm") < text.index("2 x l40s") < text.index("unknown GPU")
    assert "least" in text


def test_the_goal_decides_which_is_best() -> None:
    found = compared("8b", "h100,l4", {"users": 8, "goal": "cost"})
    usd = [each.advice.choices[0].usd_per_million_tokens for each in found.machines if each.advice]
    assert usd == sorted(usd, key=lambda value: value or 0.0)


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        ("h100", {}, "give 2 to 12"),
        ("h100,l40s", {"gpu": "a100"}, "leave out --gpu"),
        ("nope,none", {}, "unknown GPU 'nope'"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(names: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(QuestionError, match=said):
        compared("8b", names, options)  # type: ignore[arg-type]


def test_a_price_of_ones_own_goes_before_the_sheets() -> None:
    cheap, dear = (answer(question(model="8b", gpu="h100", users=8, price=price)).choices[0] for price in (1.0, 4.0))
    assert cheap.usd_per_million_tokens is not None
    assert dear.usd_per_million_tokens == pytest.approx(4 * cheap.usd_per_million_tokens)
    with pytest.raises(QuestionError, match="--price 0 is not possible"):
        question(model="8b", gpu="h100", price=0)
