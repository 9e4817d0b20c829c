"""Limits that are kept with a wanted certainty: tightened by the error bar of the figure that they are on."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

from advisor.serving.familiarity import spread_for
from advisor.specs.calibration import Calibration
from advisor.specs.problem import Problem


def sure(problem: Problem, calibration: Calibration) -> Problem:
    """The problem with limits that a prediction keeps with the workload's confidence c when it keeps them on average:

    limit' = limit exp(-z s)                                                                                               (F3)

    z the c-quantile of the normal distribution, s the standard deviation of ln(measured / predicted).
    """
    workload = problem.workload
    if workload.confidence <= 0.5:
        return problem
    z = NormalDist().inv_cdf(workload.confidence)

    def tightened(figure: str, limit_s: float | None) -> float | None:
        spread = spread_for(problem.engine, calibration, figure, problem.model)
        return None if limit_s is None else limit_s * math.exp(-z * math.hypot(spread.shared, spread.independent))

    ttft_s, tpot_s = tightened("ttft", workload.ttft_limit_s), tightened("tpot", workload.tpot_limit_s)
    return replace(problem, workload=replace(workload, ttft_limit_s=ttft_s, tpot_limit_s=tpot_s))
