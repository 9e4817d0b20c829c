"""What a user says, put together: options -> Problem, Calibration, and the sentences about what was assumed.

Free of typer, so that the Python API asks through the same door.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from advisor.api.limits import limits_of
from advisor.api.options import EngineChoice, Load, Machine, Options, parts_of
from advisor.errors import MachineError, QuestionError, unknown
from advisor.specs.calibration import Calibration
from advisor.specs.cluster import MOST_GPUS, Cluster, Node, Pair
from advisor.specs.engine import Engine
from advisor.specs.limit import Limit, Timed
from advisor.specs.model import ModelSpec
from advisor.specs.problem import Problem
from advisor.specs.speculation import Speculation
from advisor.specs.workload import Goal, Mode, Workload
from advisor.units import show

if TYPE_CHECKING:
    from typing import Unpack

# The chance with which limits are kept where as many users as fit are asked for; a limit on the mean would be missed half the time.
SURE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A problem with the calibration to answer it by, and what has to be `said` before the answer.

    `calibration` is of the first GPU; in a box of several kinds `others` are those of the other GPUs, by name.
    """

    problem: Problem
    calibration: Calibration
    said: tuple[str, ...]
    others: Mapping[str, Calibration] = field(default_factory=dict)


def question(*, model: str, **options: Unpack[Options]) -> Question:
    """The problem that these options state. Raises QuestionError (one sentence) where they are impossible."""
    from advisor.catalog.calibrations import load_calibration, read_calibration
    from advisor.catalog.engines import load_engine

    where, engine, load = parts_of(options)
    workload, said_workload = _workload(load)
    spec, said_model = _model(model, engine, online=options.get("online", True))
    workload = _with_context(spec, workload, load.context)
    machine, said_machine = _machine(where)
    machine = _priced(machine, where.price)
    _check_cache(spec, machine)
    profile: Engine = load_engine(engine.engine, engine.engine_version)
    own = where.calibration
    found = load_calibration(machine.device) if own is None else read_calibration(Path(own), machine.device)
    speculation, said_speculation = _speculation(engine)
    problem = Problem(model=spec, cluster=machine, workload=workload, engine=profile, speculation=speculation)
    left_out = [note for note in found.notes if "left out" in note]
    others = {d.name: load_calibration(d) for d in machine.node.devices if d.name != machine.device.name}
    said = (*said_machine, *said_model, *said_workload, *said_speculation, *left_out)
    return Question(problem=problem, calibration=found, said=said, others=others)


def _speculation(engine: EngineChoice) -> tuple[Speculation | None, list[str]]:
    """How tokens are drafted, and what is assumed of their acceptance."""
    from advisor.catalog.speculation import load_speculation

    if not engine.speculate:
        if engine.acceptance:
            raise QuestionError("--acceptance says how many drafted tokens are accepted: give --speculate as well, e.g. mtp:3.")
        return None, []
    found = load_speculation(engine.speculate, acceptance=engine.acceptance)
    if engine.acceptance:
        return found, []
    return found, [
        f"{found.label} is taken to yield {found.length:.2f} tokens a step ({found.length_low:.2f} to {found.length_high:.2f} are "
        "published; --acceptance)."
    ]


def _model(name: str, engine: EngineChoice, *, online: bool) -> tuple[ModelSpec, list[str]]:
    from advisor.catalog.models import load_model, published_as, requantise

    if not name.strip():
        raise QuestionError("no model was named: say --model 70b, a Hugging Face id, or a path to config.json.")
    loaded = load_model(name, online=online)
    spec: ModelSpec = loaded.spec
    said = [f"{name} is taken as {loaded.taken_as}."] if loaded.taken_as and loaded.taken_as != name else []
    if engine.dtype or engine.kv_dtype:
        spec = published_as(requantise(spec, dtype=engine.dtype or None, kv_dtype=engine.kv_dtype or None))
        said += [f"Its {engine.dtype} checkpoint is {spec.repo}."] if spec.repo != loaded.spec.repo else []
    return spec, said + [f"{caveat[:1].upper()}{caveat[1:].rstrip('.')}." for caveat in spec.caveats]


