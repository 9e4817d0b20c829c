"""A measured row as a question, and the prediction that answers it: what the scoreboard and every fit count on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from advisor.errors import AdvisorError
from advisor.serving.predict import Predictor
from advisor.specs.calibration import Calibration
from advisor.specs.engine import Engine
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem

SHARED_FIGURES = ("total_tokens_per_s", "requests_per_s")  # the same measurement as output_tokens_per_s in other words


SET_BY_RECIPES = ("token_budget", "polling_steps", "experts_as")  # of an engine profile, by `recipes.as_started`


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A measured row as a question: the problem (with the engine to be fitted), the plan, and the figures by column."""

    id: str
    problem: Problem
    plan: Plan
    calibration: Calibration
    measured: tuple[tuple[str, float], ...]

    @property
    def figures(self) -> tuple[tuple[str, float], ...]:
        """The figures that are fitted: each measurement once."""
        own = dict(self.measured)
        for name in SHARED_FIGURES:
            if "output_tokens_per_s" in own or "latency_s" in own:
                own.pop(name, None)
        if "latency_s" in own:
            own.pop("output_tokens_per_s", None)
        return tuple(own.items())


def figure(prediction: Prediction, name: str) -> float:
    """The predicted value of a column of the points."""
    return float(getattr(prediction, name).value)


def started_like(engine: Engine, started: Engine) -> Engine:
    """`engine` with what the recipe of a row set in `started`; itself where nothing differs, so that memos find it again."""
    if all(getattr(engine, name) == getattr(started, name) for name in SET_BY_RECIPES):
        return engine
    return replace(engine, token_budget=started.token_budget, polling_steps=started.polling_steps, experts_as=started.experts_as)


class Predictors:
    """The newest predictors of rows of many questions: neighbouring rows of one question share theirs."""

    KEPT = 16

    def __init__(self) -> None:
        self._newest: list[Predictor] = []

    def of(self, problem: Problem, calibration: Calibration) -> Predictor:
        """The predictor of a problem, with what an earlier row of the same model, machine and engine prepared."""
        for known in self._newest:
            other = known.problem
            same = other.model is problem.model and other.cluster is problem.cluster and known.calibration is calibration
            if same and other.engine == problem.engine:
                return known.under(problem.workload)
        found = Predictor(problem, calibration)
        self._newest = [found, *self._newest[: self.KEPT - 1]]
        return found


def answer(case: Case, engine: Engine, predictors: Predictors, *, screen: bool = False) -> Prediction | None:
    """The prediction of a case with this engine, started as the case's was; None where the plan does not fit or cannot run.

    `screen` answers a steady load by formula instead of by simulation.
    """
    engine = started_like(engine, case.problem.engine)
    try:
        predictor = predictors.of(replace(case.problem, engine=engine), case.calibration)
        return predictor.screen(case.plan) if screen else predictor.predict(case.plan)
    except AdvisorError:
        return None
