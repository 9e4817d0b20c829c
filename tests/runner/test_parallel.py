"""Sharded logits are the whole model's: every axis, on two and four ranks, prefill and decode with the cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")

from sharded import on_ranks  # noqa: E402

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.errors import PlanError  # noqa: E402
from advisor.specs.model import ModelSpec  # noqa: E402
from advisor.specs.plan import Plan  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.pipeline import micro_batches, run  # noqa: E402
from runner.transformer import Transformer  # noqa: E402
from runner.weights import initialise  # noqa: E402

SEQUENCES, PROMPT, STEPS = 4, 11, 3
ALL = ("llama", "qwen3 moe", "deepseek v3")


def spec_of(name: str) -> ModelSpec:
    return model_from_config(CONFIGS[name], None, name=name, source="test")


def logits(mesh: Mesh, specs: list[ModelSpec]) -> list[Any]:
    """Per model: logits of every step and the tokens, on the last stage; None on the others."""
    found: list[Any] = []
    for spec in specs:
        model = Transformer(spec, mesh.plan, mesh.coordinates, mesh, device="cpu", dtype=torch.float32, max_batch=1, max_context=1)
        initialise(model, spec, 7)
        prompts = torch.randint(0, spec.vocab_size, (SEQUENCES, PROMPT), generator=torch.Generator().manual_seed(3))
        own = prompts.chunk(mesh.plan.adp)[mesh.coordinates.adp_rank]
        seen: list[Any] = []
        batches = micro_batches(model, own, 2 if mesh.plan.pp > 1 else 1, new_tokens=STEPS)

        def prefill(batch: Any, x: Any, model: Any = model, seen: Any = seen) -> Any:
            seen.append(model.prefill(x, batch.cache))
            return seen[-1]

        def decode(batch: Any, x: Any, model: Any = model, seen: Any = seen) -> Any:
            seen.append(model.decode(x, batch.positions, batch.cache))
            return seen[-1]

        tokens = run(model, batches, steps=STEPS, schedule="1f1b", prefill=prefill, decode=decode)
        count = len(batches)
        steps = [torch.cat(seen[i * count : (i + 1) * count]) for i in range(STEPS + 1)] if mesh.is_last_stage else None
        found.append((steps, torch.cat(tokens) if tokens else None))
    return found


def wide_heads() -> ModelSpec:
    """Eight query and two key-value heads: tp=4 holds each of the two twice."""
    spec = spec_of("llama")
    layer = replace(spec.layers[0], mixer=replace(spec.layers[0].mixer, heads=8, kv_heads=2, head_dim=6))  # type: ignore[arg-type]
    return replace(spec, name="wide heads", layers=(layer,) * 2)


SPECS = {name: spec_of(name) for name in CONFIGS} | {"wide heads": wide_heads()}
PLANS: list[tuple[Plan, tuple[str, ...]]] = [
    (Plan(tp=2), (*ALL, "llama tied, biased", "gpt-oss", "gemma 2", "olmo 2", "cohere")),
    (Plan(pp=2), (*ALL, "llama tied, biased", "gemma 3")),
    (Plan(pp=2, layer_split=(1, 2)), ("llama",)),
    (Plan(dp=2), ("llama",)),
    (Plan(tp=2, ep=2), ("qwen3 moe", "qwen2 moe", "deepseek v3", "gpt-oss")),
    (Plan(adp=2, ep=2), ("qwen3 moe", "deepseek v3")),
    (Plan(adp=2), ("qwen3 moe", "gpt-oss")),
    (Plan(tp=3), ("llama even", "gemma even")),
    (Plan(tp=2, pp=2), (*ALL, "llama tied, biased")),
    (Plan(tp=2, adp=2, ep=2), ("qwen3 moe", "deepseek v3")),
    (Plan(tp=2, dp=2), ("llama",)),
    (Plan(tp=4), ("wide heads",)),
]
for _even, _of in (("llama even", "llama"), ("gemma even", "gemma")):  # three key-value heads, so that three ranks share them
    SPECS[_even] = model_from_config({**CONFIGS[_of], "num_key_value_heads": 3}, None, name=_even, source="test")


@pytest.fixture(scope="module")
def sharded() -> dict[Plan, list[Any]]:
    """What every plan's ranks found: one start of two, three and four ranks for all plans of that size."""
    found: dict[Plan, list[Any]] = {}
    for world in sorted({plan.world for plan, _ in PLANS}):
        jobs = [(plan, [SPECS[name] for name in names]) for plan, names in PLANS if plan.world == world]
        found |= zip((plan for plan, _ in jobs), on_ranks(logits, jobs), strict=True)
    return found


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """The same models on one rank."""
    names = sorted({name for _, names in PLANS for name in names})
    return dict(zip(names, logits(Mesh.single(), [SPECS[name] for name in names]), strict=True))


@pytest.mark.parametrize(("plan", "names"), PLANS, ids=lambda x: x.label if isinstance(x, Plan) else "")
def test_sharded_logits_are_the_whole_models(
    plan: Plan, names: tuple[str, ...], sharded: dict[Plan, list[Any]], whole: dict[str, Any]
) -> None:
    """fp32 on both sides: only the order of sums differs, of some hundred terms of size one. Experts are chosen from equal scores
    up to that, and greedy tokens as well, so a whole run follows the same path."""
    for rank, results in enumerate(sharded[plan]):
        where = plan.coordinates(rank)
        mine = slice(where.adp_rank * SEQUENCES // plan.adp, (where.adp_rank + 1) * SEQUENCES // plan.adp)
        for name, (steps, tokens) in zip(names, results, strict=True):
            want_steps, want_tokens = whole[name]
            if where.stage == plan.pp - 1:
                for got, expected in zip(steps, want_steps, strict=True):
                    torch.testing.assert_close(got, expected[mine], atol=3e-5, rtol=3e-5, msg=lambda m, n=name: f"{n}: {m}")
            if where.stage in (0, plan.pp - 1):
                assert torch.equal(tokens, want_tokens[mine])


def test_what_does_not_divide_is_said() -> None:
    spec = spec_of("llama")
    mesh = Mesh.shard(Plan(tp=4))
    with pytest.raises(PlanError, match="6 query heads do not divide by 4 ranks"):
        Transformer(spec, mesh.plan, mesh.coordinates, mesh, device="cpu", dtype=torch.float32, max_batch=1, max_context=8)
