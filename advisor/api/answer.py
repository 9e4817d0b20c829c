"""From a question to an answer: what the verbs and the Python API share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.api.question import Question, machine_words
from advisor.api.starting import cannot_start
from advisor.errors import PlanError
from advisor.specs.advice import Advice, Asked
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem

if TYPE_CHECKING:
    from advisor.serving.predict import Predictor


def answer(asked: Question) -> Advice:
    """The advice, with what was asked and assumed, and the launch line of the first choice; and what would help where nothing
    fits or a limit is missed."""
    from advisor.report.limits import implied_words, limit_words
    from advisor.report.reason import reason
    from advisor.search.advise import advise
    from advisor.search.capacity import expected, ranked_by_capacity
    from advisor.search.confidence import sure
    from advisor.search.curve import with_curve
    from advisor.search.network import network_need
    from advisor.search.percentiles import decided
    from advisor.search.refine import refined
    from advisor.search.remedy import remedies
    from advisor.serving.predict import Predictor

    predictor = Predictor(sure(asked.problem, asked.calibration), asked.calibration)
    advice = ranked_by_capacity(predictor, advise(predictor, cannot_start(asked.problem)))
    advice = with_curve(predictor, decided(predictor, refined(predictor, advice)))
    advice = replace(
        advice, asked=in_short(asked.problem), reason=reason(advice.cause, asked.problem.workload),
        network_need=network_need(predictor, advice.choices), expected=expected(predictor, asked.problem.workload, advice),
        remedies=remedies(predictor, advice),
    )  # fmt: skip
    advice = replace(advice, limits=limit_words(advice), said=(*asked.said, *implied_words(advice)))
    if not advice.choices:
        return advice
    from advisor.launch import launch_line

    return replace(advice, launch=launch_line(asked.problem, advice.choices[0].plan))


def write_launch(asked: Question, advice: Advice, folder: Path) -> tuple[Path, ...]:
    """The bash script of the first choice in `folder`; the files written. Nothing is written where nothing fits."""
    if not advice.choices:
        return ()
    from advisor.launch import render
    from advisor.launch.script import write

    return write(render(asked.problem, advice.choices[0], target="bash"), folder, force=False)


def estimate_plan(asked: Question, plan: str | Plan) -> Prediction:
    """One plan's figures, with the settings that go with the load. Raises PlanError with the reason where it cannot run or does not
    fit."""
    from advisor.search.ceiling import with_ceiling
    from advisor.search.confidence import sure
    from advisor.serving.predict import Predictor

    predictor = Predictor(sure(asked.problem, asked.calibration), asked.calibration)
    return _predicted(predictor, with_ceiling(predictor.problem, legal_plan(predictor.problem, plan)))


def launchable_plan(asked: Question, plan: str | Plan) -> Prediction:
    """The figures of a plan to be launched. Raises PlanError also where the engine would refuse it while it loads the weights."""
    from advisor.search.legal import block_refusal

    found = estimate_plan(asked, plan)
    if cut := block_refusal(asked.problem, found.plan):
        raise PlanError(f"{asked.problem.engine.name} refuses {found.plan.label} while it loads: {cut}.")
    return found


def predicted(predictor: Predictor, plan: Plan) -> Prediction:
    """The figures of a plan under the engine's own settings, as benchmarks run it. Raises PlanError where it does not fit."""
    return _predicted(predictor, legal_plan(predictor.problem, plan))


def _predicted(predictor: Predictor, plan: Plan) -> Prediction:
    """The figures, with a note where some versions of the engine refuse the plan."""
    from advisor.search.legal import block_refusal

    problem = predictor.problem
    found = predictor.predict(plan)
    cut = block_refusal(problem, found.plan)
    return replace(found, notes=(*found.notes, f"some engine versions refuse this plan: {cut}")) if cut else found


def legal_plan(problem: Problem, plan: str | Plan) -> Plan:
    """The plan of a text, checked and placed. Raises PlanError with one sentence."""
    from advisor.roofline.memory import rank_memory
    from advisor.search.ceiling import least_ceiling
    from advisor.search.legal import refusal
    from advisor.search.place import Placer
    from advisor.search.space import needs

    if isinstance(plan, str):
        try:
            plan = Plan.parse(plan)
        except ValueError as error:
            raise PlanError(f"{error}.") from None
    reason = refusal(problem, plan)
    if reason:
        raise PlanError(f"{reason}.")
    plan = Placer(problem).placed(plan)
    memory = rank_memory(problem, least_ceiling(problem, plan))
    if memory.shortfall_bytes > 0:
        raise PlanError(f"{plan.label} does not fit: a rank {needs(memory)}; split it further, or take fewer bytes a weight.")
    return plan


def in_short(problem: Problem) -> Asked:
    """The question in one flat value."""
    model, cluster, engine = problem.model, problem.cluster, problem.engine
    part = model.formats.experts if model.is_moe else model.formats.ffn
    return Asked(
        model=model.name, params=model.params, weight_format=part, kv_format=model.kv_format, machine=machine_words(cluster),
        gpus=cluster.gpus, nodes=cluster.nodes, engine=engine.name, engine_version=engine.version, workload=problem.workload,
    )  # fmt: skip
