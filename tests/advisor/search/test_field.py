"""What the field knows (issue threads and rules of thumb): derived by the search, never looked up."""

from __future__ import annotations

from pathlib import Path

import pytest

import advisor
from advisor.specs.advice import Advice
from advisor.specs.prediction import Prediction


def smallest_tp(model: str, dtype: str) -> int:
    """The smallest tp that holds the model and leaves a fifth of each GPU to the cache."""
    advice = advisor.recommend(model, gpu="a100-80g-sxm", gpus=8, users=1, input_tokens=1024, output_tokens=512, dtype=dtype)
    return min(p.plan.tp for p in advice.choices if p.plan.pp == 1 and p.memory.kv_bytes > 0.2 * p.memory.device_bytes)


def find(advice: Advice, tp: int, pp: int = 1, dp: int = 1) -> Prediction:
    return next(p for p in advice.choices if (p.plan.tp, p.plan.pp, p.plan.dp, p.plan.ep, p.plan.adp) == (tp, pp, dp, 1, 1))


def share(p: Prediction, part: str) -> float:
    return sum(x.amount for x in p.decode.parts if x.name == part) / p.decode.total_s


@pytest.mark.parametrize(
    ("model", "tp"), [("llama-2-7b", 1), ("llama-2-13b", 1), ("codellama-34b", 2), ("llama-2-70b", 4), ("falcon-180b", 8)]
)
def test_smallest_tp_on_80_gb_a100s_in_bf16(model: str, tp: int) -> None:
    assert smallest_tp(model, "bf16") == tp


def test_70b_in_int4_needs_half_the_gpus_or_less() -> None:
    assert smallest_tp("llama-2-70b", "int4-awq") <= 2


def test_405b_does_not_fit_8_a100s_in_bf16_and_the_answer_says_what_does() -> None:
    advice = advisor.recommend("405b", gpu="a100-80g-sxm", gpus=8)
    assert advice.choices == ()
    assert any(remedy.change.startswith("--dtype int4") for remedy in advice.remedies)
    assert any("--nodes 2" in remedy.change and remedy.plan.world <= 16 for remedy in advice.remedies)


def test_70b_on_8_h100_tp8_is_fastest_for_one_user_and_replicas_win_offline() -> None:
    alone = advisor.recommend("70b", gpu="h100-80g-sxm", gpus=8, users=1)
    assert min(alone.choices, key=lambda p: p.tpot_s.value).plan.tp == 8
    offline = advisor.recommend("70b", gpu="h100-80g-sxm", gpus=8, preset="batch")
    best = offline.choices[0].plan
    assert best.tp < 8
    assert best.dp > 1


def test_stages_never_shorten_a_single_users_wait() -> None:
    advice = advisor.recommend("70b", gpu="h100-80g-sxm", gpus=8, users=1)
    assert find(advice, 4, pp=2).tpot_s.value > find(advice, 4).tpot_s.value
    assert find(advice, 2, pp=4).tpot_s.value > find(advice, 2, pp=2).tpot_s.value


def test_on_a_pcie_box_more_tp_gains_little_and_stages_are_slowest() -> None:
    advice = advisor.recommend(
        "codellama-34b", gpu="rtx3090", gpus=6, dtype="int4-awq", users=1, input_tokens=512, output_tokens=256
    )
    two, four = find(advice, 2), find(advice, 4)
    assert four.tpot_s.value > 0.65 * two.tpot_s.value  # half the weights a GPU, far from half the time
    assert find(advice, 1, pp=6).tpot_s.value == max(p.tpot_s.value for p in advice.choices if p.plan.dp == 1)


def test_the_all_reduce_share_grows_with_tp_and_can_exceed_half_on_pcie() -> None:
    advice = advisor.recommend("70b", gpu="h100-80g-sxm", gpus=8, users=1)
    shares = [share(find(advice, tp), "all-reduce") for tp in (2, 4, 8)]
    assert shares == sorted(shares)
    assert 0.05 < shares[-1] < 0.45
    slow = advisor.estimate("8b", "tp=8", gpu="rtx4090", gpus=8, users=128)
    assert share(slow, "all-reduce") > 0.5


def test_tp_above_the_kv_heads_adds_no_cache_for_them() -> None:
    sixteen, eight = (advisor.estimate("llama-3.1-8b", f"tp={tp}", gpu="h100-80g-sxm", gpus=16, users=1) for tp in (16, 8))
    assert sixteen.memory.kv_bytes_per_token == eight.memory.kv_bytes_per_token


def test_an_moe_says_which_of_ep_and_tp_it_prefers() -> None:
    """At a few users whole experts on their ranks leave some idle: spreading them gains nothing (vLLM issue 28889)."""
    found = {p.plan.label: p for p in advisor.recommend("mixtral", gpu="h100-80g-sxm", gpus=8, users=4).choices}
    plain, spread = found["tp=8,pp=1,dp=1"], found["tp=8,pp=1,dp=1,ep=8"]
    assert spread.output_tokens_per_s.value < 1.02 * plain.output_tokens_per_s.value


@pytest.mark.parametrize("gpus", [3, 5, 6, 7])
def test_no_illegal_tp_is_ever_advised(gpus: int) -> None:
    advice = advisor.recommend("8b", gpu="rtx4090", gpus=gpus, users=8)
    assert all(32 % p.plan.tp == 0 and p.plan.world <= gpus for p in advice.choices)


def test_a_1024_gpu_answer_looks_at_few_plans() -> None:
    advice = advisor.recommend("70b", gpu="h100-80g-sxm", gpus=8, nodes=128)
    assert advice.choices[0].plan.world == 1024
    assert len(advice.choices) < 100


def test_a_box_of_different_gpus_serves_one_replica_on_its_largest(tmp_path: Path) -> None:
    """Two RTX 3090 and an RTX 5090 (vLLM issues 6824, 4998): a uniform split is held back by the smallest."""
    box = tmp_path / "box.yaml"
    box.write_text("gpus: [rtx3090, rtx3090, rtx5090]\n", encoding="utf-8")
    advice = advisor.recommend("qwen3-32b", cluster=box, dtype="int4-awq", users=1)
    single = find(advice, 1)
    assert single.plan.gpus == (2,)
    assert single.memory.device_bytes > 30e9
    assert all(p.memory.shortfall_bytes <= 0 for p in advice.choices)
