"""Words for other programs: a plan as the command, the script or the manifest that starts it.

`launch_line` is one line for the screen; `render` makes the files; `parse` reads any of them back to its plan.
"""

from __future__ import annotations

import json
import shlex
from types import ModuleType

from advisor.errors import PlanError
from advisor.launch import command as c
from advisor.launch import sglang, trtllm, vllm
from advisor.launch.command import Command, shell
from advisor.launch.layout import Server, servers, span
from advisor.specs.engine import Engine
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem

ENGINES: dict[str, ModuleType] = {"vllm": vllm, "sglang": sglang, "trtllm": trtllm}


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
    joined = words.joins_replicas(problem.model, plan)
    return servers(problem.cluster, plan, rank_order=words.rank_order(plan), joined=joined)


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
        first: Command = words.serve(problem, plan, span(found[0]))
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
        parts.append(f"CUDA_VISIBLE_DEVICES={shlex.quote(','.join(names))}")
    parts += [f"{name}={shell(word)}" for name, word in first.env]
    if first.per_rank:
        parts.append(f"mpirun -n {sum(map(len, server.gpus))} trtllm-llmapi-launch")
    shown = [f for f in first.flags if f.value not in (c.HOST, c.PORT)]
    parts += [shell(word) for word in first.program]
    parts += [shell(word) for flag in shown for word in c.words(flag)]
    notes = [f"MODEL: {wanted}"] if wanted else []
    if len(server.nodes) > 1:
        notes.append(f"on each of {len(server.nodes)} nodes" if not first.per_rank else f"on {len(server.nodes)} nodes")
    if first.worker_flags:
        notes.append(f"with {first.worker_flags[0].name} on all but the first")
    if len(found) > 1:
        notes.append(f"the first of {len(found)} servers behind a balancer")
    return " ".join(parts) + (f"  # {', '.join(notes)}" if notes else "")
