"""What the model, the engine and the machine allow: why a plan cannot run, apart from memory, and what to use instead.

An engine's rules are fields of its profile; this is the one place that reads them.
"""

from __future__ import annotations

from advisor.specs.cluster import Cluster
from advisor.specs.engine import Engine
from advisor.specs.formats import NumberFormat
from advisor.specs.model import DenseFfn, GroupedAttention, LatentAttention, ModelSpec, MoeFfn, RecurrentMixer, count_equal
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem


def refusal(problem: Problem, plan: Plan) -> str:
    """Why this plan cannot run, apart from memory, and what to use instead; empty when it can."""
    model, engine, cluster = problem.model, problem.engine, problem.cluster
    used = {"tp": plan.tp, "pp": plan.pp, "dp": plan.dp, "ep": plan.ep, "adp": plan.adp}
    for axis, degree in used.items():
        if degree > 1 and axis not in engine.axes and axis != "dp":
            return f"{engine.name} {engine.version} has no {axis}"
    if plan.world > cluster.gpus:
        return f"{plan.label} uses {plan.world} GPUs and the machine has {cluster.gpus}"
    return (
        tensor_refusal(model, plan.tp)
        or _stage_refusal(model, plan)
        or _expert_refusal(engine, model, plan)
        or _node_refusal(cluster, plan)
    )


def tensor_refusal(model: ModelSpec, tp: int) -> str:
    """Why `tp` ranks cannot split this model's heads and widths."""
    if tp == 1:
        return ""
    for layer, _ in count_equal(model.layers):
        mixer, ffn = layer.mixer, layer.ffn
        if isinstance(mixer, GroupedAttention | LatentAttention | RecurrentMixer) and mixer.heads % tp:
            kind = "recurrent" if isinstance(mixer, RecurrentMixer) else "query"
            return f"tp={tp} cannot split {model.name}: {mixer.heads} {kind} heads do not divide by {tp}; use {_divisors(model)}"
        if isinstance(mixer, GroupedAttention) and mixer.kv_heads % tp and tp % mixer.kv_heads:
            return (
                f"tp={tp} cannot split {model.name}: {mixer.kv_heads} key-value heads neither divide by {tp} nor divide it; "
                f"use {_divisors(model)}"
            )
        if isinstance(ffn, DenseFfn) and ffn.width % tp:
            return f"tp={tp} cannot split {model.name}: its feed-forward width {ffn.width} does not divide by {tp}"
    return ""


def _divisors(model: ModelSpec) -> str:
    """The tensor degrees up to 64 that the heads allow, in words."""
    mixers = [layer.mixer for layer, _ in count_equal(model.layers) if layer.mixer is not None]
    fine = [
        n
        for n in range(1, 65)
        if all(m.heads % n == 0 for m in mixers)
        and all(m.kv_heads % n == 0 or n % m.kv_heads == 0 for m in mixers if isinstance(m, GroupedAttention))
    ]
    return ", ".join(map(str, fine[:-1])) + (" or " if len(fine) > 1 else "") + str(fine[-1])


def _stage_refusal(model: ModelSpec, plan: Plan) -> str:
    if plan.pp > len(model.layers):
        return f"pp={plan.pp} has more stages than the {len(model.layers)} layers of {model.name}"
    if plan.layer_split and (sum(plan.layer_split) != len(model.layers) or min(plan.layer_split) < 1):
        return f"the stages hold {sum(plan.layer_split)} layers and {model.name} has {len(model.layers)}"
    return ""


def expert_degrees(engine: Engine, model: ModelSpec, *, tp: int, adp: int) -> list[int]:
    """Expert degrees of a stage of tp * adp ranks: one or all, or any divisor that divides the experts, as the engine has it."""
    ranks = tp * adp
    if not model.is_moe or ranks == 1:
        return [1]
    if engine.expert_degrees == "one_or_all":
        return [1, ranks]
    routed = experts(model)
    return [n for n in range(1, ranks + 1) if ranks % n == 0 and routed % n == 0]


def _expert_refusal(engine: Engine, model: ModelSpec, plan: Plan) -> str:
    if plan.ep > 1 and not model.is_moe:
        return f"ep={plan.ep} needs experts and {model.name} is dense; leave ep out"
    if plan.adp > 1 and not (model.is_moe or model.is_mla):
        return f"adp={plan.adp} helps latent attention or experts and {model.name} has neither; use dp={plan.adp}"
    if plan.adp > 1 and engine.attention_dp == "all_ranks" and plan.tp > 1:
        return f"{engine.name} has attention-DP on all ranks or none; use tp=1,adp={plan.adp * plan.tp}"
    degrees = expert_degrees(engine, model, tp=plan.tp, adp=plan.adp)
    spread = plan.adp > 1 and plan.ep == plan.stage_gpus  # over all ranks: engines copy popular experts to fill them
    if plan.ep not in degrees and not spread:
        return f"ep={plan.ep} is not a degree of {engine.name} on {plan.tp * plan.adp} ranks; use {' or '.join(map(str, degrees))}"
    width = _expert_width(model)
    if width and width % plan.expert_tp:
        return f"experts of width {width} do not divide by {plan.expert_tp}; use a larger ep"
    return ""


def block_refusal(problem: Problem, plan: Plan) -> str:
    """Why most kernels refuse the shard: scale blocks have to lie whole in it, (width / ways) % block == 0.

    vLLM issues 54178 and 52997. Some engine versions pad instead, so a plan that a user names is estimated all the same.
    """
    model, strict = problem.model, problem.engine.whole_blocks
    parts: list[tuple[int, int, NumberFormat, str]] = []
    for layer, _ in count_equal(model.layers):
        if isinstance(layer.ffn, DenseFfn):
            parts.append((layer.ffn.width, plan.tp, model.formats.of("ffn"), "tp"))
        if isinstance(layer.ffn, MoeFfn):
            parts.append((layer.ffn.expert_width, plan.expert_tp, model.formats.of("experts"), "ep"))
    for width, ways, form, axis in parts:
        if ways > 1 and form.name in strict and (width % ways or (width // ways) % form.block):
            instead = "a smaller tp" if axis == "tp" else "a smaller tp or expert parallelism"
            return f"{width} / {ways} = {width / ways:g} cuts {form.name} blocks of {form.block}; use {instead}"
    return ""


def _node_refusal(cluster: Cluster, plan: Plan) -> str:
    node = len(cluster.node.devices)
    if cluster.nodes > 1 and plan.stage_gpus > 1 and node % plan.stage_gpus and plan.stage_gpus % node:
        return f"groups of {plan.stage_gpus} GPUs would straddle nodes of {node}"
    return ""


def experts(model: ModelSpec) -> int:
    """Routed experts of the layer that has fewest; 0 in a dense model."""
    return min((x.ffn.experts for x, _ in count_equal(model.layers) if isinstance(x.ffn, MoeFfn)), default=0)


def _expert_width(model: ModelSpec) -> int:
    return min((x.ffn.expert_width for x, _ in count_equal(model.layers) if isinstance(x.ffn, MoeFfn)), default=0)
