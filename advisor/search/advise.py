"""The heart: a problem in, advice out."""

from __future__ import annotations

from advisor.search.rank import rank
from advisor.search.space import CannotStart, legal_plans
from advisor.serving.predict import predict
from advisor.specs.advice import Advice
from advisor.specs.calibration import Calibration
from advisor.specs.problem import Problem


def advise(problem: Problem, calibration: Calibration, cannot_start: CannotStart = lambda plan: "") -> Advice:
    """Every legal plan of `problem` that can be started, predicted and in order."""
    space = legal_plans(problem, cannot_start)
    predictions = [predict(problem, plan, calibration) for plan in space.plans]
    return rank(predictions, problem.workload, space.rejected)
