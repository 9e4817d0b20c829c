"""Memory of a rank: weights, cache, activations, and what the engine's rule leaves for the KV cache.

Symbols: `D` hidden size, `V` vocabulary, `t` tensor-parallel degree, `T` token budget of a step, `B` sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from advisor.roofline import draft
from advisor.roofline.attention import local_kv_heads, projection_work
from advisor.roofline.graph import VOCABULARY_PADDING, padded_vocabulary, stage_kinds, stage_layers
from advisor.roofline.work import Gemm
from advisor.specs.engine import Engine
from advisor.specs.formats import FORMATS
from advisor.specs.model import DenseFfn, GroupedAttention, LatentAttention, Layer, Mixer, ModelSpec, MoeFfn, count_equal
from advisor.specs.plan import Plan, Settings
from advisor.specs.prediction import RankMemory
from advisor.specs.problem import Problem

GIB = 2.0**30
LONGEST_SHARE = 0.25  # of the cache is the most that one request may take: three others of its length run beside it
STATE_BYTES = 4  # recurrent states are kept in fp32
STATIC_META_BYTES = 0.5 * GIB  # SGLang server_args: 512 MiB of metadata
# SGLang memory_hook.py: for each sequence of the largest graph, and as much again with attention-DP; with latent attention; the
# least on GPUs above a size.
STATIC_GRAPH_BYTES = 2 * 2.0**20
STATIC_ADP_GRAPH_BYTES = 3 * 2.0**20
STATIC_LATENT_BYTES = 1.5 * GIB
STATIC_LARGE_BYTES, STATIC_LEAST_BYTES = 60 * GIB, 10 * GIB


def mixer_weight_bytes(mixer: Mixer, hidden: int, weights: str, tp: int) -> float:
    """Bytes of one rank's part: the matrices that its step multiplies with."""
    return sum(work.weight_bytes for work in projection_work(mixer, hidden, weights, tp, 1) if isinstance(work, Gemm))


def layer_weight_bytes(layer: Layer, model: ModelSpec, plan: Plan) -> float:
    """Bytes of one layer on one rank."""
    D, formats = model.hidden_size, model.formats
    total = 2.0 * layer.norms * D + FORMATS[formats.ffn].bytes_per_value * layer.extra_params / plan.tp
    if layer.mixer is not None:
        total += mixer_weight_bytes(layer.mixer, D, formats.attention, plan.tp)
    for ffn in (layer.ffn, layer.parallel_ffn):
        if isinstance(ffn, MoeFfn):
            routed = ffn.experts * ffn.expert_params(D) * FORMATS[formats.experts].bytes_per_value
            router = 2.0 * D * ffn.experts
            shared = (ffn.shared_params(D) - D * ffn.experts) * FORMATS[formats.ffn].bytes_per_value
            total += routed / (plan.ep * plan.expert_tp) + router + shared / plan.tp
        elif isinstance(ffn, DenseFfn):
            total += ffn.params(D) * FORMATS[formats.ffn].bytes_per_value / plan.tp
    return total


def stage_weight_bytes(model: ModelSpec, plan: Plan, engine: Engine, stage: int) -> float:
    """Bytes of all weights on one rank of a stage: its layers, and the vocabulary on the first and last stage."""
    layers = count_equal(stage_layers(model, plan, engine, stage))
    total = sum(count * layer_weight_bytes(layer, model, plan) for layer, count in layers)
    table = padded_vocabulary(model, plan.tp) * model.hidden_size
    if stage == 0:
        total += table * FORMATS[model.formats.embedding].bytes_per_value
        total += (2.0 * model.position_params) + 2.0 * model.other_params / plan.tp
    if stage == plan.pp - 1 and not (model.tied_embeddings and stage == 0):
        total += table * FORMATS[model.formats.head].bytes_per_value
    return total


def sequence_cache_bytes(model: ModelSpec, plan: Plan, engine: Engine, stage: int, tokens: float, *, in_flight: float) -> float:
    """Bytes one sequence of `tokens` holds on one rank of a stage.

    A window keeps its tokens plus those `in_flight` in a step and a page; a recurrent state does not grow.
    """
    layers = count_equal(stage_layers(model, plan, engine, stage))
    return sum(count * layer_cache_bytes(layer, model, plan, engine, tokens, in_flight=in_flight) for layer, count in layers)


