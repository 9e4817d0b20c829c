"""The door of the roofline: what one plan does under the workload, and where its time and memory go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from types import MappingProxyType

from advisor.errors import PlanError
from advisor.roofline.breakdown import decode_breakdown, prefill_breakdown
from advisor.roofline.comm import Lines
from advisor.roofline.fabric import Fabrics, LinkGraph, plan_fabrics
from advisor.roofline.memory import context_shortfall, default_settings, largest_context, rank_memory
from advisor.roofline.step import StepModel, stage_device
from advisor.serving.capacity import Capacity
from advisor.serving.familiarity import spread_for, unfamiliar
from advisor.serving.run import run_burst, run_steady
from advisor.serving.served import Served, mixed
from advisor.serving.steady import as_much_as_fits, new_tokens, open_loop, saturated, steady
from advisor.specs.calibration import Calibration
from advisor.specs.plan import Plan, Settings
from advisor.specs.prediction import Estimate, Prediction, RankMemory, StepTime
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

Z90 = 1.6449  # half width of a 90% interval of the normal distribution, in standard deviations


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a step model depends on besides the question."""

    tp: int
    pp: int
    ep: int
    adp: int
    layer_split: tuple[int, ...]
    fabrics: Fabrics
    gpus: tuple[int, ...]


class Predictor:
    """Answers about the plans of one question: the links and coefficients are prepared once, plans that differ only in dp share a
    step model."""

    def __init__(
        self, problem: Problem, calibration: Calibration, others: Mapping[str, Calibration] = MappingProxyType({})
    ) -> None:
        """`others` are the calibrations of the other devices of a box of several, by device."""
        self.problem, self.calibration, self._others = problem, calibration, others
        self._graph = LinkGraph(problem.cluster)
        self._lines: dict[str, Lines] = {}
        self._models: dict[_Shape, StepModel] = {}

    def about(self, problem: Problem) -> Predictor:
        """The same coefficients for another question on these devices."""
        return Predictor(problem, self.calibration, self._others)

    def calibration_of(self, plan: Plan) -> Calibration:
        """What the times of a plan rest on: the calibration of the slowest of its devices."""
        return self._others.get(stage_device(self.problem, plan).name, self.calibration) if self._others else self.calibration

    def lines_of(self, calibration: Calibration) -> Lines:
        """What links reach by one of the calibrations, prepared once."""
        if calibration.name not in self._lines:
            self._lines[calibration.name] = Lines(calibration)
        return self._lines[calibration.name]

    def under(self, workload: Workload) -> Predictor:
        """The same question under another load; step models are shared, for none depends on the load."""
        other = copy(self)
        other.problem = replace(self.problem, workload=workload)
        return other

    def predict(self, plan: Plan) -> Prediction:
        """TTFT, TPOT and throughput of `plan` under the problem's workload, with intervals; the load is simulated.

        Settings the plan leaves open are the engine's defaults. Raises PlanError for a plan the model or engine cannot run and for
        one whose cache cannot hold a single sequence.
        """
        return _predict(self, plan, screen=False)

    def screen(self, plan: Plan) -> Prediction:
        """The same, with a steady load answered by the formula of `steady.py`: a hundred times faster, to compare many plans."""
        return _predict(self, plan, screen=True)

    def explain(self, plan: Plan, *, batch: float, context_tokens: float) -> StepTime:
        """Where a decode step of `batch` sequences of a replica at that context goes.

        They are shared by the attention-DP ranks, and by the micro-batches in flight.
        """
        return decode_breakdown(self.step_model(plan), batch, context_tokens)

    def explain_prefill(self, plan: Plan, *, new_tokens: float) -> StepTime:
        """Where the prefill of one prompt in a single step goes."""
        return prefill_breakdown(self.step_model(plan), new_tokens, 0.0, new_tokens)

    def step_model(self, plan: Plan) -> StepModel:
        """The step model of a plan's replica."""
        fabrics = plan_fabrics(self._graph, plan)
        gpus = () if self.problem.cluster.node.is_uniform else plan.gpus
        shape = _Shape(plan.tp, plan.pp, plan.ep, plan.adp, plan.layer_split, fabrics, gpus)
        if shape not in self._models:
            calibration = self.calibration_of(plan)
            lines = self.lines_of(calibration)
            self._models[shape] = StepModel(self.problem, plan, calibration, fabrics=fabrics, lines=lines)
        return self._models[shape]


