"""Which plans can run: every degree that the model, the engine and the machine allow, and why the others cannot.

Memory and legality belong to a replica, so both are looked at once for each replica shape; the number of replicas multiplies
only what is left. The cost of a search grows with the distinct replicas, not with the GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from advisor.roofline.memory import context_shortfall, rank_memory
from advisor.search.ceiling import least_ceiling, with_ceiling
from advisor.search.legal import block_refusal, expert_degrees, experts, refusal, tensor_refusal
from advisor.search.place import Placer
from advisor.specs.cluster import Cluster
from advisor.specs.plan import Plan
from advisor.specs.prediction import RankMemory, Rejected
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload
from advisor.units import show_bytes

CannotStart = Callable[[Plan], str]

SMALL = 8  # up to so many GPUs every legal degree is looked at; beyond, the ones that differ in kind
# On large machines: pipelines deeper than the fourth depth that fits add stages, and with them only waiting.
ENOUGH_DEPTHS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The plans that can run, and the replica shapes that cannot, each with its reason."""

    plans: tuple[Plan, ...]
    rejected: tuple[Rejected, ...]


def legal_plans(problem: Problem, cannot_start: CannotStart = lambda plan: "") -> Space:
    """Every plan on 1..N GPUs worth predicting.

    Tensor parallelism leaves a node where the network is stated, and where nothing else fits. `cannot_start` says why the engine
    cannot be started with a plan, "" where it can; such plans are rejected unless there is no other.
    """
    network = problem.cluster.network
    space = _space(problem, cannot_start, spanning=network is not None and not network.assumed)
    if space.plans or network is None:
        return space
    return _space(problem, cannot_start, spanning=True)


def _space(problem: Problem, cannot_start: CannotStart, *, spanning: bool) -> Space:
    placer = Placer(problem)
    fitting, rejected = _fitting(problem, placer, spanning=spanning)
    same = _all_alike(problem.cluster)
    plans: list[Plan] = []
    for replica in fitting:
        counts = replica_counts(problem.workload, problem.cluster.gpus, replica.replica_gpus)
        found = [with_ceiling(problem, placer.placed(replace(replica, dp=dp))) for dp in counts]
        # In a box of different GPUs one replica may fit on the largest and a second one nowhere.
        plans += found if same else [plan for plan in found if rank_memory(problem, plan).shortfall_bytes <= 0]
    refused = {plan: reason for plan in plans if (reason := cannot_start(plan))}
    startable = [plan for plan in plans if plan not in refused]
    if startable:
        plans = startable
        started = {(plan.tp, plan.pp, plan.ep, plan.adp) for plan in plans}
        rejected += [Rejected(plan=p, reason=why) for p, why in refused.items() if (p.tp, p.pp, p.ep, p.adp) not in started]
    return Space(plans=tuple(plans), rejected=tuple(_distinct(rejected)))


def _fitting(problem: Problem, placer: Placer, *, spanning: bool) -> tuple[list[Plan], list[Rejected]]:
    """The replica shapes that can run and fit in memory, and the others."""
    rejected: list[Rejected] = []
    fitting: list[Plan] = []
    depths: dict[tuple[int, int, int], int] = {}
    same = _all_alike(problem.cluster)
    for replica in replicas(problem, spanning=spanning):
        stage = (replica.tp, replica.adp, replica.ep)
        if problem.cluster.gpus > 2 * SMALL and depths.get(stage, 0) >= ENOUGH_DEPTHS:
            continue
        reason = refusal(problem, replica) or block_refusal(problem, replica)
        if reason:
            rejected.append(Rejected(plan=replica, reason=reason))
            continue
        _, memory = least_ceiling(problem, replica if same else placer.placed(replica))
        if memory.shortfall_bytes > 0:
            rejected.append(Rejected(plan=replica, reason=needs(memory), short_bytes=memory.shortfall_bytes))
        elif short := context_shortfall(problem, replica, memory):
            rejected.append(Rejected(plan=replica, reason=short))
        else:
            fitting.append(replica)
            depths[stage] = depths.get(stage, 0) + 1
    return fitting, rejected


def _all_alike(cluster: Cluster) -> bool:
    """Whether every GPU has the same model and memory, so that memory does not depend on the place."""
    return cluster.node.is_uniform and not any(free is not None for free in cluster.node.free_bytes)


def needs(memory: RankMemory) -> str:
    """A shortfall in words: `needs 92 GiB of 80 GiB`."""
    return f"needs {show_bytes(memory.device_bytes + memory.shortfall_bytes)} of {show_bytes(memory.device_bytes)}"


def replicas(problem: Problem, *, spanning: bool) -> Iterator[Plan]:
    """Candidate replica shapes: tp, then attention-DP, pp and expert degrees. Illegal ones are among them, to be told why."""
    model, engine = problem.model, problem.engine
    for tp in _tensor_degrees(problem, spanning=spanning):
        if tp > 1 and ("tp" not in engine.axes or tensor_refusal(model, tp)):
            yield Plan(tp=tp)
            continue
        for adp in _attention_degrees(problem, tp):
            for pp in _pipeline_degrees(problem, tp * adp):
                for ep in expert_degrees(engine, model, tp=tp, adp=adp):
                    if adp > 1 and model.is_moe and tp * adp > SMALL and ep < tp * adp:
                        continue  # wide attention-DP groups exist to spread the experts
                    yield Plan(tp=tp, pp=pp, ep=ep, adp=adp)


def _tensor_degrees(problem: Problem, *, spanning: bool) -> list[int]:
    """Degrees within a node, and with `spanning` those that take two, four, eight ... whole nodes and split the model's heads."""
    cluster = problem.cluster
    node = len(cluster.node.devices)
    inside = list(range(1, node + 1))
    if not spanning or "tp" not in problem.engine.axes:
        return inside
    whole = [node << doubled for doubled in range(1, cluster.nodes.bit_length()) if node << doubled <= cluster.gpus]
    return inside + [tp for tp in whole if not tensor_refusal(problem.model, tp)]


def _attention_degrees(problem: Problem, tp: int) -> list[int]:
    """Attention-DP groups: for latent attention or experts, where the engine has the axis."""
    model, engine, cluster = problem.model, problem.engine, problem.cluster
    most = cluster.gpus // tp
    if "adp" not in engine.axes or not (model.is_mla or model.is_moe) or most < 2:
        return [1]
    if engine.attention_dp == "all_ranks" and tp > 1:
        return [1]  # its attention DP is all or nothing: every rank of the group has its own sequences
    most = min(most, experts(model) or most)
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


def _distinct(rejected: Iterable[Rejected]) -> Iterator[Rejected]:
    """One entry a plan, nearest misses of memory first."""
    seen: set[Plan] = set()
    for item in sorted(rejected, key=lambda r: (r.short_bytes == 0, r.short_bytes, r.plan.replica_gpus)):
        if item.plan not in seen:
            seen.add(item.plan)
            yield item