def layer_cache_bytes(layer: Layer, model: ModelSpec, plan: Plan, engine: Engine, tokens: float, *, in_flight: float) -> float:
    """Bytes one sequence of `tokens` holds on one rank in one layer."""
    mixer, value_bytes = layer.mixer, FORMATS[model.kv_format].bytes_per_value
    if isinstance(mixer, GroupedAttention):
        if mixer.shares_kv:
            return 0.0
        kept = _window_tokens(mixer.window_tokens, tokens, in_flight, engine) if mixer.window_tokens else tokens
        values = local_kv_heads(mixer.kv_heads, plan.tp) * (mixer.head_dim + mixer.value_dim) + mixer.index_head_dim
        return kept * values * value_bytes
    if isinstance(mixer, LatentAttention):
        latents = tokens * mixer.cache_values_per_token()
        if mixer.window_tokens:
            latents += _window_tokens(mixer.window_tokens, tokens, in_flight, engine) * (mixer.kv_rank + mixer.rope_dim)
        return latents * value_bytes
    return mixer.state_values * STATE_BYTES / plan.tp if mixer is not None else 0.0


def drafter_bytes(problem: Problem, plan: Plan, tokens: float, *, in_flight: float) -> tuple[float, float]:
    """(weights, cache of one sequence of `tokens`) that the drafter adds to a rank of the last stage; its embedding and, for mtp,
    its vocabulary are the target's own."""
    model, speculation = problem.model, problem.speculation
    layer = draft.draft_layer(model, speculation) if speculation else None
    if speculation is None or layer is None:
        return 0.0, 0.0
    weights = layer_weight_bytes(layer, draft.drafting(model, speculation), plan) + draft.joined_bytes(model, plan, speculation)
    return weights, layer_cache_bytes(layer, model, plan, problem.engine, tokens, in_flight=in_flight)


def _window_tokens(window: int, tokens: float, in_flight: float, engine: Engine) -> float:
    """Tokens that a window keeps of a sequence: its own, those in flight in a step, and a page."""
    return min(tokens, window - 1 + in_flight + engine.page_tokens)