def _check_cache(model: ModelSpec, machine: Cluster) -> None:
    """An nvfp4 cache is read by kernels for GPUs that multiply nvfp4 (vLLM and TensorRT-LLM documentation, quantised KV cache)."""
    without = sorted({d.name for d in machine.node.devices if model.kv_format == "nvfp4" and not d.peak("nvfp4")})
    if without:
        raise QuestionError(
            f"{without[0]} has no kernels for an nvfp4 cache, which begin with Blackwell; use --kv-dtype fp8 or bf16."
        )


def _with_context(model: ModelSpec, workload: Workload, context: int | None) -> Workload:
    """The workload with the longest request that was asked for. Raises QuestionError where the model has less."""
    if workload.context_tokens > model.max_context_tokens:
        raise QuestionError(
            f"{workload.input_tokens:.0f} input and {workload.output_tokens:.0f} output tokens are more than the "
            f"{model.max_context_tokens} tokens of context that {model.name} has; ask for shorter ones "
            "with --input-tokens and --output-tokens."
        )
    if context is None:
        return workload
    if not workload.context_tokens <= context <= model.max_context_tokens:
        raise QuestionError(
            f"--context {context} is not possible: a request has {workload.context_tokens:.0f} tokens and {model.name} at most "
            f"{model.max_context_tokens}; give a number between them."
        )
    return replace(workload, max_context_tokens=context)


def _workload(load: Load) -> tuple[Workload, list[str]]:
    """The workload; a limit of the preset holds when the preset was named, or when nothing else bounds the load."""
    from advisor.catalog.presets import load_preset

    chosen = load_preset(load.preset or "chat")
    users, rate, goal, confidence = load.users, load.rate, load.goal, load.confidence
    for option, value in (("--input-tokens", load.input_tokens), ("--output-tokens", load.output_tokens), ("--users", users)):
        if value is not None and not 0 < value <= 1_000_000_000:
            raise QuestionError(f"{option} {value} is not possible; give a whole number of at least 1.")
    if rate is not None and not (math.isfinite(rate) and 0 < rate <= 1e9):
        raise QuestionError(f"--rate {rate:g} is not possible; give requests per second above 0.")
    if users is not None and rate is not None:
        raise QuestionError("--users and --rate are two kinds of load; give one: users in flight, or requests per second.")
    if confidence is not None and not 0.5 <= confidence < 1:
        raise QuestionError(f"--confidence {confidence:g} is not possible; give a chance from 0.5 to below 1, e.g. 0.9.")
    if goal and goal not in get_args(Goal):
        raise unknown("goal", goal, get_args(Goal))
    inputs = chosen.input_tokens if load.input_tokens is None else load.input_tokens
    outputs = chosen.output_tokens if load.output_tokens is None else load.output_tokens
    cached = load.prefix_cached_tokens or 0
    if not 0 <= cached < inputs:
        raise QuestionError(f"--prefix-cached-tokens {cached} must be 0 or more and less than the {inputs} input tokens.")
    mode, said = _mode(chosen.mode, users=users, rate=rate, goal=goal)
    bound = bool(load.preset) or mode == "capacity"
    limits = limits_of(ttft=load.ttft, tpot=load.tpot, e2e=load.e2e)
    own_limits = bool(limits)
    ttft_s = _tightest(limits, "ttft") if own_limits or not bound else chosen.ttft_s
    tpot_s = _tightest(limits, "tpot") if own_limits or not bound else chosen.tpot_s
    judged = tuple(limit for limit in limits if limit.share or limit.figure == "e2e")
    if judged and mode not in ("closed_loop", "open_loop"):
        raise QuestionError(
            f"a limit on {judged[0].name} needs a load that is stated; say --rate 5 (requests per second) or --users 64."
        )
    if load.input_tokens is None or load.output_tokens is None:
        said.append(f"Lengths of the {chosen.name} preset: {inputs} tokens in, {outputs} out (--input-tokens, --output-tokens).")
    if bound and not own_limits and (ttft_s or tpot_s):
        said.append(f"Limits of the {chosen.name} preset: {_limits(ttft_s, tpot_s)} (--ttft, --tpot).")
    if confidence is None:
        confidence = SURE if mode == "capacity" and (ttft_s or tpot_s) else 0.5
    workload = Workload(
        input_tokens=inputs, output_tokens=outputs, mode=mode, users=users or (1 if mode == "single_stream" else 0),
        rate_per_s=rate or 0.0, prefix_cached_tokens=cached, ttft_limit_s=ttft_s, tpot_limit_s=tpot_s,
        confidence=confidence, limits=judged,
        goal=cast(Goal, goal or "throughput"), preset=chosen.name,
    )  # fmt: skip
    return workload, said


