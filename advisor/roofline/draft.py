"""The drafter of speculative decoding on one rank of the last stage: one decoder layer that proposes a token a pass.

Legend: `B` sequences, `K` drafted tokens, `D` hidden size of the target, `t` tensor-parallel degree.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.roofline import graph
from advisor.roofline.attention import Batch
from advisor.roofline.work import ACTIVATION_BYTES, Gemm, Stream, Work
from advisor.specs.formats import FORMATS
from advisor.specs.model import DenseFfn, GroupedAttention, Layer, ModelSpec, WeightFormats
from advisor.specs.plan import Plan
from advisor.specs.speculation import Speculation

# EAGLE-3 heads as they are trained (github.com/sgl-project/SpecForge, configs/*-eagle3.json, read 2026-11-27): a vocabulary of
# 32,000, heads of 128, 8 key-value heads unless the target has fewer, and a feed-forward block as wide as a dense target's own;
# those of mixtures of experts have 2.6 D (Kimi-K2.5) to 6 D (Qwen3-235B), for which 4 D stand.
EAGLE_VOCABULARY = 32_000
EAGLE_HEAD_DIM = 128
EAGLE_KV_HEADS = 8
EAGLE_WIDTH = 4
EAGLE_STATES = 3  # hidden states of three target layers are joined
MTP_STATES = 2  # the last hidden state and the embedding (DeepSeek-V3 report, arXiv 2412.19437, section 2.2)


def draft_layer(model: ModelSpec, speculation: Speculation) -> Layer | None:
    """The decoder layer that drafts: a copy of the last one (mtp), a dense one (eagle3), or none (ngram)."""
    if speculation.method == "ngram":
        return None
    if speculation.method == "mtp":
        return model.layers[-1]
    last = model.layers[-1]
    kv_heads = min(EAGLE_KV_HEADS, last.mixer.kv_heads) if isinstance(last.mixer, GroupedAttention) else EAGLE_KV_HEADS
    width = last.ffn.width if isinstance(last.ffn, DenseFfn) else EAGLE_WIDTH * model.hidden_size
    mixer = GroupedAttention(heads=model.hidden_size // EAGLE_HEAD_DIM, kv_heads=kv_heads, head_dim=EAGLE_HEAD_DIM)
    return Layer(mixer=mixer, ffn=DenseFfn(width=width))


def drafting(model: ModelSpec, speculation: Speculation) -> ModelSpec:
    """The model as its drafter is stored: an EAGLE-3 head is trained and shipped in 16 bits, whatever the target's format."""
    return replace(model, formats=WeightFormats()) if speculation.method == "eagle3" else model


def draft_step_work(model: ModelSpec, plan: Plan, speculation: Speculation, *, sequences: float, context: float) -> list[Work]:
    """(D3) The works of all K passes after one verify step of B sequences over `context` cached tokens.

    The first pass reads what the verify step left, K + 1 tokens a sequence; each of the others one token. Every pass ends in the
    vocabulary and a choice. Left out: rejection sampling, and the host time between passes.
    """
    layer = draft_layer(model, speculation)
    if layer is None:
        return []
    model = drafting(model, speculation)
    works = _joined(model, plan, speculation, sequences * speculation.verified)
    for tokens, passes in ((speculation.verified, 1), (1, speculation.drafts - 1)):
        if passes:
            works += graph.token_work(model, plan, [(layer, passes)], sequences * tokens)
            batch = Batch(decodes=sequences, context=context, queries=tokens)
            works += graph.sequence_work(model, plan, [(layer, passes)], batch)
    return works + _vocabulary(model, plan, speculation, sequences)


def draft_prefill_work(model: ModelSpec, plan: Plan, speculation: Speculation, *, new: float, past: float) -> list[Work]:
    """The drafter's layer over a prompt chunk of `new` tokens, so that its own cache is filled."""
    layer = draft_layer(model, speculation)
    if layer is None:
        return []
    model, batch = drafting(model, speculation), Batch(prefills=1, new=new, past=past)
    works = _joined(model, plan, speculation, new) + graph.token_work(model, plan, [(layer, 1)], new)
    return works + graph.sequence_work(model, plan, [(layer, 1)], batch)


def _joined(model: ModelSpec, plan: Plan, speculation: Speculation, tokens: float) -> list[Work]:
    """The states that a drafter reads, joined and projected to its width."""
    states = EAGLE_STATES if speculation.method == "eagle3" else MTP_STATES
    D = model.hidden_size
    return [
        Stream(name="draft_embedding", bytes_moved=2 * ACTIVATION_BYTES * tokens * D, kernels=1),
        Gemm(name="draft_join", m=tokens, n=D / plan.tp, k=states * D, weights="bf16"),
    ]


def _vocabulary(model: ModelSpec, plan: Plan, speculation: Speculation, sequences: float) -> list[Work]:
    """K choices: the target's own vocabulary (mtp) or the reduced one (eagle3)."""
    eagle = speculation.method == "eagle3"
    rows = EAGLE_VOCABULARY / plan.tp if eagle else graph.padded_vocabulary(model, plan.tp)
    logits = sequences * rows
    return [
        Gemm(name="draft_head", m=sequences, n=rows, k=model.hidden_size, weights=model.formats.head, count=speculation.drafts),
        Stream(name="draft_choice", bytes_moved=4 * logits, kernels=2, count=speculation.drafts),
    ]


def joined_bytes(model: ModelSpec, plan: Plan, speculation: Speculation) -> float:
    """Bytes of a drafter's joining projection and, for eagle3, its reduced vocabulary, on one rank."""
    joined = (EAGLE_STATES if speculation.method == "eagle3" else MTP_STATES) * model.hidden_size**2
    reduced = EAGLE_VOCABULARY * model.hidden_size if speculation.method == "eagle3" else 0
    return (joined + reduced) * FORMATS["bf16"].bytes_per_value / plan.tp
