"""Which plans can run: every degree that the model, the engine and the machine allow, and why the others fell.

Memory and legality belong to a replica, so both are looked at once for each replica shape; the number of replicas multiplies
only what is left. The cost of a search grows with the distinct replicas, not with the GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from advisor.roofline.memory import rank_memory
from advisor.specs.cluster import Cluster
from advisor.specs.engine import Engine
from advisor.specs.formats import NumberFormat
from advisor.specs.model import DenseFfn, GroupedAttention, LatentAttention, ModelSpec, MoeFfn, RecurrentMixer, count_equal
from advisor.specs.plan import Plan
from advisor.specs.prediction import RankMemory, Rejected
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload
from advisor.units import show_bytes

SMALL = 8  # up to so many GPUs every legal degree is looked at; beyond, the ones that differ in kind
# On large machines: pipelines deeper than the fourth depth that fits add stages, and with them only waiting.
ENOUGH_DEPTHS = 4

# Formats whose kernels refuse a shard that cuts a scale block (vLLM, SGLang: "input size is not aligned"); llama.cpp and the
# mxfp4 kernels pad instead.
_STRICT_BLOCKS = ("fp8-block", "int4", "nvfp4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The plans that can run, and the replica shapes that cannot, each with its reason."""

    plans: tuple[Plan, ...]
    rejected: tuple[Rejected, ...]


def legal_plans(problem: Problem) -> Space:
    """Every plan on 1..N GPUs worth predicting. Tensor parallelism leaves a node only where nothing else fits."""
    space = _space(problem, spanning=False)
    if space.plans or problem.cluster.nodes == 1:
        return space
    wide = _space(problem, spanning=True)
    return Space(plans=wide.plans, rejected=(*space.rejected, *wide.rejected))


def _space(problem: Problem, *, spanning: bool) -> Space:
    plans: list[Plan] = []
    rejected: list[Rejected] = []
    fitting: list[Plan] = []
    depths: dict[tuple[int, int, int], int] = {}
    same = problem.cluster.node.is_uniform and not any(free is not None for free in problem.cluster.node.free_bytes)
    for replica in replicas(problem, spanning=spanning):
        stage = (replica.tp, replica.adp, replica.ep)
        if problem.cluster.gpus > 2 * SMALL and depths.get(stage, 0) >= ENOUGH_DEPTHS:
            continue
        reason = refusal(problem, replica) or block_refusal(problem.model, replica)
        if reason:
            rejected.append(Rejected(plan=replica, reason=reason))
            continue
        memory = rank_memory(problem, replica if same else placed(problem, replica))
        if memory.shortfall_bytes > 0:
            rejected.append(Rejected(plan=replica, reason=needs(memory), short_bytes=memory.shortfall_bytes))
        else:
            fitting.append(replica)
            depths[stage] = depths.get(stage, 0) + 1
    for replica in fitting:
        counts = replica_counts(problem.workload, problem.cluster.gpus, replica.replica_gpus)
        found = [placed(problem, replace(replica, dp=dp)) for dp in counts]
        # In a box of different GPUs one replica may fit on the largest and a second one nowhere.
        plans += found if same else [plan for plan in found if rank_memory(problem, plan).shortfall_bytes <= 0]
    return Space(plans=tuple(plans), rejected=tuple(_distinct(rejected)))


def needs(memory: RankMemory) -> str:
    """A shortfall in words: `needs 92 GiB of 80 GiB`."""
    return f"needs {show_bytes(memory.device_bytes + memory.shortfall_bytes)} of {show_bytes(memory.device_bytes)}"


def replicas(problem: Problem, *, spanning: bool) -> Iterator[Plan]:
    """Candidate replica shapes: tp, then attention-DP, pp and expert degrees. Illegal ones are among them, to be told why."""
    cluster, model, engine = problem.cluster, problem.model, problem.engine
    gpus, node = cluster.gpus, len(cluster.node.devices)
    tensor = [n for n in range(2, gpus + 1) if n > node and n % node == 0] if spanning else list(range(1, min(node, gpus) + 1))
    for tp in tensor:
        if tp > 1 and ("tp" not in engine.axes or tensor_refusal(model, tp)):
            yield Plan(tp=tp)
            continue
        for adp in _attention_degrees(problem, tp):
            for pp in _pipeline_degrees(problem, tp * adp):
                for ep in expert_degrees(engine.name, model, tp=tp, adp=adp):
                    if adp > 1 and model.is_moe and tp * adp > SMALL and ep < tp * adp:
                        continue  # wide attention-DP groups exist to spread the experts
                    yield Plan(tp=tp, pp=pp, ep=ep, adp=adp)


def _attention_degrees(problem: Problem, tp: int) -> list[int]:
    """Attention-DP groups: for latent attention or experts, where the engine has the axis."""
    model, engine, cluster = problem.model, problem.engine, problem.cluster
    most = cluster.gpus // tp
    if "adp" not in engine.axes or not (model.is_mla or model.is_moe) or most < 2:
        return [1]
    if engine.name == "trtllm" and tp > 1:
        return [1]  # its attention DP is all or nothing: every rank of the group has its own sequences
    most = min(most, _experts(model) or most)
    if cluster.gpus <= SMALL:
        return list(range(1, most + 1))
    node = len(cluster.node.devices)
    return [n for n in range(1, most + 1) if n & (n - 1) == 0 or tp * n == node]


