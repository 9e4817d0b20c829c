"""Words for other programs: a plan as the command, the script or the manifest that starts it.

`launch_line` is one line for the screen; `render` makes the files; `parse` reads any of them back to its plan.
"""

from __future__ import annotations

import json
import shlex
from importlib import import_module
from types import ModuleType

from advisor.errors import PlanError, QuestionError, unknown
from advisor.launch import sglang, trtllm, vllm
from advisor.launch import words as c
from advisor.launch.drafting import DRAFTER
from advisor.launch.layout import Server, servers, span
from advisor.launch.request import Request, server_command, with_drafts
from advisor.launch.script import Options, ScriptFile
from advisor.launch.vendor import vendor_of
from advisor.launch.words import Command, quoted
from advisor.specs.engine import Engine
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem

TARGETS = ("bash", "docker", "compose", "kubernetes", "slurm")

ENGINES: dict[str, ModuleType] = {"vllm": vllm, "sglang": sglang, "trtllm": trtllm}


MOST_GPUS = 32_768  # of one set of scripts: it names each server, in 0.6 MB for so many


def engine_words(engine: Engine) -> ModuleType:
    """The file that speaks `engine`. Raises PlanError where the flags of that engine or version are not known."""
    words = ENGINES.get(engine.name)
    if words is None:
        raise PlanError(f"{engine.name} has no launch scripts; they are written for {', '.join(ENGINES)}.")
    if not any(engine.flags_version == v or engine.flags_version.startswith(v + ".") for v in words.VERSIONS):
        known = ", ".join(words.VERSIONS)
        raise PlanError(
            f"the flags of the {engine.name} {engine.version} profile are not known (known: {engine.name} {known}); "
            f"ask with a newer --engine-version."
        )
    return words


def plan_servers(problem: Problem, plan: Plan) -> tuple[Server, ...]:
    """The servers that `plan` needs on the problem's engine."""
    words = engine_words(problem.engine)
    order = words.rank_order(plan)
    if words.joins_replicas(problem.model, plan):
        found = servers(problem.cluster, plan, rank_order=order, joined=True)
        if len({span(server) for server in found}) == 1:
            return found
    return servers(problem.cluster, plan, rank_order=order, joined=False)


def render(problem: Problem, prediction: Prediction, *, target: str, options: Options | None = None) -> tuple[ScriptFile, ...]:
    """The files that start `prediction.plan` on `target`, and the benchmark script beside them.

    Raises QuestionError or PlanError (one sentence) where the plan cannot be started so.
    """
    from advisor.launch import benchmark, dashboard

    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    if prediction.plan.world > MOST_GPUS:
        raise QuestionError(
            f"scripts for {prediction.plan.world:,} GPUs are not written, {MOST_GPUS:,} are the most: write those of one part with "
            "--gpus and --nodes, and start it as often as there are parts."
        )
    request = _request(problem, prediction, options or Options(), target)
    writer = import_module(f"advisor.launch.{target}")
    panels = (dashboard.render(request),) if request.options.dashboard else ()
    return (*writer.render(request), benchmark.render(request), *panels)


def _request(problem: Problem, prediction: Prediction, options: Options, target: str) -> Request:
    words, plan = engine_words(problem.engine), prediction.plan
    vendor = vendor_of(problem.cluster, problem.engine.name)
    _check(options)
    if options.ray and target != "bash":
        raise QuestionError(f"--ray is written for bash, not for {target}; leave it out.")
    if not 1 <= options.port <= 65000:
        raise QuestionError(f"--port {options.port} is not a port; give 1 to 65000.")
    found = plan_servers(problem, plan)
    first = server_command(words, problem, plan, span(found[0]), options)
    if any(len(set(server.gpus)) > 1 for server in found) and (first.per_rank or target in ("slurm", "kubernetes")):
        raise PlanError(
            f"on {target} every node of a replica uses the same GPUs in the same order, and {plan.label} is placed otherwise."
        )
    wanted = "" if options.checkpoint else c.wanted_checkpoint(problem.model, online_fp8=words.ONLINE_FP8)
    checkpoint = options.checkpoint or ("" if wanted else problem.model.repo)
    if first.per_rank and any(ch.isspace() for ch in checkpoint):
        raise QuestionError(f"trtllm-llmapi-launch splits the path {checkpoint!r} at its spaces; give one without.")
    image = options.image or vendor.image(problem)
    return Request(
        problem=problem, prediction=prediction, engine=words, servers=found, command=first, options=options,
        checkpoint=c.checked_name("model", checkpoint) if checkpoint else "", wanted=wanted,
        ids=c.checked_ids(problem.cluster.node.ids), image=c.checked_name("image", image) if image else "",
        vendor=vendor,
    )  # fmt: skip


