"""FLOP and bytes by formula against torch's own counter and against the tensors that are there."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.specs.plan import Plan  # noqa: E402
from runner.counts import PassSize, pass_flop, read_bytes, seen, sum_seen  # noqa: E402
from runner.ffn import MoeShard  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.transformer import Transformer  # noqa: E402
from runner.weights import initialise  # noqa: E402

BATCH, CONTEXT = 2, 16
DENSE = {"deepseek v3": {"first_k_dense_replace": 99}}  # the counter knows no grouped products of experts


def model_of(name: str, mesh: Mesh | None = None, **changes: Any) -> Transformer:
    mesh = mesh or Mesh.single()
    spec = model_from_config({**CONFIGS[name], **changes}, None, name=name, source="test")
    model = Transformer(
        spec, mesh.plan, mesh.coordinates, mesh, device="cpu", dtype=torch.float32, max_batch=BATCH, max_context=CONTEXT
    )
    initialise(model, spec, 1)
    return model


def counted(call: Any) -> float:
    """By the counter, with attention as plain products: it does not see a CPU's fused kernel."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return float(counter.get_total_flops())


@pytest.mark.parametrize("name", ["llama", "qwen3", "qwen2 window", "gemma 2", "olmo 2", "cohere", "deepseek v3"])
def test_a_decode_is_what_torch_counts(name: str) -> None:
    """All contexts end at the cache's length; a window of 7 is kept in a ring and read whole, so it is counted whole."""
    model = model_of(name, **DENSE.get(name, {}))
    at = torch.full((BATCH,), CONTEXT - 1)
    got = counted(lambda: model.decode(torch.zeros(BATCH, dtype=torch.int64), at))
    assert pass_flop(model, PassSize(contexts=(CONTEXT,) * BATCH)) == pytest.approx(got, rel=1e-6)


@pytest.mark.parametrize("name", ["llama", "deepseek v3"])
def test_a_prefill_is_what_torch_counts_without_the_half_that_nobody_sees(name: str) -> None:
    """torch's counter takes the whole square of scores."""
    model = model_of(name, **DENSE.get(name, {}))
    got = counted(lambda: model.prefill(torch.zeros((BATCH, CONTEXT), dtype=torch.int64)))
    pairs = CONTEXT * CONTEXT - CONTEXT * (CONTEXT + 1) // 2
    hidden = 0.0
    for block in model.decoder():
        mixer = block.attention.mixer
        width = mixer.head_dim + (mixer.v_head_dim if name == "deepseek v3" else mixer.value_dim)  # type: ignore[union-attr]
        hidden += 2.0 * BATCH * pairs * block.attention.heads * width
    assert pass_flop(model, PassSize(prompts=BATCH, chunk=CONTEXT)) == pytest.approx(got - hidden, rel=1e-6)


def test_a_prompt_in_two_pieces_is_the_whole_prompt_and_one_more_row_of_logits() -> None:
    model = model_of("llama")
    whole = pass_flop(model, PassSize(prompts=1, chunk=12))
    pieces = pass_flop(model, PassSize(prompts=1, chunk=5)) + pass_flop(model, PassSize(prompts=1, chunk=7, past=5))
    head = 2.0 * model.head.matrix.rows * model.head.matrix.columns
    assert pieces == pytest.approx(whole + head)


@pytest.mark.parametrize(("window", "chunked"), [(0, False), (5, False), (5, True), (100, False)])
def test_what_is_seen_adds_up(window: int, chunked: bool) -> None:
    assert sum_seen(window, chunked, 3, 9) == sum(seen(window, chunked, context) for context in range(4, 13))
    if window == 5:
        assert [seen(5, chunked, context) for context in (1, 5, 6, 11)] == ([1, 5, 1, 1] if chunked else [1, 5, 5, 5])


def test_experts_meet_the_tokens_of_all_attention_groups() -> None:
    """adp=2, ep=2: this rank has half of the experts and twice the tokens, so as much expert work as the whole model's share."""
    whole = model_of("qwen3 moe", num_experts=8)
    half = model_of("qwen3 moe", Mesh.shard(Plan(adp=2, ep=2)), num_experts=8)
    size = PassSize(contexts=(CONTEXT,) * BATCH)
    router = 2.0 * BATCH * 8 * whole.spec.hidden_size * sum(isinstance(block.ffn, MoeShard) for block in whole.decoder())
    assert pass_flop(half, size) == pytest.approx(pass_flop(whole, size) + router)  # the router sees the other group's tokens too


def test_idle_experts_are_not_read() -> None:
    """Two tokens of each of two groups draw 2 of 8 experts: (1 - 2/8)^4 of them are idle; with one group (1 - 2/8)^2."""
    for mesh, tokens in ((Mesh.single(), BATCH), (Mesh.shard(Plan(adp=2, ep=2)), 2 * BATCH)):
        model = model_of("qwen3 moe", mesh, num_experts=8, num_experts_per_tok=2)
        experts = sum(
            sum(t.numel() * t.element_size() for t in block.ffn.experts.buffers())
            for block in model.decoder()
            if isinstance(block.ffn, MoeShard)
        )
        assert experts
        all_bytes = sum(t.numel() * t.element_size() for t in model.buffers())
        assert model.embedding is not None
        looked_up = model.embedding.weight.numel() * 4
        nothing_cached = PassSize(prompts=1, chunk=BATCH)
        idle = experts * (1 - 2 / 8) ** tokens
        assert read_bytes(model, model.cache, nothing_cached) == pytest.approx(all_bytes - looked_up - idle)


def test_a_decode_reads_what_its_own_context_fills() -> None:
    """Sequences of 3 and 16 tokens read 19 tokens of keys and values, not twice the cache; a window of 7 reads 3 + 7."""
    model = model_of("llama")
    mixed, none = (read_bytes(model, model.cache, PassSize(contexts=c)) for c in ((3, 16), ()))
    layer = model.cache.layers[0]
    each = 2 * layer.keys.shape[1] * layer.keys.shape[3] * 4
    assert mixed - none == len(model.cache.layers) * 19 * each
    windowed = model_of("qwen2 window")
    took = read_bytes(windowed, windowed.cache, PassSize(contexts=(3, 16))) - read_bytes(windowed, windowed.cache, PassSize())
    windows = [block.attention.sight.window for block in windowed.decoder()]
    assert 7 in windows
    layer = windowed.cache.layers[0]
    assert took == sum((3 + min(16, w or 16)) for w in windows) * 2 * layer.keys.shape[1] * layer.keys.shape[3] * 4
