"""One step of one rank as a list of works: layer by layer, then the vocabulary. Equal layers are counted once and multiplied."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.roofline.attention import Batch, attention_work, projection_work
from advisor.roofline.ffn import dense_work, moe_work
from advisor.roofline.work import ACTIVATION_BYTES, Collective, Gemm, Stream, Work, ranks_reached
from advisor.specs.engine import Engine
from advisor.specs.formats import FORMATS
from advisor.specs.model import Layer, ModelSpec, MoeFfn, count_equal
from advisor.specs.plan import Plan, layer_bounds
from advisor.specs.problem import Problem

# Ranks of a board of eight, beyond which experts get their tokens by all-to-all: TensorRT-LLM turns to it where a group has more
# ranks than a token draws experts (8), recipes of SGLang and vLLM name DeepEP for several nodes.
WIDE_EP = 8
VOCABULARY_PADDING = 64  # vLLM and SGLang pad the vocabulary to a multiple of 64 before the split


def stage_layers(model: ModelSpec, plan: Plan, engine: Engine, stage: int) -> tuple[Layer, ...]:
    """The layers of one pipeline stage."""
    first, last = layer_bounds(len(model.layers), plan, engine.layer_split)[stage]
    return model.layers[first:last]


def padded_vocabulary(model: ModelSpec, tp: int) -> int:
    """Vocabulary rows of one rank: padded to 64, then split."""
    padded = -(-model.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING
    return -(-padded // tp)


def token_work(model: ModelSpec, plan: Plan, layers: list[tuple[Layer, int]], tokens: float) -> list[Work]:
    """Everything that depends only on the number of new tokens: projections, feed-forward, norms, collectives."""
    D, T = model.hidden_size, tokens
    row_bytes = ACTIVATION_BYTES * T * D
    works: list[Work] = []
    for layer, count in layers:
        if layer.mixer is not None:
            works += projection_work(layer.mixer, D, model.formats.attention, plan.tp, T, count=count)
            if not layer.parallel_residual:
                works += _reduce("attention_reduce", plan.tp, row_bytes, count)
        if layer.ffn is not None:
            works += _ffn(layer, model, plan, T, count)
        # A fused add-and-norm reads the branch and the residual and writes both.
        works.append(Stream(name="norm", bytes_moved=4 * row_bytes * layer.norms / 2, kernels=layer.norms, count=count))
    return works


def _ffn(layer: Layer, model: ModelSpec, plan: Plan, tokens: float, count: int) -> list[Work]:
    D, row_bytes = model.hidden_size, ACTIVATION_BYTES * tokens * model.hidden_size
    works: list[Work] = []
    if layer.parallel_ffn is not None:
        works += dense_work(layer.parallel_ffn, D, model.formats.ffn, plan.tp, tokens, count=count)
    if isinstance(layer.ffn, MoeFfn):
        works += expert_work(model, plan, [(layer, count)], tokens)
    elif layer.ffn is not None:
        works += dense_work(layer.ffn, D, model.formats.ffn, plan.tp, tokens, count=count)
    return works + _reduce("ffn_reduce", plan.tp, row_bytes, count)


def expert_work(model: ModelSpec, plan: Plan, layers: list[tuple[Layer, int]], tokens: float) -> list[Work]:
    """The mixtures of experts among `layers`, with the exchange of tokens that attention-DP needs; `tokens` a rank on average."""
    row_bytes = ACTIVATION_BYTES * tokens * model.hidden_size
    works: list[Work] = []
    for layer, count in layers:
        if isinstance(layer.ffn, MoeFfn):
            formats = model.formats
            works += moe_work(layer.ffn, model.hidden_size, formats.experts, formats.ffn, plan, tokens, count=count)
            works += _exchange(layer.ffn, formats.experts, plan, row_bytes, count)
    return works


def _exchange(ffn: MoeFfn, weights: str, plan: Plan, row_bytes: float, count: int) -> list[Work]:
    """What attention-DP ranks send each other around the experts.

    Within a board the tokens of all ranks are gathered and their sums scattered back. Wider groups send a token once to each rank
    that has an expert of it, in the experts' own format, and get a sum in 16 bits back (G2). Left out: the table of who sends what.
    """
    if plan.adp == 1:
        return []
    if plan.ep <= WIDE_EP:
        everyone = row_bytes * plan.adp
        return [
            Collective(name="dispatch", op="all_gather", axis="adp", payload_bytes=row_bytes, count=count),
            Collective(name="combine", op="reduce_scatter", axis="adp", payload_bytes=everyone, count=count),
        ]
    back = row_bytes * ranks_reached(plan.ep, ffn.top_k)
    there = back * min(1.0, FORMATS[FORMATS[weights].compute].bytes_per_value / ACTIVATION_BYTES)
    return [
        Collective(name="dispatch", op="all_to_all", axis="ep", payload_bytes=there, count=count),
        Collective(name="combine", op="all_to_all", axis="ep", payload_bytes=back, count=count),
    ]


def _reduce(name: str, tp: int, payload_bytes: float, count: int) -> list[Work]:
    if tp == 1:
        return []
    return [Collective(name=name, op="all_reduce", axis="tp", payload_bytes=payload_bytes, count=count)]


def sequence_work(model: ModelSpec, plan: Plan, layers: list[tuple[Layer, int]], batch: Batch) -> list[Work]:
    """Attention over the caches (or recurrent states) of the step's sequences."""
    works: list[Work] = []
    for layer, count in layers:
        if layer.mixer is not None:
            works += attention_work(layer.mixer, plan.tp, batch, model.kv_format, count=count)
    return works


