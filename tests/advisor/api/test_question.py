"""Options into a problem: what is assumed is said, and what cannot be meant is one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.api.answer import estimate_plan
from advisor.api.question import machine_words, question
from advisor.catalog.devices import load_device
from advisor.catalog.machines import cluster_text, load_cluster
from advisor.catalog.presets import load_preset
from advisor.errors import AdvisorError, PlanError, QuestionError
from advisor.probe.readings import GpuReading, Readings
from advisor.specs.cluster import MOST_GPUS, Cluster, Link, Node
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
    assert load(users=8, preset="code").tpot_limit_s == load_preset("code").tpot_s
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


def test_what_a_machine_file_leaves_open_is_said_as_for_one_named_by_options(tmp_path: Path) -> None:
    machine = replace(load_cluster(gpu="l40s", gpus=4), assumed="Peer access was not read.")
    file = tmp_path / "machine.yaml"
    file.write_text(cluster_text(machine), encoding="utf-8")
    assert "Peer access was not read." in question(model="8b", cluster=file).said
    assert "Peer access was not read." in question(model="8b", cluster=machine, gpus=2).said


def test_the_machine_here_is_known_by_its_driver_name_without_reading_every_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = GpuReading(index=0, name="NVIDIA H100 80GB HBM3", memory_bytes=85_520_809_984.0)
    monkeypatch.setattr("advisor.probe.nvml.read_nvml", lambda: Readings(source="nvml", gpus=(gpu,)))
    monkeypatch.setattr("advisor.catalog.devices.list_devices", lambda: pytest.fail("every sheet was read"))
    asked = question(model="8b")
    assert asked.problem.cluster.device.name == "h100-80g-sxm"
    assert any(sentence.startswith("The machine here: 1 x h100-80g-sxm") for sentence in asked.said)


def test_a_gpu_here_that_no_sheet_names_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = GpuReading(index=0, name="Abacus 9000", memory_bytes=1e9)
    monkeypatch.setattr("advisor.probe.nvml.read_nvml", lambda: Readings(source="nvml", gpus=(gpu,)))
    with pytest.raises(QuestionError, match="'Abacus 9000' is not in the GPU catalogue"):
        question(model="8b")


def test_machines_in_words() -> None:
    devices = (load_device("l40s"), load_device("l40s"), load_device("a40"))
    mixed = Node(name="box", devices=devices, default_link=Link(kind="phb", bytes_per_s=3e10))
    assert machine_words(Cluster(node=mixed)) == "2 x l40s + 1 x a40"
    assert machine_words(load_cluster(gpu="h100", gpus=8, nodes=2)) == "2 nodes of 8 x h100-80g-sxm"


def test_the_context_is_what_the_server_has_to_take_and_the_request_stays_the_mean() -> None:
    asked = question(model="8b", gpu="h100", context=100_000)
    assert (asked.problem.workload.context_tokens, asked.problem.workload.max_context_tokens) == (1536, 100_000)
    assert estimate_plan(asked, "tp=1").plan.settings.max_context_tokens == 100_000  # type: ignore[union-attr]
    open_settings = estimate_plan(question(model="8b", gpu="h100"), "tp=1").plan.settings
    assert open_settings is not None
    assert open_settings.max_context_tokens > 32_000
    with pytest.raises(QuestionError, match="--context 200000 is not possible"):
        question(model="8b", gpu="h100", context=200_000)
    with pytest.raises(PlanError, match="one request may have 131,072"):
        estimate_plan(question(model="8b", gpu="a10", context=131_072), "tp=1")