def _check(options: Options) -> None:
    """Names that the user gives stay one word wherever they are written. Raises QuestionError."""
    for what, text in (("served name", options.served_name), ("claim", options.claim), ("RDMA resource", options.rdma)):
        if text:
            c.checked_name(what, text)
    for adapter in options.loras:
        name, _, path = c.checked_name("adapter", adapter).partition("=")
        if not name or not path or any(ch.isspace() or ch == "," for ch in name):
            raise QuestionError(f"--lora {adapter!r} is not an adapter: give NAME=PATH, the path a folder or a model id.")
    if options.kv_offload_gib < 0 or options.autoscale < 0:
        raise QuestionError("--kv-offload and --autoscale are not negative; leave them out for none.")


def parse(text: str) -> Plan:
    """The plan that a file made by `render` starts. Raises ProfileError where it is none, or its commands were changed."""
    from advisor.launch.reading import read

    return read(text)


def command(problem: Problem, plan: Plan) -> Command:
    """How the first server of `plan` is started, with `c.MODEL`, `c.PORT` and their like still to be filled in.

    Raises PlanError where the engine cannot start the plan.
    """
    words = engine_words(problem.engine)
    first: Command = words.serve(problem, plan, span(plan_servers(problem, plan)[0]))
    return first


def launch_line(problem: Problem, plan: Plan) -> str:
    """One shell line that starts the (first) server of `plan`, for the screen; a comment says what else is needed.

    A comment alone where the engine cannot start the plan, and nothing where its flags are not known.
    """
    try:
        words = engine_words(problem.engine)
    except PlanError:
        return ""
    try:
        found = plan_servers(problem, plan)
        first = with_drafts(words, problem, words.serve(problem, plan, span(found[0])), DRAFTER)
        wanted = c.wanted_checkpoint(problem.model, online_fp8=words.ONLINE_FP8)
        model: c.Word = c.MODEL if wanted else c.checked_name("model", problem.model.repo)
        return _line(problem, found, first.bind({c.MODEL: model, c.CONFIG: "trtllm.yaml"}), wanted)
    except PlanError as error:
        return f"# {' '.join(str(error).split())}"


def _line(problem: Problem, found: tuple[Server, ...], first: Command, wanted: str) -> str:
    server = found[0]
    parts = [f"echo {shlex.quote(json.dumps(first.config))} > trtllm.yaml;"] if first.config else []
    ids = problem.cluster.node.ids
    names = [ids[gpu] if ids else str(gpu) for gpu in server.gpus[0]]
    if len(found) > 1 or names != [str(i) for i in range(len(names))]:
        visible = vendor_of(problem.cluster, problem.engine.name).visible
        parts.append(f"{visible}={shlex.quote(','.join(names))}")
    parts += [f"{name}={quoted(word)}" for name, word in first.env]
    if first.per_rank:
        parts.append(f"mpirun -n {sum(map(len, server.gpus))} trtllm-llmapi-launch")
    shown = [f for f in first.flags if f.value not in (c.HOST, c.PORT)]
    parts += [quoted(word) for word in first.program]
    parts += [quoted(word) for flag in shown for word in c.words(flag)]
    notes = [f"MODEL: {wanted}"] if wanted else []
    if len(server.nodes) > 1:
        notes.append(f"on each of {len(server.nodes)} nodes" if not first.per_rank else f"on {len(server.nodes)} nodes")
    if first.worker_flags:
        notes.append(f"with {first.worker_flags[0].name} on all but the first")
    if len(found) > 1:
        notes.append(f"the first of {len(found)} servers behind a balancer")
    return " ".join(parts) + (f"  # {', '.join(notes)}" if notes else "")
