"""The runner beside the roofline: weight bytes, FLOP and wire bytes of one rank, counted on both sides."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.roofline.attention import Batch  # noqa: E402
from advisor.roofline.graph import step_work  # noqa: E402
from advisor.roofline.work import Collective, Gemm, Work  # noqa: E402
from advisor.specs.model import ModelSpec  # noqa: E402
from advisor.specs.plan import Plan  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.transformer import Transformer  # noqa: E402
from runner.weights import initialise  # noqa: E402

BATCH, TOKENS = 2, 16
# Sizes that four ranks share without padding.
EVEN = {"vocab_size": 192, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 12, "moe_intermediate_size": 32}
COUNTED = ("llama", "llama tied, biased", "qwen3", "gemma", "phi", "qwen3 moe", "deepseek v2", "deepseek v3")


def grouped_flop(rows: Any, weights: Any, *_: Any, **__: Any) -> int:
    """2 R in out: each row meets one expert."""
    return int(2 * rows[0] * weights[1] * weights[2])


GROUPED = {torch.ops.aten._grouped_mm: grouped_flop}  # torch has no count of its own for grouped products


def spec_of(name: str) -> ModelSpec:
    return model_from_config({**CONFIGS[name], **EVEN}, None, name=name, source="test")


def rank(spec: ModelSpec, plan: Plan, number: int = 0) -> Transformer:
    mesh = Mesh.shard(plan, number)
    model = Transformer(spec, plan, mesh.coordinates, mesh, device="cpu", dtype=torch.bfloat16, max_batch=BATCH, max_context=TOKENS)
    initialise(model, spec, 0)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_weight_bytes_are_the_specs_parameters(name: str) -> None:
    """All parameters in 16 bits. The padding of the vocabulary comes on top; router corrections are counted in neither."""
    spec = model_from_config({**CONFIGS[name], "vocab_size": 192}, None, name=name, source="test")
    model = rank(spec, Plan())
    corrections = sum(4 * b.numel() for n, b in model.named_buffers() if n.endswith("correction"))
    assert model.weight_bytes - corrections == 2 * spec.params


@pytest.mark.parametrize("plan", [Plan(tp=2), Plan(pp=2), Plan(tp=2, pp=2)], ids=lambda p: p.label)
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma"])
def test_shards_add_up_to_the_model(name: str, plan: Plan) -> None:
    """Cut matrices are held once over all ranks; norms once a tp rank, and a tied head once more on the last stage."""
    spec = spec_of(name)
    held = sum(rank(spec, plan, r).weight_bytes for r in range(plan.world))
    norms = sum(2 * b.numel() for n, b in rank(spec, Plan()).named_buffers() if "norm" in n)
    tied = 2 * spec.vocab_size * spec.hidden_size if spec.tied_embeddings and plan.pp > 1 else 0
    assert held == 2 * spec.params + (plan.tp - 1) * norms + tied


def works(spec: ModelSpec, plan: Plan, phase: str, stage: int = 0) -> list[Work]:
    asked: Any = SimpleNamespace(model=spec, engine=SimpleNamespace(layer_split="last_spared"))
    batch = Batch(prefills=BATCH, new=TOKENS) if phase == "prefill" else Batch(decodes=BATCH, context=TOKENS)
    return step_work(asked, plan, stage=stage, batch=batch)


def step(model: Transformer, phase: str) -> None:
    first = model.mesh.is_first_stage
    if phase == "prefill":
        model.prefill(torch.zeros(BATCH, TOKENS, dtype=torch.int64) if first else model.states(BATCH, TOKENS).zero_())
    else:
        at = torch.full((BATCH,), TOKENS - 1)  # the token itself is the last of the context
        model.decode(torch.zeros(BATCH, dtype=torch.int64) if first else model.states(BATCH, 1).zero_(), at)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("plan", [Plan(), Plan(tp=2), Plan(tp=2, pp=2)], ids=lambda p: p.label)
@pytest.mark.parametrize("name", COUNTED)
def test_flop_are_what_torch_counts(name: str, plan: Plan, phase: str) -> None:
    """Every matrix product of the runner is a work of the graph, and no other.

    torch counts a causal prefill as the full square, T^2 pairs; the roofline counts the T (T + 1) / 2 that are not masked.
    """
    spec = spec_of(name)
    for stage in range(plan.pp):
        model = rank(spec, plan, stage * plan.tp)
        # torch has a count for the products of this kernel, none for its fused one on a CPU.
        with FlopCounterMode(display=False, custom_mapping=GROUPED) as counter, sdpa_kernel(SDPBackend.MATH):
            step(model, phase)
        expected = works(spec, plan, phase, stage)
        square = 2 * TOKENS / (TOKENS + 1) if phase == "prefill" else 1.0
        flop = sum(w.flop * (square if w.name == "attention" else 1.0) for w in expected if not isinstance(w, Collective))
        assert counter.get_total_flops() == pytest.approx(flop, rel=1e-9)


def test_products_are_the_works_one_by_one() -> None:
    """Op for op: the runner's matrix products in their order are the graph's GEMMs in theirs, in two layers."""
    spec = replace(spec_of("llama"), layers=spec_of("llama").layers[:2])
    plan = Plan(tp=2)
    gemms = [w for w in works(spec, plan, "decode") if isinstance(w, Gemm)]
    layer = [(w.m, w.n, w.k) for w in gemms if w.name != "head"]
    head = [(w.m, w.n, w.k) for w in gemms if w.name == "head"]
    seen: list[tuple[float, ...]] = []
    model = rank(spec, plan)
    for module in model.modules():
        if hasattr(module, "columns"):
            module.register_forward_hook(lambda m, x, _y: seen.append((x[0].numel() / m.columns, m.rows, m.columns)))
    step(model, "decode")
    assert seen == layer * 2 + head


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize(
    ("name", "plan"),
    [
        *((n, Plan(tp=2)) for n in ("llama", "gemma", "phi", "qwen3 moe", "deepseek v3")),
        ("qwen3 moe", Plan(tp=2, ep=2)),
        ("qwen3 moe", Plan(adp=2, ep=2)),
        ("llama", Plan(tp=2, pp=2)),
    ],
    ids=lambda x: x.label if isinstance(x, Plan) else x,
)
def test_wire_bytes_are_what_the_collectives_were_given(name: str, plan: Plan, phase: str) -> None:
    """The same operations with the same payloads. The runner hands one state to the next stage, whole; engines hand the stream
    and the branch apart, each tp rank its part: two states over tp in the roofline. Attention groups of one rank are its ep axis.
    """
    spec = spec_of(name)
    for stage in range(plan.pp):
        model = rank(spec, plan, stage * plan.stage_gpus)
        step(model, phase)
        if not model.mesh.is_last_stage:
            model.mesh.send_on(model.states(BATCH, TOKENS if phase == "prefill" else 1))
        got = [(c.op, float(c.payload_bytes)) for c in model.mesh.calls]
        expected = []
        for work in works(spec, plan, phase, stage):
            if isinstance(work, Collective):
                share = plan.tp / 2 if work.op == "p2p" else 1.0
                expected += [(work.op, work.payload_bytes * share)] * int(work.count)
        assert sorted(got) == sorted(expected)
