"""What `validate` does between the question and the page: choose the plans, measure, compare. Free of typer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from advisor.api.answer import answer, legal_plan
from advisor.api.machine_here import Bench, benchmarks, cpu_threads, say
from advisor.api.options import Options
from advisor.api.question import question
from advisor.calibrate.local import USABLE, bound_rates
from advisor.catalog.engines import load_engine
from advisor.errors import AdvisorError, MachineError, NoPlanFitsError, QuestionError
from advisor.measure.campaign import Measured, Torch, ask_torch, run_all
from advisor.measure.jobs import Candidate, Settings, job_for, own_batch, runner_problem, suite, suite_job, whole_batch
from advisor.measure.load_result import LoadResult, point_row
from advisor.measure.ranks import Nodes
from advisor.measure.results import Results, default_path
from advisor.measure.validation import PlanResult, Validation, engine_result, order_of, plan_result, share_of_bound
from advisor.specs.benchmark import Benchmarks
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import Device
from advisor.specs.experiment import Job
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

SUITE_LIMIT_S = 200.0  # of one model: with both micro-benchmarks the standard table is done within 20 minutes
CPU_BATCH = 16  # sequences a replica runs at most on a CPU: it is there to try the program out


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A validation, whether it ran to its end, and the file that has its runs.

    What refines a calibration: `ratios` of the bundled transformer, `points` of a real engine, over `calibration`; `left_out` says
    which figures of the transformer do not.
    """

    validation: Validation
    calibration: Calibration
    device: Device
    complete: bool
    path: Path | None
    ratios: tuple[tuple[str, float], ...] = ()
    left_out: tuple[str, ...] = ()
    points: tuple[Mapping[str, str | None], ...] = ()


def candidates(bench: Bench, plans: Sequence[str], top: int) -> list[Candidate]:
    """The given plans, or the recommendation's first. Raises NoPlanFitsError where nothing fits."""
    problem = bench.asked.problem
    if plans:
        given = [legal_plan(problem, text) for text in dict.fromkeys(plans)]
        return [Candidate(plan=plan, sequences=_users(problem.workload) / plan.dp) for plan in given]
    advice = answer(bench.asked)
    if not advice.choices:
        raise NoPlanFitsError(
            f"no plan fits {problem.model.name} on {problem.cluster.device.name}; `advisor recommend` says what would."
        )
    users = _users(problem.workload)
    return [Candidate(plan=p.plan, sequences=(users or p.sequences) / p.plan.dp) for p in advice.choices[:top]]


def _users(workload: Workload) -> float:
    return 0.0 if workload.users == 0 else float(workload.users)


def validate_runner(
    bench: Bench, plans: Sequence[str], *, top: int, settings: Settings, nodes: Nodes, results: Path | None, fresh: bool
) -> Done:
    """Every plan on the bundled transformer, beside its prediction."""
    problem = runner_problem(bench.asked.problem, bench.engine, device=settings.device)
    chosen = candidates(bench, plans, top)
    if settings.device == "cpu":
        chosen = [replace(c, sequences=min(c.sequences or CPU_BATCH, CPU_BATCH)) for c in chosen]
    settings = replace(settings, gpus=bench.gpus, machine=bench.machine)
    calibration = bench.asked.calibration
    kept = Results.open(results or default_path(problem, device=settings.device), fresh=fresh)
    jobs = [job_for(problem, candidate, settings, calibration) for candidate in chosen]
    said = (*bench.asked.said, *bench.said, *_exchange_said(jobs, settings))
    on_gpus = settings.device == "cuda"
    measured, complete = run_all(
        jobs, kept, node=problem.cluster.node if on_gpus else None, nodes=nodes, say=say, threads=cpu_threads(bench.gpus)
    )
    batches = [whole_batch(own_batch(problem, candidate), candidate.plan) for candidate in chosen]
    found = [
        plan_result(problem, m.job, m.measurement, calibration, batch=batch, resumed=m.resumed)
        for m, batch in zip(measured, batches, strict=False)
    ]
    device = problem.cluster.device
    usable, left_out = ratios(found, bound_rates(calibration, device, problem.model.formats.ffn))
    return Done(
        validation=_validation(problem, calibration, found, measured, said), calibration=calibration,
        device=device, complete=complete, path=None if kept.unwritten else kept.path, ratios=usable, left_out=left_out,
    )  # fmt: skip


