"""What would help where nothing fits or a limit is missed: each change is tried, never guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from advisor.catalog.models import requantise
from advisor.search.ceiling import least_ceiling
from advisor.search.changes import gpus_option, larger, smaller_models
from advisor.search.legal import block_refusal, refusal
from advisor.search.missed import where_limits_are_missed
from advisor.search.space import replicas
from advisor.serving.predict import Predictor
from advisor.specs.advice import Advice, Remedy
from advisor.specs.formats import FORMATS
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem


def remedies(predictor: Predictor, advice: Advice) -> tuple[Remedy, ...]:
    """What would help: nothing where the limits are kept."""
    if not advice.choices:
        return where_nothing_fits(predictor.problem)
    return () if advice.limits_met else where_limits_are_missed(predictor, advice)


def where_nothing_fits(problem: Problem) -> tuple[Remedy, ...]:
    """Changes of the question after which a plan fits: quantised weights, an fp8 cache, a shorter context, more GPUs.

    One of each kind, and quantised weights with more GPUs where no single one is enough.
    """
    found = list(_quantised(problem))
    cache = _smaller_cache(problem)
    found += [cache] if cache else []
    shorter = _shorter(problem)
    found += [shorter] if shorter else []
    more = _more_gpus(problem)
    found += [more] if more else []
    if not any(remedy.change.startswith("--dtype") for remedy in found):
        for name, model in smaller_models(problem):
            both = _more_gpus(replace(problem, model=model))
            if both and (more is None or both.plan.world < more.plan.world):
                found.append(replace(both, change=f"--dtype {name} and {both.change}"))
                break
    return tuple(found)


def fitting(problem: Problem) -> Plan | None:
    """The plan with the fewest stages, then the fewest GPUs, that fits; None where none does."""
    for plan in sorted(replicas(problem, spanning=False), key=lambda p: (p.pp, p.adp, p.ep, p.replica_gpus)):
        refused = refusal(problem, plan) or block_refusal(problem, plan)
        if not refused and least_ceiling(problem, plan)[1].shortfall_bytes <= 0:
            return plan
    return None


def _quantised(problem: Problem) -> Iterator[Remedy]:
    for name, model in smaller_models(problem):
        plan = fitting(replace(problem, model=model))
        if plan:
            yield Remedy(change=f"--dtype {name}", plan=plan)


def _smaller_cache(problem: Problem) -> Remedy | None:
    if FORMATS[problem.model.kv_format].bytes_per_value <= 1:
        return None
    plan = fitting(replace(problem, model=requantise(problem.model, dtype=None, kv_dtype="fp8")))
    return Remedy(change="--kv-dtype fp8", plan=plan) if plan else None


def _shorter(problem: Problem) -> Remedy | None:
    """The longest prompt that fits, by bisection, when the output stays as it is."""
    load = problem.workload

    def fits(tokens: int) -> Plan | None:
        cached = min(load.prefix_cached_tokens, tokens - 1)
        return fitting(replace(problem, workload=replace(load, input_tokens=tokens, prefix_cached_tokens=cached)))

    low, high, best = 1, int(load.input_tokens), fits(1)
    if best is None or high <= 2:
        return None
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        plan = fits(middle)
        low, high, best = (middle, high, plan) if plan else (low, middle, best)
    if low < 16:
        return None
    tokens = low // 16 * 16
    return Remedy(change=f"--input-tokens {tokens}", plan=best)


def _more_gpus(problem: Problem) -> Remedy | None:
    """The fewest GPUs of the same kind that hold it: a fuller node first, then more nodes."""
    for cluster in larger(problem.cluster):
        plan = fitting(replace(problem, cluster=cluster))
        if plan:
            return Remedy(change=gpus_option(cluster), plan=plan)
    return None