def _mode(queue: Mode, *, users: int | None, rate: float | None, goal: str) -> tuple[Mode, list[str]]:
    if rate is not None:
        return "open_loop", []
    if users == 1:
        return "single_stream", []
    if users is not None:
        return "closed_loop", []
    if goal == "latency":
        return "single_stream", ["Latency was asked for without a load: one user at a time (--users, --rate)."]
    if queue == "offline":
        return "offline", ["All requests wait in a queue from the start (--users or --rate for a live load)."]
    return "capacity", ["No load was given: as many users as the limits allow (--users, --rate)."]


def _tightest(limits: tuple[Limit, ...], figure: Timed) -> float | None:
    """What the mean of a figure may be: its own limit, or that of a percentile, which lies above the mean."""
    return min((limit.seconds for limit in limits if limit.figure == figure), default=None)


def _limits(ttft_s: float | None, tpot_s: float | None) -> str:
    parts = [f"TTFT {show(ttft_s, 's')}"] if ttft_s else []
    parts += [f"TPOT {show(tpot_s, 's')}"] if tpot_s else []
    return " and ".join(parts)


def _machine(asked: Machine) -> tuple[Cluster, list[str]]:
    """The machine named, or the one in a file, or the one here, or eight H100 SXM with a note that they are assumed."""
    gpu, gpus, nodes, cluster, node, network = asked.gpu, asked.gpus, asked.nodes, asked.cluster, asked.node, asked.network
    for option, value in (("--gpus", gpus), ("--nodes", nodes)):
        if value is not None and value < 1:
            raise QuestionError(f"{option} {value} is not possible; give at least 1.")
    if (gpus or 1) * (nodes or 1) > MOST_GPUS:
        raise QuestionError(f"{(gpus or 1) * (nodes or 1)} GPUs are more than any machine has; give at most {MOST_GPUS}.")
    if cluster is not None and (gpu or node or network or nodes is not None):
        raise QuestionError("--cluster describes the whole machine; leave out --gpu, --node, --nodes and --network.")
    if cluster is not None:
        machine, said = _limited(cluster if isinstance(cluster, Cluster) else _read(cluster), gpus)
        return machine, [*_said(machine), *said]
    if gpu:
        from advisor.catalog.machines import load_cluster

        count = gpus or 1
        said = [] if gpus else [f"One {gpu} (--gpus for more)."]
        machine = load_cluster(gpu=gpu, gpus=count, nodes=nodes or 1, node=node or None, network=network or None)
        return machine, [*said, *_said(machine)]
    if node or network or (nodes or 1) > 1:
        return _assumed(gpus, nodes=nodes, node=node, network=network, why="No --gpu was given")
    return _found(gpus)