def _exchange_said(jobs: Sequence[Job], settings: Settings) -> tuple[str, ...]:
    """What a table by another exchange than the predicted one must say. Raises QuestionError where no plan has it."""
    if settings.exchange == "all_gather":
        return ()
    others = [job.plan.label for job in jobs if job.exchange != settings.exchange]
    if len(others) == len(jobs):
        raise QuestionError(
            f"no plan here can exchange tokens by {settings.exchange}, which needs adp above 1 and ep a multiple of adp; name one "
            "with --plan, e.g. adp=2,ep=2, or leave --exchange out."
        )
    said = f"Tokens met their experts by {settings.exchange}; the predictions are of all_gather."
    return (said, f"By all_gather, having no other exchange: {'; '.join(others)}.") if others else (said,)


def _validation(
    problem: Problem, calibration: Calibration, found: list[PlanResult], measured: Sequence[Measured], said: tuple[str, ...]
) -> Validation:
    named = next((m.measurement for m in measured if m.measurement.device_name), None)
    return Validation(
        model=problem.model.name, machine=f"{problem.cluster.gpus} x {problem.cluster.device.name}",
        measured_on=named.device_name if named else "", software=named.software if named else "", calibration=calibration.name,
        plans=tuple(found), order=order_of(found, problem.workload.goal, problem.workload.output_tokens), said=said,
    )  # fmt: skip


def ratios(found: Sequence[PlanResult], rates: tuple[float, float]) -> tuple[tuple[tuple[str, float], ...], tuple[str, ...]]:
    """Measured over predicted of each plan that was measured whole, one figure a phase, and why others do not count.

    `rates` are the bytes/s and FLOP/s that bound a step: a figure below USABLE of them shows the runner's own losses.
    """
    pairs, left_out = [], []
    for plan in found:
        if plan.shard or plan.failed:
            continue
        for phase, pair in (("decode", plan.tpot_s), ("prefill", plan.ttft_s)):
            cell = next((cell for cell in plan.cells if cell.seconds == pair), None)
            if cell is None or not pair.measured:
                continue
            share = share_of_bound(cell, *rates)
            if share >= USABLE:
                pairs.append((phase, pair.measured / pair.predicted))
            else:
                left_out.append(f"{phase} of {plan.plan.label} reached {share:.0%} of what bounds it")
    return tuple(pairs), tuple(left_out)


def validate_suite(
    asked: Options, *, settings: Settings, results: Path | None, fresh: bool
) -> tuple[list[tuple[str, Done]], Benchmarks]:
    """The standard table, with copy and matrix rates of the same run."""
    torch = ask_torch()
    nodes = Nodes()
    say("micro-benchmarks first: the rates that bound the table")
    rates = benchmarks(device=settings.device, ranks=1, nodes=nodes)
    done: list[tuple[str, Done]] = []
    for name, plan in suite():
        options: Options = {**_whole(asked, plan, torch), "engine": "vllm"}
        found = question(model=name, **options)
        problem = runner_problem(found.problem, load_engine("runner"), device=settings.device)
        limit_s = min(settings.time_limit_s, SUITE_LIMIT_S)
        here = replace(settings, gpus=max(1, torch.gpus), machine=torch.identity, time_limit_s=limit_s)
        job = suite_job(problem, plan, here, found.calibration)
        kept = Results.open(results or default_path(problem, device=f"{settings.device}-suite"), fresh=fresh)
        measured, complete = run_all([job], kept, node=None, nodes=nodes, say=say)
        plans = [plan_result(problem, m.job, m.measurement, found.calibration, batch=64, resumed=m.resumed) for m in measured]
        validation = _validation(problem, found.calibration, plans, measured, ())
        whole = Done(
            validation=validation, calibration=found.calibration, device=problem.cluster.device, complete=complete, path=kept.path
        )
        done.append((name, whole))
        if not complete:
            break
    return done, rates


