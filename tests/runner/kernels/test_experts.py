"""The experts' kernels against sorted rows and grouped products: whole, one rank's part, fp8 weights, biases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from interpreted import CLOSE, DEVICE, torch
from tiny_models import CONFIGS

from advisor.catalog.huggingface import model_from_config
from advisor.specs.plan import Plan
from runner import ffn
from runner.ffn import MoeShard
from runner.kernels.experts import MOST_PAIRS, ROWS_EACH
from runner.mesh import Mesh
from runner.transformer import Transformer
from runner.weights import initialise


def shard_of(name: str, weights: str, plan: Plan) -> tuple[MoeShard, int]:
    spec = model_from_config(CONFIGS[name], None, name=name, source="test")
    spec = replace(spec, formats=replace(spec.formats, experts=weights))
    mesh = Mesh.shard(plan, plan.world - 1)
    model = Transformer(spec, plan, mesh.coordinates, mesh, device=DEVICE, dtype=torch.float32, max_batch=1, max_context=1)
    initialise(model, spec, 3)
    return next(block.ffn for block in model.decoder() if isinstance(block.ffn, MoeShard)), spec.hidden_size


@pytest.mark.parametrize("plan", [Plan(), Plan(tp=2), Plan(tp=2, ep=2)], ids=lambda p: p.label)
@pytest.mark.parametrize(
    ("name", "weights"), [("qwen3 moe", "bf16"), ("qwen3 moe", "fp8"), ("gpt-oss", "bf16"), ("deepseek v3", "fp8")]
)
def test_they_sum_what_grouped_products_sum(name: str, weights: str, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    if weights == "fp8" and DEVICE.type == "cuda":
        pytest.skip("on a GPU the grouped product quantises its input too: another sum")
    shard, hidden = shard_of(name, weights, plan)
    x = torch.randn(5, hidden, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(1))
    with torch.inference_mode():
        chosen, gates = shard.route(x)
        monkeypatch.setattr(ffn, "fused_on", lambda _: False)
        expected = shard.experts(x, chosen, gates)
        monkeypatch.setattr(ffn, "fused_on", lambda _: True)
        assert shard.experts._fuses(x, chosen)
        got = shard.experts(x, chosen, gates)
    torch.testing.assert_close(got, expected, atol=CLOSE, rtol=CLOSE)


def test_a_prefill_has_too_many_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    shard, hidden = shard_of("qwen3 moe", "bf16", Plan())
    monkeypatch.setattr(ffn, "fused_on", lambda _: True)
    many = torch.zeros((min(MOST_PAIRS, ROWS_EACH * shard.ffn.experts) // 2 + 1, 2), dtype=torch.int64)
    assert not shard.experts._fuses(torch.zeros(1, hidden), many)
    assert shard.experts._fuses(torch.zeros(1, hidden), many[1:])
