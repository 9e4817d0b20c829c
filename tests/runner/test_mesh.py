"""One rank alone in place of many: what the absent ranks would have brought."""

from __future__ import annotations

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.specs.plan import Plan  # noqa: E402
from runner.ffn import MoeShard  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.transformer import Transformer  # noqa: E402
from runner.weights import initialise  # noqa: E402

GROUPS, EXPERTS, CHOSEN, TOKENS = 8, 256, 8, 16


def test_absent_attention_groups_bring_other_tokens() -> None:
    """256 experts, 8 chosen, 16 tokens of each of 8 groups: 1 - (1 - 8/256)^128 = 98% of the experts are met. The same 16 tokens
    eight times over meet 40%.
    """
    spec = model_from_config(
        {**CONFIGS["qwen3 moe"], "num_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "hidden_size": 64},
        None,
        name="t",
        source="t",
    )
    plan = Plan(adp=GROUPS, ep=GROUPS)
    mesh = Mesh.shard(plan)
    model = Transformer(spec, plan, mesh.coordinates, mesh, device="cpu", dtype=torch.float32, max_batch=1, max_context=1)
    initialise(model, spec, 1)
    shard = next(block.ffn for block in model.decoder() if isinstance(block.ffn, MoeShard))
    x = torch.randn(TOKENS, 64, generator=torch.Generator().manual_seed(1))
    tokens = mesh.all_gather(x, "adp", dim=0)
    assert tokens.shape == (GROUPS * TOKENS, 64)
    assert torch.equal(tokens[:TOKENS], x)
    with torch.inference_mode():
        met = len(shard.route(tokens)[0].unique()) / EXPERTS
        own = len(shard.route(x)[0].unique()) / EXPERTS
    assert own < 0.45
    assert met == pytest.approx(1 - (1 - CHOSEN / EXPERTS) ** (GROUPS * TOKENS), abs=0.06)


def test_other_axes_keep_the_shapes() -> None:
    mesh = Mesh.shard(Plan(tp=4))
    x = torch.randn(3, 8)
    assert mesh.all_gather(x, "tp", dim=-1).shape == (3, 32)
    assert mesh.reduce_scatter(torch.randn(8, 2), "tp").shape == (2, 2)
    assert [call.op for call in mesh.calls] == ["all_gather", "reduce_scatter"]