def _whole(asked: Options, plan: Plan, torch: Torch) -> Options:
    """The machine as it would be with the plan's GPUs: more of the same where there are fewer."""
    from advisor.catalog.machines import device_for_reading

    if asked.get("cluster"):
        return asked
    if asked.get("gpu"):
        return {**asked, "gpus": max(plan.world, asked.get("gpus") or 1)}
    here = device_for_reading(torch.names[0], None) if torch.names else None
    if here is None:
        raise MachineError("the GPU here is not in the catalogue; name it with --gpu, or write its sheet (docs/profiles.md).")
    return {**asked, "gpu": here.name, "gpus": max(1, plan.world)}


# Real engines.


def validate_engine(
    model: str, asked: Options, plans: Sequence[str], *, engine: str, endpoint: str, tool: str, checkpoint: str, top: int,
    time_limit_s: float,
) -> Done:  # fmt: skip
    """Every plan on the real engine through a load generator; one running server is one plan."""
    from advisor.measure.load_test import LoadTest, checked_url, load_for, load_tool, measure

    if endpoint:
        checked_url(endpoint)
        if len(plans) != 1:
            raise QuestionError("--endpoint is one running server: say with --plan which plan it runs.")
    generator = load_tool(tool)
    options: Options = {**asked, "engine": engine}
    found = question(model=model, **options)
    problem, calibration = found.problem, found.calibration
    from advisor.serving.predict import Predictor

    predictor = Predictor(problem, calibration)

    if plans:
        predictions = [predictor.predict(legal_plan(problem, text)) for text in dict.fromkeys(plans)]
    else:
        predictions = list(answer(found).choices[:top])
        if not predictions:
            raise NoPlanFitsError(f"no plan fits {problem.model.name}; `advisor recommend` says what would.")
    done: list[PlanResult] = []
    points: list[Mapping[str, str | None]] = []
    complete = True
    for number, choice in enumerate(predictions, 1):
        load = load_for(problem.workload, choice.sequences)
        loaded = replace(problem, workload=load)
        prediction = predictor.under(load).predict(choice.plan)
        head = f"[{number}/{len(predictions)}] {choice.plan.label}"
        test = LoadTest(
            problem=loaded, prediction=prediction, tool=generator, endpoint=endpoint, model=checkpoint, time_limit_s=time_limit_s
        )
        try:
            result = measure(test, lambda line, head=head: say(f"{head}: {line}"))  # type: ignore[misc]
            done.append(engine_result(prediction, result))
            points += _points(result, loaded, prediction.plan)
        except KeyboardInterrupt:
            complete = False
            break
        except AdvisorError as error:
            say(f"{head}: failed: {error}")
            done.append(engine_result(prediction, None, failed=str(error)))
    software = f"{engine} under {generator}"
    validation = replace(
        _validation(problem, calibration, done, (), found.said), measured_on=endpoint or "this machine", software=software
    )
    return Done(
        validation=validation, calibration=calibration, device=problem.cluster.device, complete=complete, path=None,
        points=tuple(points),
    )  # fmt: skip


def _points(result: LoadResult, problem: Problem, plan: Plan) -> list[Mapping[str, str | None]]:
    """The run as a row that corrects a calibration; none for a plan that rows cannot say."""
    try:
        return [point_row(result, problem, plan, name=plan.label, date=date.today().isoformat())]
    except QuestionError:
        return []
