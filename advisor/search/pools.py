"""Prefill and decode apart: the best split of the GPUs into pools, and whether it beats one kind of replica.

Each pool's worker is judged alone first: requests/s per GPU within its own limit (TTFT for prefill, TPOT for decode). The best few
of each are paired, the numbers of workers follow from matching their rates, and the pairs are predicted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from advisor.errors import PlanError
from advisor.search.space import Space
from advisor.serving.pools import Pools, decode_rate, prefill_s, prompts_together
from advisor.serving.predict import Predictor
from advisor.serving.predict_pools import PoolsPredictor
from advisor.specs.advice import PoolsAdvice
from advisor.specs.deployment import Deployment, DeploymentPrediction
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, Prediction
from advisor.specs.workload import Workload

WORKERS = 4  # shapes of a pool that are paired
SPLITS = 24  # deployments that are predicted
SURE = 1.0  # standard deviations by which pools must be ahead to be recommended


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """A shape of worker, and the requests/s that one of them carries within its limit."""

    plan: Plan
    rate_per_s: float

    @property
    def per_gpu(self) -> float:
        return self.rate_per_s / self.plan.replica_gpus


def pools_advice(predictor: Predictor, space: Space, whole: Prediction | None) -> PoolsAdvice | None:
    """The best deployments of pools beside `whole`, the best plan of one kind of replica; None where no two pools fit."""
    found = best_pools(predictor, space)
    if not found:
        return None
    first, workload = found[0], predictor.problem.workload
    if whole is None:
        return PoolsAdvice(choices=tuple(found), ahead=True, gain=None, sigma=None)
    mine, theirs = _objective(first, workload), _objective(whole, workload)
    gain = math.log(theirs.value / mine.value)
    sigma = math.hypot(mine.independent, theirs.independent)
    ahead = first.within_limits >= whole.within_limits and (gain > SURE * sigma or first.within_limits > whole.within_limits)
    return PoolsAdvice(choices=tuple(found), ahead=ahead, gain=math.exp(gain), sigma=sigma)


def best_pools(predictor: Predictor, space: Space) -> list[DeploymentPrediction]:
    """Deployments of pools on the machine, best first."""
    pools = PoolsPredictor(predictor)
    shapes = list(dict.fromkeys(replace(plan.replica(), settings=None, layer_split=()) for plan in space.plans))
    shapes = [shape for shape in shapes if shape.replica_gpus < predictor.problem.cluster.gpus]
    prefill, decode = _workers(pools, shapes, predictor.problem.workload)
    splits = sorted(_splits(prefill, decode, predictor.problem.cluster.gpus), key=lambda s: (-s[1], s[0].world, s[0].label))
    found = [pools.predict(deployment) for deployment, _ in splits[:SPLITS]]
    workload = predictor.problem.workload
    return sorted(found, key=lambda p: (not p.within_limits, _objective(p, workload).value, p.deployment.world))


def _workers(pools: PoolsPredictor, shapes: Sequence[Plan], workload: Workload) -> tuple[list[_Worker], list[_Worker]]:
    """The shapes with the most requests/s per GPU, for each pool."""
    prefill, decode = [], []
    for shape in shapes:
        try:
            seen, _ = pools.pools(Deployment(prefill=shape, decode=shape))
        except PlanError:  # under the engine's own settings a sequence does not fit
            continue
        prefill.append(_Worker(plan=shape, rate_per_s=_prefill_rate(seen, workload)))
        decode.append(_Worker(plan=shape, rate_per_s=decode_rate(seen, workload)))
    return _best(prefill), _best(decode)


def _best(workers: list[_Worker]) -> list[_Worker]:
    able = [worker for worker in workers if worker.rate_per_s > 0]
    return sorted(able, key=lambda w: (-w.per_gpu, w.plan.replica_gpus, w.plan.label))[:WORKERS]


def _prefill_rate(pools: Pools, workload: Workload) -> float:
    """Prompts/s of one worker at which its mean TTFT, (D7), keeps the limit; 0 where a prompt alone misses it."""
    group = prompts_together(pools, workload)
    most = group / prefill_s(pools, workload, group)
    limit_s = workload.ttft_limit_s
    if limit_s is None:
        return most
    single = prefill_s(pools, workload, 1)
    spare_s = limit_s - pools.prefill.engine.host.request_s - single
    if spare_s <= 0:
        return 0.0
    ratio = 2 * spare_s / single  # u / (1 - u)
    return most * ratio / (1 + ratio)


def _splits(prefill: Sequence[_Worker], decode: Sequence[_Worker], gpus: int) -> Iterator[tuple[Deployment, float]]:
    """(deployment, requests/s that both pools carry) for every pair of workers and number of decode workers, with as many prefill
    workers as they need or the machine has."""
    for first in prefill:
        for second in decode:
            for count in range(1, (gpus - first.plan.replica_gpus) // second.plan.replica_gpus + 1):
                room = (gpus - count * second.plan.replica_gpus) // first.plan.replica_gpus
                needed = math.ceil(count * second.rate_per_s / first.rate_per_s)
                for workers in {min(room, needed), min(room, max(1, needed - 1))}:
                    carried = min(workers * first.rate_per_s, count * second.rate_per_s)
                    yield Deployment(prefill=replace(first.plan, dp=workers), decode=replace(second.plan, dp=count)), carried


def _objective(p: Prediction | DeploymentPrediction, workload: Workload) -> Estimate:
    """What the goal makes best, less being better: seconds of a request, or (GPU-)seconds per output token."""
    if workload.goal == "latency":
        return p.latency_s
    rate = p.output_tokens_per_s
    world = p.plan.world if isinstance(p, Prediction) else p.deployment.world
    gpus = world if workload.goal == "cost" else 1
    floor = max(rate.value, 1e-300)
    return Estimate(
        value=gpus / floor, low=gpus / max(rate.high, 1e-300), high=gpus / max(rate.low, 1e-300), independent=rate.independent
    )