def _predict(predictor: Predictor, plan: Plan, *, screen: bool) -> Prediction:
    problem, calibration = predictor.problem, predictor.calibration_of(plan)
    plan, memory, capacity = fitted(problem, plan)
    model = predictor.step_model(plan)
    served, notes = _serve(model, problem.workload, capacity, plan.dp, screen)
    assert plan.settings is not None
    plan = replace(plan, settings=replace(plan.settings, max_sequences=_ceiling(problem, plan, plan.settings, served, calibration)))
    return _prediction(problem, plan, calibration, model, memory, served, notes, capacity)


def fitted(problem: Problem, plan: Plan) -> tuple[Plan, RankMemory, Capacity]:
    """The plan with its settings, the memory of its fullest rank, and what bounds a replica. Raises PlanError where it cannot run
    or does not fit."""
    plan = settings_of(problem, plan)
    settings, memory = plan.settings, rank_memory(problem, plan)
    assert settings is not None
    capacity = Capacity(
        max_sequences=settings.max_sequences * plan.adp, kv_tokens=float(memory.kv_tokens), token_budget=settings.token_budget
    )
    return plan, memory, capacity


def settings_of(problem: Problem, plan: Plan) -> Plan:
    """The plan with settings, the engine's defaults where it has none. Raises PlanError where it cannot run or does not fit."""
    try:
        settings = plan.settings or default_settings(problem, plan)
        settled = replace(plan, settings=settings)
        memory = rank_memory(problem, settled)
    except ValueError as error:
        raise PlanError(f"{plan.label} cannot run {problem.model.name}: {error}.") from None
    needed = problem.workload.context_tokens
    if memory.shortfall_bytes > 0 or memory.kv_tokens < needed:
        raise PlanError(
            f"{plan.label} does not fit: one sequence of {needed:,.0f} tokens is "
            f"{memory.shortfall_bytes / 2**30:.1f} GiB short on {problem.cluster.device.name}; "
            "use more GPUs, fewer bytes a weight or a shorter context."
        )
    if short := context_shortfall(problem, settled, memory):
        raise PlanError(f"{plan.label} does not fit: {short}; use more GPUs or a shorter --context.")
    if plan.settings is None:
        settled = replace(settled, settings=replace(settings, max_context_tokens=largest_context(problem, settled, memory)))
    return settled


# Of requests in flight with open arrivals, whose number varies like a Poisson one: above it one in a thousand waits for a place.
DEVIATIONS = 3.0
MOST_SIMULATED = 2048  # users of a replica; more take over ten seconds, and only wait longer
MOST_REQUESTS = 16_384  # of a burst; the mean over more is the same
BATCH_STEP = 8  # batch ceilings are rounded up to a multiple of this, as engines capture their graphs


def _ceiling(problem: Problem, plan: Plan, settings: Settings, served: Served, calibration: Calibration) -> int:
    """The batch ceiling that goes with the prediction: what was ranked, so that an overload cannot push TPOT past it.

    With open arrivals it is what is in flight where answers take as long as the 90% interval allows, and its variation.
    """
    workload = problem.workload
    if workload.mode == "offline" or served.overloaded:
        return settings.max_sequences
    in_flight = served.requests_per_s * served.latency_s / plan.adp
    if workload.mode == "open_loop":
        spread = spread_for(problem.engine, calibration, "latency", problem.model)
        in_flight *= math.exp(Z90 * math.hypot(spread.shared, spread.independent))
        in_flight += DEVIATIONS * math.sqrt(in_flight)
    if workload.users:
        in_flight = workload.users / plan.dp / plan.adp
    elif workload.mode == "open_loop":  # Poisson arrivals: one in a thousand moments has three standard deviations more
        in_flight += 3 * math.sqrt(in_flight)
    return min(settings.max_sequences, max(BATCH_STEP, math.ceil(in_flight / BATCH_STEP) * BATCH_STEP))


