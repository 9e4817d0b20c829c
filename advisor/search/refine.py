"""The first plan and the runner-up under the simulated load: what is shown of them, and why one is before the other."""

from __future__ import annotations

from dataclasses import replace

from advisor.search.cause import cause
from advisor.serving.predict import Predictor
from advisor.specs.advice import Advice
from advisor.specs.prediction import Prediction


def refined(predictor: Predictor, advice: Advice) -> Advice:
    """The advice with the figures that `estimate` gives for its first plan and the runner-up; the order is the formula's.

    Plans are compared by the formula, which a test holds to the simulator.
    """
    if not advice.choices:
        return advice
    shown = {
        plan: _simulated(predictor, p) for p in advice.choices if (plan := p.plan) in (advice.choices[0].plan, advice.runner_up)
    }
    runner = shown[advice.runner_up] if advice.runner_up else None
    return replace(
        advice,
        choices=tuple(shown.get(p.plan, p) for p in advice.choices),
        cause=cause(shown[advice.choices[0].plan], runner, predictor.problem.workload),
    )


def _simulated(predictor: Predictor, p: Prediction) -> Prediction:
    """The simulated figures, judged by the limits as the plan was when it was put in order."""
    found = predictor.predict(p.plan)
    return replace(found, plan=p.plan, within_limits=p.within_limits, load_within_limits=p.load_within_limits)
