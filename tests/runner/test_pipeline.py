"""Schedules and graphs: whatever the order of the work, the tokens are the same."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")

from sharded import on_ranks  # noqa: E402

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.specs.plan import Plan  # noqa: E402
from runner.graphs import DecodeGraph  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.pipeline import Schedule, micro_batches, run  # noqa: E402
from runner.transformer import Transformer  # noqa: E402
from runner.weights import initialise  # noqa: E402

SPEC = model_from_config(CONFIGS["llama"], None, name="llama", source="test")
PROMPT, STEPS = 9, 5


def model_on(mesh: Mesh) -> Transformer:
    model = Transformer(SPEC, mesh.plan, mesh.coordinates, mesh, device="cpu", dtype=torch.float32, max_batch=1, max_context=1)
    initialise(model, SPEC, 1)
    return model


def prompts(sequences: int) -> Any:
    return torch.randint(0, SPEC.vocab_size, (sequences, PROMPT), generator=torch.Generator().manual_seed(5))


def tokens(mesh: Mesh, count: int, schedule: Schedule) -> Any:
    model = model_on(mesh)
    found = run(model, micro_batches(model, prompts(6), count, new_tokens=STEPS), steps=STEPS, schedule=schedule)
    return torch.cat(found) if found else None


def test_both_schedules_give_the_tokens_of_one_rank() -> None:
    expected = tokens(Mesh.single(), 1, "1f1b")
    schedules: list[tuple[int, Schedule]] = [(1, "1f1b"), (3, "1f1b"), (3, "naive"), (6, "1f1b")]
    for ranks in on_ranks(tokens, [(Plan(pp=3), *schedule) for schedule in schedules]):
        assert torch.equal(ranks[0], expected)
        assert torch.equal(ranks[2], expected)
        assert ranks[1] is None


def test_micro_batches_are_equal_or_refused() -> None:
    with pytest.raises(ValueError, match="5 sequences do not make 2 equal micro-batches"):
        micro_batches(model_on(Mesh.single()), prompts(5), 2, new_tokens=1)


def test_a_graphs_span_may_exceed_the_context() -> None:
    """A step that reads more of the cache than is filled gives the same logits: empty slots are masked."""
    model = model_on(Mesh.single())
    cache = model.new_cache(2, 700)  # three pages
    model.prefill(prompts(2), cache)
    at = torch.full((2,), PROMPT)
    exact = model.decode(torch.tensor([3, 4]), at, cache)
    wide = DecodeGraph(model, cache, batch=2, span=700)(torch.tensor([3, 4]), at)
    torch.testing.assert_close(wide, exact, atol=2e-5, rtol=2e-5)


@pytest.mark.gpu
def test_a_captured_step_gives_the_eager_logits() -> None:
    """Compiled element-wise parts, replayed; bf16 products in the same order, so only fused roundings differ: 2^-8 of size one."""
    mesh = Mesh.single()
    model = Transformer(
        SPEC, mesh.plan, mesh.coordinates, mesh, device="cuda", dtype=torch.bfloat16, max_batch=2, max_context=64, compiled=True
    )
    initialise(model, SPEC, 1)
    model.prefill(prompts(2).cuda())
    graph = DecodeGraph(model, model.cache, batch=2, span=64)
    at = torch.full((2,), PROMPT, device="cuda")
    following = torch.tensor([3, 4], device="cuda")
    torch.testing.assert_close(graph(following, at).clone(), model.decode(following, at, span=64), atol=0.02, rtol=0.02)
