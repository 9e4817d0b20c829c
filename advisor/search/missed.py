"""What would help where a limit is missed: more replicas, fewer bytes a weight, a lighter load, a wider limit. Each is tried."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from advisor.catalog.models import requantise
from advisor.roofline.memory import context_shortfall, rank_memory
from advisor.search.advise import advise
from advisor.search.ceiling import with_ceiling
from advisor.search.changes import gpus_option, larger, smaller_models
from advisor.search.limits import miss
from advisor.serving.predict import Predictor
from advisor.specs.advice import Advice, Remedy
from advisor.specs.cluster import Cluster
from advisor.specs.formats import FORMATS
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem
from advisor.units import show, show_count

EXTRA_NODES = 3  # sizes of machine that are tried beyond the first that should do: the last replica of one is never quite full


def where_limits_are_missed(predictor: Predictor, advice: Advice) -> tuple[Remedy, ...]:
    """Changes after which a plan keeps the limits under the load, one of each kind."""
    first, workload = advice.choices[0], predictor.problem.workload
    if advice.implied_ttft_s:
        workload = replace(workload, ttft_limit_s=advice.implied_ttft_s)
    held = predictor.about(replace(predictor.problem, workload=workload))
    found = [_more_replicas(held, first), *_smaller(held, first), _lighter(held, first), *_wider(held, first)]
    return tuple(remedy for remedy in found if remedy)


def _more_replicas(predictor: Predictor, first: Prediction) -> Remedy | None:
    """As many replicas as carry the load, by what one of them carries within the limits; on the next larger machines."""
    problem = predictor.problem
    load = problem.workload.users or problem.workload.rate_per_s
    if not first.load_within_limits:
        return None
    wanted = math.ceil(load / (first.load_within_limits / first.plan.dp))
    tries = 0
    for cluster in larger(problem.cluster):
        if cluster.gpus < wanted * first.plan.replica_gpus:
            continue
        enlarged = replace(problem, cluster=cluster)
        plan = with_ceiling(enlarged, _filled(cluster, first.plan))
        if _runs(enlarged, plan) and predictor.about(enlarged).screen(plan).within_limits:
            return Remedy(change=gpus_option(cluster), plan=plan)
        tries += 1
        if tries > EXTRA_NODES:
            return None
    return None


def _runs(problem: Problem, plan: Plan) -> bool:
    memory = rank_memory(problem, plan)
    return memory.shortfall_bytes <= 0 and not context_shortfall(problem, plan, memory)


def _filled(cluster: Cluster, plan: Plan) -> Plan:
    return replace(plan, dp=cluster.gpus // plan.replica_gpus, gpus=(), layer_split=(), settings=None)


def _smaller(predictor: Predictor, first: Prediction) -> Iterator[Remedy]:
    """Weights of fewer bytes; a smaller cache where it is the cache that makes requests wait."""
    problem = predictor.problem
    for name, model in smaller_models(problem):
        if plan := _kept(replace(problem, model=model), predictor):
            yield Remedy(change=f"--dtype {name}", plan=plan)
            break
    waits = problem.workload.ttft_limit_s is not None and first.ttft_s.value > problem.workload.ttft_limit_s
    if waits and FORMATS[problem.model.kv_format].bytes_per_value > 1:
        model = requantise(problem.model, dtype=None, kv_dtype="fp8")
        if plan := _kept(replace(problem, model=model), predictor):
            yield Remedy(change="--kv-dtype fp8", plan=plan)


def _kept(problem: Problem, predictor: Predictor) -> Plan | None:
    """The best plan of a changed problem, where it keeps the limits."""
    advice = advise(predictor.about(problem))
    return advice.choices[0].plan if advice.choices and advice.limits_met else None


def _lighter(predictor: Predictor, first: Prediction) -> Remedy | None:
    """The load that the first plan carries within the limits."""
    workload, carried = predictor.problem.workload, first.load_within_limits
    if not carried:
        return None
    if workload.mode == "open_loop":
        return Remedy(change=f"--rate {show_count(carried * 0.995)}", plan=first.plan)
    return Remedy(change=f"--users {math.floor(carried)}", plan=first.plan) if carried >= 1 else None


def _wider(predictor: Predictor, first: Prediction) -> Iterator[Remedy]:
    """The limit that the first plan keeps, where it misses one limit only and lets nobody wait."""
    workload = predictor.problem.workload
    for option, figure, limit_s, others in (
        ("--tpot", first.tpot_s, workload.tpot_limit_s, replace(workload, tpot_limit_s=None)),
        ("--ttft", first.ttft_s, workload.ttft_limit_s, replace(workload, ttft_limit_s=None)),
    ):
        if limit_s and figure.value > limit_s and miss(first, others) <= 1 and not first.overloaded:
            yield Remedy(change=f"{option} {show(figure.value * 1.01, 's').replace(' ', '')}", plan=first.plan)
