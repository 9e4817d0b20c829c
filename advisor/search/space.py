"""Which plans can run: every degree that the model, the engine and the machine allow, and why the others cannot.

Memory and legality belong to a replica, so both are looked at once for each replica shape; the number of replicas multiplies
only what is left. The cost of a search grows with the distinct replicas, not with the GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from advisor.roofline.memory import rank_memory
from advisor.search.legal import block_refusal, expert_degrees, experts, refusal, tensor_refusal
from advisor.search.place import Placer
from advisor.specs.plan import Plan
from advisor.specs.prediction import RankMemory, Rejected
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload
from advisor.units import show_bytes

SMALL = 8  # up to so many GPUs every legal degree is looked at; beyond, the ones that differ in kind
# On large machines: pipelines deeper than the fourth depth that fits add stages, and with them only waiting.
ENOUGH_DEPTHS = 4


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
    placer = Placer(problem)
    same = problem.cluster.node.is_uniform and not any(free is not None for free in problem.cluster.node.free_bytes)
    for replica in replicas(problem, spanning=spanning):
        stage = (replica.tp, replica.adp, replica.ep)
        if problem.cluster.gpus > 2 * SMALL and depths.get(stage, 0) >= ENOUGH_DEPTHS:
            continue
        reason = refusal(problem, replica) or block_refusal(problem, replica)
        if reason:
            rejected.append(Rejected(plan=replica, reason=reason))
            continue
        memory = rank_memory(problem, replica if same else placer.placed(replica))
        if memory.shortfall_bytes > 0:
            rejected.append(Rejected(plan=replica, reason=needs(memory), short_bytes=memory.shortfall_bytes))
        else:
            fitting.append(replica)
            depths[stage] = depths.get(stage, 0) + 1
    for replica in fitting:
        counts = replica_counts(problem.workload, problem.cluster.gpus, replica.replica_gpus)
        found = [placer.placed(replace(replica, dp=dp)) for dp in counts]
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
                for ep in expert_degrees(engine, model, tp=tp, adp=adp):
                    if adp > 1 and model.is_moe and tp * adp > SMALL and ep < tp * adp:
                        continue  # wide attention-DP groups exist to spread the experts
                    yield Plan(tp=tp, pp=pp, ep=ep, adp=adp)


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
