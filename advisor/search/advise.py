"""The heart: a problem in, advice out."""

from __future__ import annotations

from advisor.search.rank import rank
from advisor.search.space import CannotStart, legal_plans
from advisor.serving.predict import Predictor
from advisor.specs.advice import Advice


def advise(predictor: Predictor, cannot_start: CannotStart = lambda plan: "") -> Advice:
    """Every legal plan of the problem that can be started, predicted and in order."""
    space = legal_plans(predictor.problem, cannot_start)
    predictions = [predictor.screen(plan) for plan in space.plans]
    return rank(predictions, predictor.problem.workload, space.rejected, gpus=predictor.problem.cluster.gpus)
