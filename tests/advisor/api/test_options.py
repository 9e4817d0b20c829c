"""The options of a question: one declaration, three parts."""

from __future__ import annotations

from dataclasses import fields

import pytest

import advisor
from advisor.api.options import PARTS, EngineChoice, Load, Machine, Options, parts_of
from advisor.errors import QuestionError


def test_keyword_arguments_are_the_fields_of_the_three_parts() -> None:
    assert [field.name for part in PARTS for field in fields(part)] == [
        name for name in Options.__annotations__ if name != "online"
    ]


def test_help_of_the_python_api_lists_them() -> None:
    words = (advisor.recommend.__doc__ or "").replace(",", " ").replace(".", " ").replace(":", " ").split()
    assert set(Options.__annotations__) <= set(words)


def test_each_option_goes_to_its_part() -> None:
    machine, engine, load = parts_of({"gpu": "h100", "dtype": "fp8", "users": 4})
    assert machine == Machine(gpu="h100")
    assert engine == EngineChoice(engine="vllm", dtype="fp8")
    assert load == Load(users=4)


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(QuestionError, match="unknown option 'gpuz', nearest is gpu"):
        parts_of({"gpuz": 4})  # type: ignore[typeddict-unknown-key]