def activation_bytes(problem: Problem, plan: Plan, settings: Settings) -> float:
    """Peak of the profile run: copies * B * V * 4 + 2 T (inner + copies * D), `inner` the widest intermediate row of a rank."""
    model, rule = problem.model, problem.engine.memory
    D, T = model.hidden_size, settings.token_budget
    inner = 0.0
    for layer in set(model.layers):
        if isinstance(layer.ffn, MoeFfn):
            routed = layer.ffn.top_k * (2 * layer.ffn.expert_width / plan.expert_tp + D) / max(1, plan.ep)
            inner = max(inner, routed * plan.adp + 2 * layer.ffn.shared_width / plan.tp)
        elif layer.ffn is not None:
            inner = max(inner, 3 * layer.ffn.width / plan.tp)
    vocabulary = -(-model.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING
    logits = rule.logit_copies * min(settings.max_sequences, T) * vocabulary * 4
    return logits + 2 * T * (inner + rule.hidden_copies * D)


def default_settings(problem: Problem, plan: Plan) -> Settings:
    """The engine's own defaults for this plan: batch ceiling, token budget, memory fraction, and the workload's context."""
    engine, device = problem.engine, problem.cluster.device
    context = needed_context(problem)
    sequences, budget, small = engine.max_sequences, engine.token_budget, engine.small_gpu
    if small is not None and (device.memory_bytes < small.below_bytes or device.name.startswith(small.names)):
        sequences, budget = small.max_sequences, small.token_budget
    fraction = engine.memory.fraction
    if engine.memory.of == "static":
        fraction = fraction or static_fraction(problem, plan, budget)
        budget = max(1, budget // plan.adp)  # SGLang divides its chunk by the attention-DP groups (server_args)
    return Settings(max_sequences=sequences, token_budget=budget, max_context_tokens=context, memory_fraction=fraction)


def static_fraction(problem: Problem, plan: Plan, chunk_tokens: int) -> float:
    """The share of a GPU's memory that SGLang gives to weights and cache, (M2): f = 1 - R / total, at least 0.3.

    R = 0.5 GiB + r C + (tp adp pp) / 8 GiB + g G + 1.5 GiB for latent attention's prefill graphs, at least 10 GiB on GPUs of more
    than 60 GiB: `C` tokens of a step of all attention-DP groups together, which its experts see at once, `r` bytes for each of
    them; `G` sequences of the largest decode graph with g = 2 MiB, 5 MiB with attention-DP. Source: SGLang 0.5.23,
    arg_groups/memory_hook.py. Left out: 8 MiB for each prefill graph of other models, speculation, all-to-all buffers.
    """
    engine, total = problem.engine, problem.cluster.device.memory_bytes
    reserved = STATIC_META_BYTES + engine.memory.reserve_bytes_per_token * chunk_tokens + plan.replica_gpus / 8 * GIB
    reserved += (STATIC_GRAPH_BYTES + (STATIC_ADP_GRAPH_BYTES if plan.adp > 1 else 0.0)) * engine.graphs_up_to
    reserved += STATIC_LATENT_BYTES if problem.model.is_mla else 0.0
    if total > STATIC_LARGE_BYTES:
        reserved = max(reserved, STATIC_LEAST_BYTES)
    return max(0.3, round(1 - reserved / total, 3))


def needed_context(problem: Problem) -> int:
    """Tokens of the longest request that has to fit: what the workload asks for, else its mean request in whole pages."""
    workload, page = problem.workload, problem.engine.page_tokens
    if workload.max_context_tokens:
        return workload.max_context_tokens
    pages = math.ceil(workload.context_tokens / page) * page
    return max(min(pages, problem.model.max_context_tokens), math.ceil(workload.context_tokens))


def largest_context(problem: Problem, plan: Plan, memory: RankMemory) -> int:
    """The longest request that costs the others little: the model's own limit, or a power of two that takes at most a quarter of
    an instance's cache; at least what is needed. What the workload asks for is taken as it is."""
    needed = needed_context(problem)
    if problem.workload.max_context_tokens:
        return needed
    share = memory.kv_tokens // plan.adp * LONGEST_SHARE
    limit = problem.model.max_context_tokens
    return max(needed, limit if share >= limit else 2 ** int(math.log2(max(share, 1))))


def context_shortfall(problem: Problem, plan: Plan, memory: RankMemory) -> str:
    """Why the cache cannot hold the longest request that was asked for; "" where it can."""
    held, asked = memory.kv_tokens // plan.adp, problem.workload.max_context_tokens
    return f"its cache holds {held:,} tokens and one request may have {asked:,}" if asked > held else ""


def rank_memory(problem: Problem, plan: Plan) -> RankMemory:
    """The memory of the rank that limits the cache, under the engine's rule; `shortfall_bytes` > 0 when one sequence does not fit.

    The stage whose cache holds the fewest sequences binds; on mixed boxes so does the smallest device.
    """
    settings = plan.settings or default_settings(problem, plan)
    stages: Sequence[int] = range(plan.pp)
    node = problem.cluster.node
    if plan.pp > 2 and node.is_uniform and not node.free_bytes:  # equal stages need equally much
        layers = [count_equal(stage_layers(problem.model, plan, problem.engine, stage)) for stage in stages]
        stages = [stage for stage, _ in stage_kinds(layers)]
    found = [_stage_memory(problem, plan, settings, stage) for stage in stages]
    return min(found, key=lambda memory: (-memory.shortfall_bytes, memory.kv_tokens))


def _stage_memory(problem: Problem, plan: Plan, settings: Settings, stage: int) -> RankMemory:
    model, engine, rule = problem.model, problem.engine, problem.engine.memory
    total, usable = _device_bytes(problem, plan, stage)
    tokens, in_flight = max(1.0, problem.workload.context_tokens), settings.token_budget / settings.max_sequences
    drafter, drafted = drafter_bytes(problem, plan, tokens, in_flight=in_flight) if stage == plan.pp - 1 else (0.0, 0.0)
    weights = stage_weight_bytes(model, plan, engine, stage) + drafter
    activations = activation_bytes(problem, plan, settings)
    other = rule.context_bytes + rule.graph_bytes + (rule.collective_bytes if plan.replica_gpus > 1 else 0.0)
    if rule.of == "total":
        left = min(total * settings.memory_fraction, usable) - weights - activations - other
    elif rule.of == "static":
        left = min(total * settings.memory_fraction, usable - activations - other) - weights
    else:
        left = (usable - weights - activations - other) * settings.memory_fraction
    each = sequence_cache_bytes(model, plan, engine, stage, tokens, in_flight=in_flight) + drafted
    kv = max(0.0, left)
    # A stage without any cache leaves the batch ceiling as the only limit.
    capacity = kv / each * tokens if each > 0 else settings.max_sequences * tokens
    pages = math.floor(capacity / engine.page_tokens) * engine.page_tokens
    return RankMemory(
        device_bytes=total,
        weights_bytes=weights,
        activations_bytes=activations,
        other_bytes=other,
        kv_bytes=kv,
        reserved_bytes=max(0.0, total - weights - activations - other - kv),
        kv_bytes_per_token=each / tokens,
        kv_tokens=max(0, pages) * plan.adp,
        shortfall_bytes=max(0.0, each - left),
    )


def _device_bytes(problem: Problem, plan: Plan, stage: int) -> tuple[float, float]:
    """Total and usable memory of the smallest device among the ranks of a stage."""
    node, size = problem.cluster.node, len(problem.cluster.node.devices)
    if node.is_uniform and not node.free_bytes:  # whichever GPUs the ranks stand on
        return node.devices[0].memory_bytes, node.devices[0].memory_bytes
    ranks = [r for r in range(plan.world) if plan.coordinates(r).stage == stage]
    gpus = [plan.gpu(rank) % size for rank in ranks]
    return min((node.devices[gpu].memory_bytes, node.usable_bytes(gpu)) for gpu in gpus)
