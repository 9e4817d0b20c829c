"""How sure an order of plans is, from the error bars.

The error that all plans of one question share (same box, same engine) cancels between them; only `Estimate.independent` is drawn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist

from advisor.specs.prediction import Estimate, Prediction
from advisor.specs.workload import Workload

DRAWS = 400  # the standard error of a share of draws is then at most 2.5%


def objective(prediction: Prediction, workload: Workload) -> Estimate:
    """The figure that the goal makes best, as an estimate in which less is better.

    latency: seconds of a request. throughput: seconds per output token of the deployment. cost: GPU-seconds per output token
    (dollars follow in proportion, the GPUs being equal). Plans that carry a given rate of requests all make the same tokens:
    for throughput the shorter answer is then the better one.
    """
    carried = workload.mode == "open_loop" and workload.goal == "throughput" and prediction.within_limits
    if workload.goal == "latency" or carried:
        return prediction.latency_s
    rate = prediction.output_tokens_per_s
    gpus = prediction.plan.world if workload.goal == "cost" else 1
    if rate.value <= 0:
        return Estimate(value=math.inf, low=math.inf, high=math.inf)
    return Estimate(value=gpus / rate.value, low=gpus / rate.high, high=gpus / max(rate.low, 1e-300), independent=rate.independent)


def better_chance(a: Prediction, b: Prediction, workload: Workload) -> float:
    """The chance that plan `a` really has the better figure: P(ln a < ln b) with independent normal errors of width `own`."""
    x, y = objective(a, workload), objective(b, workload)
    if not (math.isfinite(x.value) and math.isfinite(y.value) and x.value > 0 and y.value > 0):
        return 1.0 if x.value <= y.value else 0.0
    width = math.hypot(x.independent, y.independent)
    gap = math.log(y.value / x.value)
    if width == 0:
        return 0.5 if gap == 0 else float(gap > 0)
    return NormalDist().cdf(gap / width)


def first_share(rivals: Sequence[Prediction], workload: Workload) -> float | None:
    """In what share of draws the first of `rivals` has the best figure; None where there is nothing to compare. Deterministic."""
    figures = [objective(p, workload) for p in rivals]
    if len(rivals) < 2 or not all(0 < f.value < math.inf for f in figures):
        return None
    logs = [(math.log(f.value), f.independent) for f in figures]
    draw = random.Random(0)
    wins = 0.0
    for _ in range(DRAWS):
        mine = logs[0][0] + draw.gauss(0.0, logs[0][1])
        wins += all(mine <= mean + draw.gauss(0.0, own) for mean, own in logs[1:])
    return wins / DRAWS
