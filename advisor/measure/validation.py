"""A Measurement beside what the model predicted for the same cells, and whether the order of the plans held.

Legend: `B` sequences of one replica. Error is predicted over measured less one: positive means the model was too slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from advisor.measure.load_result import LoadResult
from advisor.roofline import graph
from advisor.roofline.attention import Batch
from advisor.roofline.memory import rank_memory
from advisor.roofline.step import StepModel
from advisor.roofline.work import Collective
from advisor.serving.predict import Predictor
from advisor.specs.calibration import Calibration
from advisor.specs.experiment import Cell, Job, Measurement, Timing
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem
from advisor.specs.workload import Goal

TIE = 0.03  # two plans measured closer than this are not told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One figure on both sides; `measured` is None where it was not measured."""

    predicted: float
    measured: float | None

    @property
    def error(self) -> float | None:
        """Predicted / measured - 1."""
        return self.predicted / self.measured - 1.0 if self.measured else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One cell: seconds of the step, the middle 80% of the measured ones, and what one rank achieved.

    `from_model_s` is the part of `seconds.measured` that was taken from the model (collectives of a rank that ran alone).
    """

    cell: Cell
    seconds: Pair
    low_s: float
    high_s: float
    achieved_flop_per_s: float
    achieved_bytes_per_s: float
    from_model_s: float = 0.0
    bubble: Pair | None = None
    naive_s: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """One plan: TTFT of one prompt, TPOT of its own batch, tokens/s of all replicas, cache tokens of one replica.

    `kv_tokens` None: not counted. The runner's `rate` is of decode steps alone, a real engine's of all output with the prefills
    between.
    `failed` is why it has no figures (or not all), `shard` that one rank ran alone.
    """

    plan: Plan
    batch: int
    ttft_s: Pair
    tpot_s: Pair
    tokens_per_s: Pair
    kv_tokens: Pair | None
    rate: Literal["decode", "output"] = "decode"
    cells: tuple[CellResult, ...] = ()
    failed: str = ""
    shard: bool = False
    resumed: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Whether the plans came in the predicted order. `held` None: fewer than two were measured."""

    goal: Goal
    predicted: tuple[str, ...]
    measured: tuple[str, ...]
    held: bool | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """All plans of one validation, and on what."""

    model: str
    machine: str
    measured_on: str
    software: str
    calibration: str
    plans: tuple[PlanResult, ...]
    order: Order
    said: tuple[str, ...] = field(default=())


def cell_s(model: StepModel, cell: Cell) -> float:
    """Predicted seconds of a cell: a decode step of B sequences, alone or with a piece of a prompt, or their prefill to the first
    token. Contexts that differ read as many cached tokens as equal ones of the same mean.
    """
    if cell.phase == "decode":
        return model.decode_s(cell.batch, cell.context_tokens)
    if cell.phase == "mixed":
        chunk = (float(cell.chunk_tokens), 0.0)
        return model.mixed_s(cell.batch, cell.context_tokens, [chunk] * model.plan.adp)
    if cell.chunk_tokens:
        return _pieces_s(model, cell)
    return model.mixed_s(0, 0, [(float(cell.context_tokens), 0.0)] * cell.batch)


def _pieces_s(model: StepModel, cell: Cell) -> float:
    """A prompt in pieces through stages: the first piece visits all, every other follows at the slowest stage's pace."""
    seconds = 0.0
    for past in range(0, cell.context_tokens, cell.chunk_tokens):
        new = min(cell.chunk_tokens, cell.context_tokens - past)
        batch = Batch(prefills=cell.batch, new=new, past=past)
        stages = [model.stage_s(stage, batch) for stage in range(model.plan.pp)]
        seconds += max(stages) if past else sum(stages)
    return seconds


