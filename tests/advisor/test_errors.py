"""The exceptions that a user can meet."""

from __future__ import annotations

import pytest

from advisor.errors import AdvisorError, MachineError, NoPlanFitsError, PlanError, ProfileError, QuestionError, unknown


def test_each_has_its_exit_code() -> None:
    codes = {error: error.exit_code for error in (QuestionError, ProfileError, PlanError, NoPlanFitsError, MachineError)}
    assert list(codes.values()) == [2, 2, 2, 1, 3]
    assert all(issubclass(error, AdvisorError) for error in codes)


@pytest.mark.parametrize(
    ("text", "known", "sentence"),
    [
        ("vlm", ("vllm", "sglang"), "unknown engine 'vlm', nearest is vllm; use vllm or sglang."),
        ("zzzz", ("vllm", "sglang", "trtllm"), "unknown engine 'zzzz'; use vllm, sglang or trtllm."),
        ("x" * 500, ("vllm",), f"unknown engine '{'x' * 60}'; use vllm."),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest_and_all(text: str, known: tuple[str, ...], sentence: str) -> None:
    assert str(unknown("engine", text, known)) == sentence
