"""The question with one thing changed: another GPU or number format, or a longer prompt."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from advisor.api.cores import on_cores
from advisor.api.load_curve import Curves
from advisor.api.question import Question
from advisor.api.starting import cannot_start
from advisor.catalog.calibrations import load_calibration
from advisor.catalog.machines import list_devices, load_cluster
from advisor.catalog.models import requantise
from advisor.errors import AdvisorError, QuestionError
from advisor.search.ceiling import least_ceiling
from advisor.search.legal import block_refusal, refusal
from advisor.search.place import Placer
from advisor.search.space import needs
from advisor.serving.familiarity import closeness
from advisor.serving.predict import Predictor
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import Cluster, Device
from advisor.specs.exploration import Variant, VariantPlan
from advisor.specs.formats import FORMATS
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem

FORMATS_OFFERED = ("bf16", "fp8", "int4")
INPUTS_OFFERED = (1024, 4096, 16384)
OTHER_GPUS, OTHER_FORMATS, OTHER_INPUTS = 3, 1, 2
MOST_SHAPES = 6
MOST_PROCESSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """What differs from the question; None keeps the question's own."""

    device: Device | None = None
    weights: str | None = None
    input_tokens: int | None = None


def variants(asked: Question, shapes: Sequence[Plan], *, most_users: int) -> tuple[Variant, ...]:
    """The question itself, then each GPU with each number format, then other prompt lengths on the question's own machine."""
    problem = asked.problem
    devices: list[Device | None] = [None, *_other_devices(asked)]
    weights: list[str | None] = [None, *_other_formats(problem)]
    changes = [_Change(device=device, weights=form) for device in devices for form in weights]
    changes += [_Change(input_tokens=tokens) for tokens in _other_inputs(problem)]
    cores = min(os.cpu_count() or 1, MOST_PROCESSES)
    ask = partial(_variant, asked, shapes, most_users)
    if cores == 1:
        return tuple(map(ask, changes))
    return tuple(on_cores(ask, changes, cores=cores))


def _other_devices(asked: Question) -> list[Device]:
    """GPUs whose own kernels were measured, of the vendors that the engine was fitted on; those with a known price first."""
    mine, engine = asked.problem.cluster.device, asked.problem.engine
    devices = [d for d in list_devices() if d.name != mine.name and d.name in engine.fitted_on]
    measured = [d for d in devices if closeness(load_calibration(d, local=False)) == "device"]
    return sorted(measured, key=lambda d: (d.price_usd_per_hour is None, d.vendor != mine.vendor, -d.memory_bytes_per_s))[
        :OTHER_GPUS
    ]


def _other_formats(problem: Problem) -> list[str]:
    own = problem.model.weight_format
    return [f for f in FORMATS_OFFERED if FORMATS[f].bytes_per_value != FORMATS[own].bytes_per_value][:OTHER_FORMATS]


def _other_inputs(problem: Problem) -> list[int]:
    load, longest = problem.workload, problem.model.max_context_tokens
    found = [n for n in INPUTS_OFFERED if n != load.input_tokens and n + load.output_tokens <= longest]
    return sorted(sorted(found, key=lambda n: abs(n - load.input_tokens))[:OTHER_INPUTS])


def _variant(asked: Question, shapes: Sequence[Plan], most_users: int, change: _Change) -> Variant:
    problem = asked.problem
    device = change.device or problem.cluster.device
    form = change.weights or problem.model.weight_format
    inputs = float(change.input_tokens or problem.workload.input_tokens)
    plans: tuple[VariantPlan, ...] = ()
    refused = ""
    gpus = problem.cluster.gpus
    try:
        problem, calibration = _changed(asked, change)
        gpus = problem.cluster.gpus
        plans = tuple(_plans(problem, calibration, shapes, most_users=most_users))
    except AdvisorError as error:
        refused = str(error)
    return Variant(
        gpu=device.name, weight_format=form, input_tokens=inputs, gpus=gpus,
        price_usd_per_hour=device.price_usd_per_hour, plans=plans, refused=refused,
    )  # fmt: skip


def _changed(asked: Question, change: _Change) -> tuple[Problem, Calibration]:
    """The changed problem and the calibration to answer it by. Raises QuestionError where it cannot be asked."""
    problem, calibration = asked.problem, asked.calibration
    if change.device is not None:
        problem = replace(problem, cluster=_same_number(problem.cluster, change.device))
        calibration = load_calibration(change.device)
    if change.weights is not None:
        problem = replace(problem, model=requantise(problem.model, dtype=change.weights, kv_dtype=None))
    if not problem.cluster.device.peak(FORMATS[problem.model.weight_format].compute):
        raise QuestionError(f"{problem.cluster.device.name} does not compute in {problem.model.weight_format}.")
    if change.input_tokens is not None:
        load = problem.workload
        cached = load.prefix_cached_tokens / load.input_tokens * change.input_tokens
        problem = replace(problem, workload=replace(load, input_tokens=float(change.input_tokens), prefix_cached_tokens=cached))
    return problem, calibration


def _same_number(cluster: Cluster, device: Device) -> Cluster:
    """As many of another GPU, in as many nodes."""
    return load_cluster(gpu=device.name, gpus=len(cluster.node.devices), nodes=cluster.nodes)


def _plans(problem: Problem, calibration: Calibration, shapes: Sequence[Plan], *, most_users: int) -> Iterable[VariantPlan]:
    curves, placer, unstartable = (
        Curves(Predictor(problem, calibration), most_users=most_users),
        Placer(problem),
        cannot_start(problem),
    )
    for shape in _shapes(problem, shapes):
        reason = refusal(problem, shape) or block_refusal(problem, shape) or unstartable(shape)
        memory = None if reason else least_ceiling(problem, placer.placed(shape))[1]
        if memory is not None and memory.shortfall_bytes > 0:
            reason = needs(memory)
        if reason:
            yield VariantPlan(plan=shape, curve=None, memory=memory, refused=reason)
            continue
        for replicas in range(1, problem.cluster.gpus // shape.replica_gpus + 1):
            if replicas > 8 and replicas & (replicas - 1) and replicas != problem.cluster.gpus // shape.replica_gpus:
                continue
            plan = placer.placed(replace(shape, dp=replicas))
            yield VariantPlan(plan=plan, curve=curves.of(plan), memory=memory)


def _shapes(problem: Problem, shapes: Sequence[Plan]) -> list[Plan]:
    """Replica shapes to offer: those given, then every power of two of tp and pp that the machine holds."""
    gpus, node = problem.cluster.gpus, len(problem.cluster.node.devices)
    powers = [2**n for n in range(min(gpus, 1024).bit_length())]
    square = [Plan(tp=tp, pp=pp) for pp in powers for tp in powers if tp <= node and tp * pp <= gpus and pp <= 8]
    given = [replace(shape.replica(), settings=None, layer_split=()) for shape in shapes]
    kept = list(dict.fromkeys([*(p for p in square if p.pp == 1), *given, *square]))
    return kept[:MOST_SHAPES]
