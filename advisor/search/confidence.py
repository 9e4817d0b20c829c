"""Limits that are kept with a wanted certainty: tightened by the error bar of the figure that they are on."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

from advisor.serving.predict import spread_for
from advisor.specs.calibration import Calibration
from advisor.specs.problem import Problem


def sure(problem: Problem, calibration: Calibration) -> Problem:
    """The problem with limits that a prediction keeps with the workload's confidence c when it keeps them on average:

    limit' = limit exp(-z s),  z the c-quantile of the normal distribution, s the standard deviation of ln(measured / predicted).

    Only where as much is asked for as fits: with a stated load the figures are those of that load.
    """
    workload = problem.workload
    if workload.mode != "capacity" or workload.confidence <= 0.5:
        return problem
    z = NormalDist().inv_cdf(workload.confidence)

    def tightened(figure: str, limit_s: float | None) -> float | None:
        spread = spread_for(problem.engine, calibration, figure)
        return None if limit_s is None else limit_s * math.exp(-z * math.hypot(spread.shared, spread.independent))

    limits = {"ttft_limit_s": tightened("ttft", workload.ttft_limit_s), "tpot_limit_s": tightened("tpot", workload.tpot_limit_s)}
    return replace(problem, workload=replace(workload, **limits))


def chance(limit_s: float, value_s: float, low_s: float) -> float:
    """The chance that a figure with this value and lower end of its 90% interval stays within a limit."""
    width = math.log(value_s / low_s) / NormalDist().inv_cdf(0.95) if 0 < low_s < value_s else 0.0
    return NormalDist().cdf(math.log(limit_s / value_s) / width) if width else float(value_s <= limit_s)