def embedding_work(model: ModelSpec, plan: Plan, tokens: float) -> list[Work]:
    """The table lookup of the first stage and its all-reduce."""
    row_bytes = ACTIVATION_BYTES * tokens * model.hidden_size
    return [Stream(name="embedding", bytes_moved=2 * row_bytes, kernels=1), *_reduce("embedding_reduce", plan.tp, row_bytes, 1)]


def head_work(model: ModelSpec, plan: Plan, sequences: float) -> list[Work]:
    """The output projection of the last stage for the tokens that need logits, gathered and sampled."""
    rows = padded_vocabulary(model, plan.tp)
    works: list[Work] = [Gemm(name="head", m=sequences, n=rows, k=model.hidden_size, weights=model.formats.head)]
    if plan.tp > 1:
        payload = ACTIVATION_BYTES * sequences * rows
        works.append(Collective(name="logits_gather", op="all_gather", axis="tp", payload_bytes=payload))
    # Sampling reads the logits in fp32 a few times: penalties, softmax, arg max.
    works.append(Stream(name="sampling", bytes_moved=3 * 4 * sequences * model.vocab_size, kernels=4))
    return works


def transfer_work(model: ModelSpec, plan: Plan, tokens: float) -> list[Work]:
    """Hidden state and residual handed to the next stage; each tp rank sends its share, the receiver gathers."""
    payload = 2 * ACTIVATION_BYTES * tokens * model.hidden_size / plan.tp
    return [Collective(name="stage_transfer", op="p2p", axis="pp", payload_bytes=payload)]


def step_work(problem: Problem, plan: Plan, *, stage: int, batch: Batch) -> list[Work]:
    """All works of one rank of `stage` in a step that carries `batch` (of one attention-DP rank)."""
    model = problem.model
    layers = count_equal(stage_layers(model, plan, problem.engine, stage))
    works: list[Work] = embedding_work(model, plan, batch.tokens) if stage == 0 else []
    works += token_work(model, plan, layers, batch.tokens)
    works += sequence_work(model, plan, layers, batch)
    if stage == plan.pp - 1:
        return works + head_work(model, plan, batch.logits)
    return works + transfer_work(model, plan, batch.tokens)


def stage_kinds(stages: Sequence[Sequence[tuple[Layer, int]]]) -> list[tuple[int, int]]:
    """(a stage, how many are like it): equal layers, and the ends apart, which carry embedding and vocabulary."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for stage, layers in enumerate(stages):
        alike.setdefault((stage == 0, stage == len(stages) - 1, *layers), []).append(stage)
    return [(found[0], len(found)) for found in alike.values()]