def plan_result(
    problem: Problem, job: Job, measurement: Measurement, calibration: Calibration, *, batch: int, resumed: bool = False
) -> PlanResult:
    """One plan's figures from its Measurement, whole or partial; `problem` is the runner's own."""
    model = Predictor(problem, calibration).step_model(job.plan)
    timings = sorted(measurement.timings, key=lambda t: (t.cell.phase, t.cell.context_tokens, t.cell.batch))
    cells = tuple(_cell(model, job, t) for t in timings)
    load = problem.workload
    one = _closest(job, "prefill", job.plan.adp, load.input_tokens)
    own = _closest(job, "decode", batch, load.input_tokens + load.output_tokens / 2)
    ttft = _pair(model, one, cells)
    tpot = _pair(model, own, cells)
    running = own.batch * job.plan.dp
    notes = measurement.notes
    if resumed:
        notes = (
            *notes,
            f"measured earlier ({measurement.date or 'date unknown'}) and not again: the prediction is from rates of now",
        )
    rate = Pair(predicted=running / tpot.predicted, measured=running / tpot.measured if tpot.measured else None)
    cache = None
    if job.device == "cuda":
        held = float(measurement.kv_tokens) if measurement.kv_tokens else None
        cache = Pair(predicted=float(rank_memory(problem, job.plan).kv_tokens), measured=held)
    return PlanResult(
        plan=job.plan, batch=own.batch, ttft_s=ttft, tpot_s=tpot, tokens_per_s=rate, kv_tokens=cache, cells=cells,
        failed=measurement.reason if measurement.status == "failed" else "", shard=job.shard, resumed=resumed,
        notes=notes,
    )  # fmt: skip


def engine_result(prediction: Prediction, measured: LoadResult | None, *, failed: str = "") -> PlanResult:
    """One plan's figures from a load test of a real engine."""
    users = max(1, round(prediction.sequences / prediction.plan.dp))
    lost = (f"{measured.failed} of {measured.requests + measured.failed} requests failed",) if measured and measured.failed else ()
    return PlanResult(
        plan=prediction.plan, batch=users, rate="output", kv_tokens=None, failed=failed,
        ttft_s=Pair(predicted=prediction.ttft_s.value, measured=measured.ttft_s if measured else None),
        tpot_s=Pair(predicted=prediction.tpot_s.value, measured=measured.tpot_s if measured else None),
        tokens_per_s=Pair(
            predicted=prediction.output_tokens_per_s.value, measured=measured.output_tokens_per_s if measured else None
        ),
        notes=lost,
    )  # fmt: skip


def _closest(job: Job, phase: str, batch: float, tokens: float) -> Cell:
    cells = [cell for cell in job.cells if cell.phase == phase and not cell.chunk_tokens and not cell.mixed_lengths]
    return min(cells, key=lambda c: (abs(c.context_tokens - tokens), abs(c.batch - batch)))


def _pair(model: StepModel, cell: Cell, cells: Sequence[CellResult]) -> Pair:
    found = next((c.seconds for c in cells if c.cell == cell), None)
    return found or Pair(predicted=cell_s(model, cell), measured=None)


def _cell(model: StepModel, job: Job, timing: Timing) -> CellResult:
    cell, plan = timing.cell, job.plan
    predicted = cell_s(model, cell)
    result = CellResult(
        cell=cell, seconds=Pair(predicted=predicted, measured=timing.median_s), low_s=timing.low_s, high_s=timing.high_s,
        achieved_flop_per_s=timing.achieved_flop_per_s, achieved_bytes_per_s=timing.achieved_bytes_per_s,
        naive_s=timing.naive_s, notes=timing.notes,
    )  # fmt: skip
    if timing.bubble is not None:
        result = replace(result, bubble=Pair(predicted=bubble(model, cell), measured=timing.bubble))
    return _with_others(model, plan, result) if job.shard else result