def _serve(model: StepModel, workload: Workload, capacity: Capacity, dp: int, screen: bool) -> tuple[Served, tuple[str, ...]]:
    """One replica's share of the load."""
    if workload.mode == "offline":
        return saturated(model, workload, capacity, workload.users / dp), ()
    if workload.mode in ("static_batch", "single_stream"):
        return run_burst(
            model, workload, capacity, users=0, requests=min(MOST_REQUESTS, max(1, math.ceil(workload.users / dp)))
        ), ()
    if workload.mode == "open_loop":
        return _arrivals(model, workload, capacity, dp, screen)
    if workload.mode == "closed_loop":
        users = max(1.0, workload.users / dp)
        if users > MOST_SIMULATED:
            fewer, notes = _serve(model, replace(workload, users=MOST_SIMULATED), capacity, 1, screen)
            return _queued_behind(fewer, users - MOST_SIMULATED), notes
        if workload.start == "burst":
            requests = min(MOST_REQUESTS, max(round(users), round(workload.requests / dp)))
            return run_burst(model, workload, capacity, users=max(1, round(users)), requests=requests), ()
        return _users(model, workload, capacity, users, screen), ()
    return _as_much_as_fits(model, workload, capacity, screen)


def _queued_behind(served: Served, more: float) -> Served:
    """The same replica with so many more users than it can run at once: each waits until those before it are served.

    Little's law: users / rate = latency, and the rate stays. Left out: nothing else changes with a longer queue.
    """
    wait_s = more / served.requests_per_s
    return replace(served, ttft_s=served.ttft_s + wait_s, latency_s=served.latency_s + wait_s)


def _arrivals(model: StepModel, workload: Workload, capacity: Capacity, dp: int, screen: bool) -> tuple[Served, tuple[str, ...]]:
    """A share of open arrivals; an overload is said, and looked at by the formula: its queue has no steady length."""
    rate_per_s = workload.rate_per_s / dp
    if workload.start == "burst":
        share = replace(workload, rate_per_s=rate_per_s)
        return run_burst(model, share, capacity, users=0, requests=min(MOST_REQUESTS, max(1, round(workload.requests / dp)))), ()
    served = open_loop(model, workload, capacity, rate_per_s)
    if served.overloaded:
        carried = served.requests_per_s * dp
        return served, (f"overloaded: it carries {carried:.3g} of {workload.rate_per_s:.3g} requests/s, the queue grows",)
    return served if screen else run_steady(model, workload, capacity, rate_per_s=rate_per_s), ()


def _users(model: StepModel, workload: Workload, capacity: Capacity, users: float, screen: bool) -> Served:
    """The steady state of a closed loop. A fraction of a user a replica: some replicas have one more than others."""
    if screen:
        return steady(model, workload, capacity, users)
    fewer, more = run_steady(model, workload, capacity, users=math.floor(users)), None
    if users > math.floor(users):
        more = run_steady(model, workload, capacity, users=math.ceil(users))
    return mixed(fewer, more, users % 1) if more else fewer


def _as_much_as_fits(model: StepModel, workload: Workload, capacity: Capacity, screen: bool) -> tuple[Served, tuple[str, ...]]:
    """As many users of a replica as the limits allow; a single one where the goal is latency without limits."""
    if workload.goal == "latency" and workload.ttft_limit_s is None and workload.tpot_limit_s is None:
        return _users(model, workload, capacity, 1.0, screen), ()
    served = as_much_as_fits(model, workload, capacity)
    return served, ()


