"""Options into a problem: what is assumed is said, and what cannot be meant is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.cli.question import MOST_GPUS, PRESETS, question
from advisor.errors import AdvisorError, QuestionError
from advisor.specs.workload import Workload


def load(**options: Any) -> Workload:
    return question(model="llama-3.1-8b", gpu="h100-80g-sxm", gpus=1, **options).problem.workload


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "capacity"),
        ({"users": 1}, "single_stream"),
        ({"users": 2}, "closed_loop"),
        ({"rate": 0.5}, "open_loop"),
        ({"preset": "batch"}, "offline"),
        ({"preset": "batch", "users": 4}, "closed_loop"),
        ({"goal": "latency"}, "single_stream"),
    ],
)
def test_how_the_load_is_meant(options: dict[str, Any], mode: str) -> None:
    assert load(**options).mode == mode


def test_without_anything_the_chat_preset_and_its_limits_hold_and_are_said() -> None:
    asked = question(model="llama-3.1-8b", gpu="h100-80g-sxm")
    workload = asked.problem.workload
    assert (workload.input_tokens, workload.output_tokens, workload.ttft_limit_s, workload.tpot_limit_s) == (1024, 512, 2.0, 0.05)
    said = " ".join(asked.said)
    for part in ("One h100-80g-sxm", "1024 tokens in, 512 out", "TTFT 2 s and TPOT 50 ms", "as many users as the limits allow"):
        assert part in said


def test_a_load_without_limits_has_none_and_a_named_preset_brings_its_own() -> None:
    assert load(users=8).tpot_limit_s is None
    assert load(users=8, preset="code").tpot_limit_s == PRESETS["code"].tpot_s
    only_own = load(preset="code", ttft="3s")
    assert (only_own.ttft_limit_s, only_own.tpot_limit_s) == (3.0, None)


def test_limits_are_text_with_a_unit_or_seconds() -> None:
    assert load(ttft="500ms", tpot=0.03).ttft_limit_s == 0.5
    assert load(ttft="500ms", tpot=0.03).tpot_limit_s == 0.03


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"gpus": 0}, "--gpus 0 is not possible"),
        ({"gpus": -3}, "--gpus -3 is not possible"),
        ({"gpus": MOST_GPUS + 1}, "more than any machine has"),
        ({"nodes": 0}, "--nodes 0"),
        ({"gpus": 10**30}, "more than any machine has"),
        ({"users": 0}, "--users 0"),
        ({"users": 4, "rate": 1.0}, "two kinds of load"),
        ({"rate": float("nan")}, "--rate nan"),
        ({"rate": -1.0}, "--rate -1"),
        ({"goal": "speed"}, "unknown goal 'speed'"),
        ({"preset": "chit"}, "unknown preset 'chit'"),
        ({"ttft": "30"}, "write it as 500ms or 2s"),
        ({"tpot": "-3ms"}, "above 0"),
        ({"tpot": "fast"}, "write it as 500ms or 2s"),
        ({"input_tokens": 10**7}, "context"),
        ({"input_tokens": 0}, "--input-tokens 0"),
        ({"prefix_cached_tokens": 1024}, "less than the 1024 input tokens"),
        ({"engine": "vlm"}, "vllm"),
        ({"gpu": "h10"}, "h100"),
        ({"model": "lama-3.1-8b"}, "llama-3.1-8b"),
        ({"model": ""}, "no model"),
        ({"dtype": "bf61"}, "bf16"),
        ({"cluster": Path("nowhere.yaml")}, "--cluster describes the whole machine"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_with_the_mend(options: dict[str, Any], part: str) -> None:
    arguments: dict[str, Any] = {"model": "llama-3.1-8b", "gpu": "h100-80g-sxm", "online": False} | options
    with pytest.raises(QuestionError) as caught:
        question(**arguments)
    sentence = str(caught.value)
    assert part in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400


def test_a_model_of_its_own_file(tmp_path: Path) -> None:
    missing = tmp_path / "config.json"
    with pytest.raises(QuestionError):
        question(model=str(missing), gpu="h100-80g-sxm", online=False)
    missing.write_bytes(b"\x00\xff\xfe binary")
    with pytest.raises(QuestionError):
        question(model=str(missing), gpu="h100-80g-sxm", online=False)


WORDS = st.one_of(st.none(), st.text(max_size=12))
NUMBERS = st.one_of(st.none(), st.integers(-10, 10), st.integers(-(10**20), 10**20))
FLOATS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "gpus": NUMBERS, "nodes": NUMBERS, "users": NUMBERS, "rate": FLOATS, "input_tokens": NUMBERS, "output_tokens": NUMBERS,
            "prefix_cached_tokens": NUMBERS, "ttft": WORDS, "tpot": st.one_of(WORDS, FLOATS), "goal": st.text(max_size=8),
            "preset": st.sampled_from(["", "chat", "rag", "code", "batch", "x"]), "dtype": st.sampled_from(["", "fp8", "??"]),
        },
    )
)  # fmt: skip
def test_any_values_make_a_problem_or_one_sentence(options: dict[str, Any]) -> None:
    try:
        asked = question(model="llama-3.1-8b", gpu="h100-80g-sxm", online=False, **options)
    except AdvisorError as error:
        sentence, code = str(error), error.exit_code
    else:
        sentence, code = "", 2
        assert asked.problem.cluster.gpus >= 1
    assert code in (2, 3)
    assert "\n" not in sentence
