"""From a question to an answer: what the verbs and the Python API share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from advisor.api.question import Question, machine_words
from advisor.api.starting import cannot_start
from advisor.errors import PlanError, unknown
from advisor.specs.advice import Advice, Asked, PoolsAdvice
from advisor.specs.deployment import Deployment, DeploymentPrediction
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem

if TYPE_CHECKING:
    from advisor.launch.script import Options
    from advisor.serving.predict import Predictor

Disaggregate = Literal["auto", "never", "only"]
ONE_BOARD = 8  # GPUs up to which a pool of each leaves too few for either
POOL_ENGINES = ("vllm", "sglang", "trtllm")  # that serve prefill and decode apart


def answer(asked: Question, *, disaggregate: Disaggregate = "auto") -> Advice:
    """The advice, with what was asked and assumed, and the launch line of the first choice; and what would help where nothing
    fits or a limit is missed.

    `disaggregate`: "auto" looks at prefill and decode apart on more than `ONE_BOARD` GPUs, "only" everywhere, "never" nowhere.
    """
    from advisor.report.limits import implied_words, limit_words
    from advisor.report.reason import reason
    from advisor.search.advise import advise
    from advisor.search.capacity import expected, ranked_by_capacity
    from advisor.search.confidence import sure
    from advisor.search.curve import with_curve
    from advisor.search.drafting import drafting_advice
    from advisor.search.network import network_need
    from advisor.search.percentiles import decided
    from advisor.search.refine import refined
    from advisor.search.remedy import remedies
    from advisor.search.what_if import what_ifs
    from advisor.serving.predict import Predictor

    predictor = Predictor(sure(asked.problem, asked.calibration), asked.calibration, asked.others)
    advice = ranked_by_capacity(predictor, advise(predictor, cannot_start(asked.problem)))
    advice = with_curve(predictor, decided(predictor, refined(predictor, advice)))
    advice = replace(
        advice, asked=in_short(asked.problem), reason=reason(advice.cause, asked.problem.workload),
        network_need=network_need(predictor, advice.choices), expected=expected(predictor, asked.problem.workload, advice),
        remedies=remedies(predictor, advice), what_ifs=what_ifs(predictor, advice),
    )  # fmt: skip
    if disaggregate == "only" or (disaggregate == "auto" and asked.problem.cluster.gpus > ONE_BOARD):
        advice = replace(advice, pools=_pools(predictor, advice))
    if advice.choices:
        advice = replace(advice, speculation=drafting_advice(predictor, advice.choices[0]))
    advice = replace(advice, limits=limit_words(advice), said=(*asked.said, *implied_words(advice)))
    if not advice.choices:
        return advice
    from advisor.launch import launch_line

    return replace(advice, launch=launch_line(asked.problem, advice.choices[0].plan))


def chosen(text: str) -> Disaggregate:
    """`--disaggregate` as one of its words. Raises QuestionError for another."""
    if text not in get_args(Disaggregate):
        raise unknown("--disaggregate", text, get_args(Disaggregate))
    return cast(Disaggregate, text)


def _pools(predictor: Predictor, advice: Advice) -> PoolsAdvice | None:
    """Deployments of pools beside the first choice; None on machines whose GPUs differ or whose engine has no pools."""
    from advisor.search.pools import pools_advice
    from advisor.search.space import legal_plans

    if not predictor.problem.cluster.node.is_uniform or predictor.problem.engine.name not in POOL_ENGINES:
        return None
    return pools_advice(predictor, legal_plans(predictor.problem), advice.choices[0] if advice.choices else None)


def estimate_pools(asked: Question, text: str) -> DeploymentPrediction:
    """The figures of one deployment of pools. Raises PlanError where it cannot run or does not fit."""
    from advisor.search.confidence import sure
    from advisor.search.legal import refusal
    from advisor.serving.predict import Predictor
    from advisor.serving.predict_pools import PoolsPredictor

    try:
        deployment = Deployment.parse(text)
    except ValueError as error:
        raise PlanError(f"{error}.") from None
    for worker in (deployment.prefill, deployment.decode):
        if reason := refusal(asked.problem, worker.replica()):
            raise PlanError(f"{reason}.")
    return PoolsPredictor(Predictor(sure(asked.problem, asked.calibration), asked.calibration)).predict(deployment)


def write_launch(asked: Question, advice: Advice, folder: Path) -> tuple[Path, ...]:
    """The bash script of the first choice in `folder`; the files written. Nothing is written where nothing fits."""
    if not advice.choices:
        return ()
    from advisor.launch import render
    from advisor.launch.script import Options, write

    options = with_chat_format(asked.problem, Options())
    return write(render(asked.problem, advice.choices[0], target="bash", options=options), folder, force=False)


def with_chat_format(problem: Problem, options: Options) -> Options:
    """The launch options with the parsers of the model's family, as far as the engine's documentation names them."""
    from advisor.catalog.chat_formats import chat_format

    found, engine = chat_format(problem.model), problem.engine.name
    if found is None:
        return options
    return replace(
        options, tool_parser=found.tool.get(engine, ""), reasoning_parser=found.reasoning.get(engine, ""),
        chat_template=found.template.get(engine, ""),
    )  # fmt: skip


def estimate_plan(asked: Question, plan: str | Plan) -> Prediction:
    """One plan's figures, with the settings that go with the load. Raises PlanError with the reason where it cannot run or does not
    fit."""
    from advisor.search.ceiling import with_ceiling
    from advisor.search.confidence import sure
    from advisor.serving.predict import Predictor

    predictor = Predictor(sure(asked.problem, asked.calibration), asked.calibration, asked.others)
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
    _, memory = least_ceiling(problem, plan)
    if memory.shortfall_bytes > 0:
        raise PlanError(f"{plan.label} does not fit: a rank {needs(memory)}; split it further, or take fewer bytes a weight.")
    return plan


def in_short(problem: Problem) -> Asked:
    """The question in one flat value."""
    model, cluster, engine = problem.model, problem.cluster, problem.engine
    part = model.weight_format
    return Asked(
        model=model.name, params=model.params, weight_format=part, kv_format=model.kv_format, machine=machine_words(cluster),
        gpus=cluster.gpus, nodes=cluster.nodes, engine=engine.name, engine_version=engine.version, workload=problem.workload,
    )  # fmt: skip