def _priced(machine: Cluster, usd_per_hour: float | None) -> Cluster:
    """The machine with every GPU at this price; at the prices of their sheets where there is none."""
    if usd_per_hour is None:
        return machine
    if not (math.isfinite(usd_per_hour) and 0 < usd_per_hour <= 1000):
        raise QuestionError(f"--price {usd_per_hour:g} is not possible; give the US dollars that one GPU costs in an hour.")
    devices = tuple(replace(device, price_usd_per_hour=usd_per_hour, price_date="") for device in machine.node.devices)
    return replace(machine, node=replace(machine.node, devices=devices))


def _read(path: Path | str) -> Cluster:
    from advisor.catalog.machines import read_cluster

    return read_cluster(Path(path))


def _found(gpus: int | None) -> tuple[Cluster, list[str]]:
    """The machine here where its GPUs can be read, else the assumed one."""
    try:
        here = _probe()
    except MachineError:  # no library, no driver: `advisor probe` says which
        here = None
    if here is None:
        return _assumed(gpus, why="No GPU was found here and no --gpu was given")
    if gpus is None or gpus <= here.gpus:
        machine, said = _limited(here, gpus)
        return machine, [f"The machine here: {machine_words(here)} (--gpu for another).", *_said(machine), *said]
    return _assumed(gpus, why=f"{gpus} GPUs were asked for and this machine has {machine_words(here)}; no --gpu was given")


def _probe() -> Cluster | None:
    from advisor.catalog.devices import device_for_reading, list_devices
    from advisor.probe.nvml import read_nvml
    from advisor.probe.topology import cluster_from

    readings = read_nvml()
    if not readings.gpus:
        return None
    try:  # by the name the driver gives; every sheet is parsed only where none has that name
        return cluster_from(readings, (), find=device_for_reading)
    except QuestionError:
        return cluster_from(readings, list_devices(), find=device_for_reading)


def _assumed(
    gpus: int | None, *, why: str, nodes: int | None = None, node: str = "", network: str = ""
) -> tuple[Cluster, list[str]]:
    """H100s in the number and arrangement asked for, eight where none is."""
    from advisor.catalog.machines import ASSUMED_GPU, ASSUMED_GPUS, load_cluster

    machine = load_cluster(gpu=ASSUMED_GPU, gpus=gpus or ASSUMED_GPUS, nodes=nodes or 1, node=node or None, network=network or None)
    sentence = f"{why}: {machine_words(machine)} are assumed."
    return replace(machine, assumed=f"{sentence} {machine.assumed}".strip()), [sentence, *_said(machine)]


def _said(machine: Cluster) -> list[str]:
    return [machine.assumed] if machine.assumed else []


def _limited(cluster: Cluster, gpus: int | None) -> tuple[Cluster, list[str]]:
    """The cluster with the first `gpus` GPUs of a node only."""
    n = len(cluster.node.devices)
    if gpus is None or gpus == n:
        return cluster, []
    if gpus > n:
        raise QuestionError(f"--gpus {gpus} is more than the {n} GPUs of a node of {cluster.node.name}; leave it out to use all.")
    node = cluster.node
    return replace(cluster, node=_first(node, gpus)), [f"The first {gpus} of its {n} GPUs are used."]


def _first(node: Node, gpus: int) -> Node:
    keep: tuple[Pair, ...] = tuple(p for p in node.pairs if p.b < gpus)
    uplinks = tuple(u for u in (tuple(g for g in group if g < gpus) for group in node.uplinks) if len(u) > 1)
    return replace(
        node, devices=node.devices[:gpus], pairs=keep, numa=node.numa[:gpus], uplinks=uplinks,
        free_bytes=node.free_bytes[:gpus], ids=node.ids[:gpus],
    )  # fmt: skip


def machine_words(cluster: Cluster) -> str:
    """`8 x h100-80g-sxm`, kind by kind, and how many nodes of it."""
    counts: dict[str, int] = {}
    for device in cluster.node.devices:
        counts[device.name] = counts.get(device.name, 0) + 1
    text = " + ".join(f"{count} x {name}" for name, count in counts.items())
    return f"{cluster.nodes} nodes of {text}" if cluster.nodes > 1 else text