def _usd_per_hour(problem: Problem, plan: Plan) -> float | None:
    """What the GPUs of a plan cost together; None where the price of one is not known."""
    node = problem.cluster.node
    if node.is_uniform:
        each = node.devices[0].price_usd_per_hour
        return None if each is None else each * plan.world
    prices = [node.devices[plan.gpu(rank) % len(node.devices)].price_usd_per_hour for rank in range(plan.world)]
    return None if None in prices else sum(price for price in prices if price is not None)


def _within(workload: Workload, ttft_s: float, tpot_s: float) -> bool:
    return (workload.ttft_limit_s is None or ttft_s <= workload.ttft_limit_s) and (
        workload.tpot_limit_s is None or tpot_s <= workload.tpot_limit_s
    )


def _prediction(
    problem: Problem,
    plan: Plan,
    calibration: Calibration,
    model: StepModel,
    memory: RankMemory,
    served: Served,
    notes: tuple[str, ...],
    capacity: Capacity,
) -> Prediction:
    workload = problem.workload

    def estimate(figure: str, value: float) -> Estimate:
        spread = spread_for(problem.engine, calibration, figure, problem.model)
        accepted = 0.0 if figure == "ttft" or not problem.speculation else problem.speculation.log_width
        width = math.hypot(Z90 * math.hypot(spread.shared, spread.independent), accepted)
        return Estimate(value=value, low=value * math.exp(-width), high=value * math.exp(width), independent=spread.independent)

    replicas = plan.dp
    if workload.mode in ("closed_loop", "static_batch", "single_stream") and workload.users < plan.dp:
        replicas = workload.users  # a replica without a request adds nothing
    running = max(1.0, served.running)
    decode = decode_breakdown(model, running, served.context)
    prefill = prefill_breakdown(model, new_tokens(workload), workload.prefix_cached_tokens, capacity.token_budget)
    output_rate = served.output_tokens_per_s * replicas
    usd_per_hour = _usd_per_hour(problem, plan)
    usd = usd_per_hour / 3600 / output_rate * 1e6 if usd_per_hour is not None and output_rate > 0 else None
    return Prediction(
        plan=plan,
        ttft_s=estimate("ttft", served.ttft_s),
        tpot_s=estimate("tpot", served.tpot_s),
        latency_s=estimate("latency", served.latency_s),
        decode_tokens_per_s=estimate("tpot", running * replicas / served.tpot_s if served.tpot_s else 0.0),
        output_tokens_per_s=estimate("throughput", output_rate),
        total_tokens_per_s=estimate("throughput", served.total_tokens_per_s * replicas),
        requests_per_s=estimate("throughput", served.requests_per_s * replicas),
        sequences=running * replicas,
        kv_tokens=memory.kv_tokens * plan.dp,
        max_sequences=int(max(1, memory.kv_tokens // workload.context_tokens)) * plan.dp,
        memory=memory,
        decode=decode,
        prefill=prefill,
        bottleneck=_bottleneck(decode, prefill, served, workload),
        within_limits=_within(workload, served.ttft_s, served.tpot_s) and not served.overloaded,
        usd_per_million_tokens=usd,
        calibration=calibration.name,
        overloaded=served.overloaded,
        notes=(*notes, *filter(None, (unfamiliar(problem.engine, problem.model),))),
    )


def _bottleneck(decode: StepTime, prefill: StepTime, served: Served, workload: Workload) -> str:
    """The largest part of a replica's time, decode and prefill weighted by how much of each a request needs."""
    weights: dict[str, float] = {}
    for step, times in ((decode, workload.output_tokens / max(1.0, served.running)), (prefill, 1.0)):
        for part in step.parts:
            name = f"prefill {part.name}" if step is prefill and part.name in ("compute", "weights") else part.name
            weights[name] = weights.get(name, 0.0) + part.amount * times
    return max(weights, key=lambda name: weights[name])