def _pipeline_degrees(problem: Problem, stage_gpus: int) -> list[int]:
    most = min(problem.cluster.gpus // stage_gpus, len(problem.model.layers))
    if "pp" not in problem.engine.axes or most < 2:
        return [1]
    if problem.cluster.gpus <= 2 * SMALL:
        return list(range(1, most + 1))
    return [n for n in range(1, most + 1) if n <= 4 or _round(n) or n == most]


def _round(n: int) -> bool:
    """Powers of two, and three times one: what large deployments are built of."""
    while n % 2 == 0:
        n //= 2
    return n in (1, 3)


def expert_degrees(engine: str, model: ModelSpec, *, tp: int, adp: int) -> list[int]:
    """Expert degrees of a stage of tp * adp ranks: vLLM has all or nothing, the others any divisor that divides the experts."""
    ranks = tp * adp
    if not model.is_moe or ranks == 1:
        return [1]
    if engine == "vllm":
        return [1, ranks]
    experts = _experts(model)
    return [n for n in range(1, ranks + 1) if ranks % n == 0 and experts % n == 0]


def replica_counts(workload: Workload, gpus: int, replica_gpus: int) -> list[int]:
    """How many replicas are worth a prediction.

    More replicas than requests in flight stand idle. Where the load is as much as fits, or all there is, each further replica
    adds the same again and all of them together are the answer; on small machines every number is shown all the same.
    """
    most = gpus // replica_gpus
    if workload.mode == "single_stream":
        return [1]
    if workload.mode in ("closed_loop", "static_batch"):
        most = max(1, min(most, workload.users))
    if gpus <= SMALL:
        return list(range(1, most + 1))
    if workload.mode in ("capacity", "offline"):
        return [most]
    return sorted({max(1, most >> shift) for shift in range(0, most.bit_length(), 2)})


def refusal(problem: Problem, plan: Plan) -> str:
    """Why this plan cannot run, apart from memory, with the mend; empty when it can."""
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


def _expert_refusal(engine: Engine, model: ModelSpec, plan: Plan) -> str:
    if plan.ep > 1 and not model.is_moe:
        return f"ep={plan.ep} needs experts and {model.name} is dense; leave ep out"
    if plan.adp > 1 and not (model.is_moe or model.is_mla):
        return f"adp={plan.adp} helps latent attention or experts and {model.name} has neither; use dp={plan.adp}"
    if plan.adp > 1 and engine.name == "trtllm" and plan.tp > 1:
        return f"trtllm has attention-DP on all ranks or none; use tp=1,adp={plan.adp * plan.tp}"
    degrees = expert_degrees(engine.name, model, tp=plan.tp, adp=plan.adp)
    spread = plan.adp > 1 and plan.ep == plan.stage_gpus  # over all ranks: engines copy popular experts to fill them
    if plan.ep not in degrees and not spread:
        return (
            f"ep={plan.ep} is no expert degree of {engine.name} on {plan.tp * plan.adp} ranks; use {' or '.join(map(str, degrees))}"
        )
    width = _expert_width(model)
    if width and width % plan.expert_tp:
        return f"experts of width {width} do not divide by {plan.expert_tp}; use a larger ep"
    return ""


def block_refusal(model: ModelSpec, plan: Plan) -> str:
    """Why most kernels refuse the shard: scale blocks have to lie whole in it, (width / ways) % block == 0.

    vLLM issues 54178 and 52997. Some engine versions pad instead, so a plan that a user names is estimated all the same.
    """
    parts: list[tuple[int, int, NumberFormat, str]] = []
    for layer, _ in count_equal(model.layers):
        if isinstance(layer.ffn, DenseFfn):
            parts.append((layer.ffn.width, plan.tp, model.formats.of("ffn"), "tp"))
        if isinstance(layer.ffn, MoeFfn):
            parts.append((layer.ffn.expert_width, plan.expert_tp, model.formats.of("experts"), "ep"))
    for width, ways, form, axis in parts:
        if ways > 1 and form.name in _STRICT_BLOCKS and (width % ways or (width // ways) % form.block):
            mend = "a smaller tp" if axis == "tp" else "a smaller tp or expert parallelism"
            return f"{width} / {ways} = {width / ways:g} cuts {form.name} blocks of {form.block}; use {mend}"
    return ""


def _node_refusal(cluster: Cluster, plan: Plan) -> str:
    node = len(cluster.node.devices)
    if cluster.nodes > 1 and plan.stage_gpus > 1 and node % plan.stage_gpus and plan.stage_gpus % node:
        return f"groups of {plan.stage_gpus} GPUs would straddle nodes of {node}"
    return ""


def _experts(model: ModelSpec) -> int:
    return min((x.ffn.experts for x, _ in count_equal(model.layers) if isinstance(x.ffn, MoeFfn)), default=0)


def _expert_width(model: ModelSpec) -> int:
    return min((x.ffn.expert_width for x, _ in count_equal(model.layers) if isinstance(x.ffn, MoeFfn)), default=0)


def placed(problem: Problem, plan: Plan) -> Plan:
    """The plan with its GPUs chosen, where it matters which ones: links or devices that differ."""
    node = problem.cluster.node
    if node.is_uniform and not node.pairs and not any(b is not None for b in node.free_bytes):
        return plan
    from advisor.search.place import place

    split = problem.engine.name in ("vllm", "sglang", "trtllm")
    return place(problem.cluster, plan, layers=len(problem.model.layers), engine_can_split=split)


def _distinct(rejected: Iterable[Rejected]) -> Iterator[Rejected]:
    """One entry a plan, nearest misses of memory first."""
    seen: set[Plan] = set()
    for item in sorted(rejected, key=lambda r: (r.short_bytes == 0, r.short_bytes, r.plan.replica_gpus)):
        if item.plan not in seen:
            seen.add(item.plan)
            yield item