def _with_others(model: StepModel, plan: Plan, result: CellResult) -> CellResult:
    """The step of the whole plan from one rank's: its collectives from the model, all stages as the one that was measured (E2)."""
    cell = result.cell
    own = max(1, cell.batch // plan.adp)
    flights = min(plan.pp, own)
    wires = max(_wires_s(model, plan, cell, own / flights, stage) for stage in range(plan.pp))
    visits = plan.pp if cell.phase == "decode" else plan.pp + flights - 1
    assert result.seconds.measured is not None
    times = max(visits, flights)
    measured = (result.seconds.measured + wires) * times
    return replace(
        result, seconds=replace(result.seconds, measured=measured), from_model_s=wires * times,
        low_s=(result.low_s + wires) * times, high_s=(result.high_s + wires) * times,
    )  # fmt: skip


def _wires_s(model: StepModel, plan: Plan, cell: Cell, rows: float, stage: int) -> float:
    if cell.phase == "decode":
        batch = Batch(decodes=rows, context=cell.context_tokens)
    elif cell.phase == "mixed":
        batch = Batch(decodes=rows, context=cell.context_tokens, prefills=1, new=cell.chunk_tokens)
    else:
        batch = Batch(prefills=rows, new=cell.context_tokens)
    works = graph.step_work(model.problem, plan, stage=stage, batch=batch)
    return sum(model.work_s(work) for work in works if isinstance(work, Collective))


def bubble(model: StepModel, cell: Cell) -> float:
    """Predicted share of a decode step in which a stage waits: 1 - flights * mean stage / step."""
    plan = model.plan
    own = max(1.0, cell.batch / plan.adp)
    flights = min(plan.pp, int(own))
    batch = Batch(decodes=own / flights, context=cell.context_tokens)
    stages = [model.stage_s(stage, batch) for stage in range(plan.pp)]
    step = max(sum(stages), flights * max(stages))
    return 1.0 - flights * sum(stages) / len(stages) / step


def share_of_bound(cell: CellResult, copy_bytes_per_s: float, flop_per_s: float) -> float:
    """How much of a copy's bytes/s or a matrix product's FLOP/s, whichever is nearer, one rank reached in the cell."""
    of_products = cell.achieved_flop_per_s / flop_per_s if flop_per_s else 0.0
    return max(cell.achieved_bytes_per_s / copy_bytes_per_s, of_products)


# The order.


def order_of(results: Sequence[PlanResult], goal: Goal, output_tokens: float) -> Order:
    """The plans by the goal, as predicted and as measured: seconds of a request, tokens/s, or tokens/s per GPU.

    A plan of which one rank ran alone has the model's own messages in its figures: it has no place in a measured order.
    """
    measured = [r for r in results if r.tpot_s.measured and r.ttft_s.measured and r.tokens_per_s.measured and not r.shard]
    shards = [r.plan.label for r in results if r.shard]
    predicted_order = sorted(measured, key=lambda r: _worth(r, goal, output_tokens, predicted=True))
    measured_order = sorted(measured, key=lambda r: _worth(r, goal, output_tokens, predicted=False))
    held: bool | None = None
    sentence = "Fewer than two plans were measured: there is no order to compare."
    if len(measured) > 1:
        wrong = [
            (a, b)
            for at, a in enumerate(predicted_order)
            for b in predicted_order[at + 1 :]
            if _worth(a, goal, output_tokens, predicted=False) > _worth(b, goal, output_tokens, predicted=False) * (1 + TIE)
        ]
        held = not wrong
        best = measured_order[0]
        if held:
            sentence = f"The order is as predicted: {best.plan.label} is the best{_ties(measured_order, goal, output_tokens)}."
        else:
            first = predicted_order[0]
            loss = _worth(first, goal, output_tokens, predicted=False) / _worth(best, goal, output_tokens, predicted=False) - 1
            sentence = (
                f"The order is not as predicted: {best.plan.label} was the best"
                + (f", {loss:.0%} ahead of {first.plan.label}, which was predicted" if best is not first else " as predicted")
                + f"; {len(wrong)} of {len(measured) * (len(measured) - 1) // 2} pairs came the other way round."
            )
    if shards:
        sentence += f" Left out, because their messages between GPUs are the model's: {'; '.join(shards)}."
    return Order(
        goal=goal, predicted=tuple(r.plan.label for r in predicted_order), measured=tuple(r.plan.label for r in measured_order),
        held=held, sentence=sentence,
    )  # fmt: skip


def _ties(order: Sequence[PlanResult], goal: Goal, output_tokens: float) -> str:
    first, second = (_worth(r, goal, output_tokens, predicted=False) for r in order[:2])
    return f", within {TIE:.0%} of the second" if second <= first * (1 + TIE) else ""


def _worth(result: PlanResult, goal: Goal, output_tokens: float, *, predicted: bool) -> float:
    """What the goal makes small: seconds of a request, or seconds a token (times the GPUs for cost)."""

    def side(pair: Pair) -> float:
        value = pair.predicted if predicted else pair.measured
        assert value is not None
        return value

    if goal == "latency":
        return side(result.ttft_s) + output_tokens * side(result.tpot_s)
    each = 1.0 / side(result.tokens_per_s)
    return each * result.plan.world if goal == "cost" else each
