"""What every script shares: the file as a value, its header with the predicted figures, the plan line, and writing files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from advisor.errors import QuestionError
from advisor.files import NewFile, shown, write_all
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, Prediction
from advisor.specs.problem import Problem
from advisor.units import show, show_count
from advisor.version import version

PLAN_MARK = "advisor-plan:"
MODES = {
    "capacity": "as many requests as the limits allow",
    "offline": "everything queued at once",
    "single_stream": "one request at a time",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptFile:
    """A file to write: name, whole text, and whether it is run."""

    name: str
    text: str
    executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user says about the launch beside the plan. Empty texts take the engine profile's or the model's own.

    `checkpoint` is the model path or id to serve; `ray` spans nodes with Ray (vLLM); `load_tool` is the program of the
    benchmark script. `served_name` is what clients call the model; `tool_parser` and `reasoning_parser` are the engine's names for
    the model family's formats, `chat_template` the file of its examples that tool calls need; `loras` are adapters as `name=path`;
    `kv_offload_gib` of host memory keep cache that the GPUs drop; `expert_backend` exchanges tokens between expert-parallel ranks,
    and `balance_experts` copies popular experts; `dashboard` adds Grafana's panels; `draft_model` is
    the checkpoint of an EAGLE-3 drafter. For Kubernetes: `claim` is a persistent volume
    claim that is there, `rdma` the resource that gives a pod its network adapters, and `autoscale` the most replicas.
    """

    checkpoint: str = ""
    port: int = 8000
    image: str = ""
    trust_remote_code: bool = False
    ray: bool = False
    load_tool: str = "vllm"
    served_name: str = ""
    tool_parser: str = ""
    reasoning_parser: str = ""
    chat_template: str = ""
    loras: tuple[str, ...] = ()
    kv_offload_gib: float = 0.0
    expert_backend: str = ""
    balance_experts: bool = False
    claim: str = ""
    rdma: str = "rdma/rdma_shared_device_a"
    autoscale: int = 0
    dashboard: bool = False
    draft_model: str = ""


def header(problem: Problem, prediction: Prediction, *, what: str, use: Iterable[str]) -> list[str]:
    """The opening comment without its comment signs: what it starts, the figures to expect, how to use it, and the plan line."""
    engine = problem.engine
    names = sorted({d.name for d in problem.cluster.node.devices})
    each = len(problem.cluster.node.devices)
    nodes = f"{problem.cluster.nodes} nodes of " if problem.cluster.nodes > 1 else ""
    return [
        f"{what} {_plain(problem.model.name)} with {engine.name} {engine.flags_version} as {prediction.plan.label}",
        f"on {nodes}{each} x {_plain(' + '.join(names))}. Written by advisor {version()}.",
        "",
        f"Predicted for {load_words(problem)}:",
        *(f"  {line}" for line in figures(prediction)),
        "",
        *use,
        "",
        plan_line(prediction.plan),
    ]


def load_words(problem: Problem) -> str:
    """The load in words: `1,024 tokens in, 512 out, 64 requests in flight`."""
    load = problem.workload
    arrive = MODES.get(load.mode, "")
    if load.mode in ("closed_loop", "static_batch"):
        arrive = f"{load.users:,} requests in flight"
    if load.mode == "open_loop":
        arrive = f"{show_count(load.rate_per_s)} requests/s"
    return f"{load.input_tokens:,.0f} tokens in, {load.output_tokens:,.0f} out, {arrive}"


def figures(prediction: Prediction) -> list[str]:
    """The predicted figures, a line each, with their 90% intervals."""
    rows = [
        ("time to first token", _range(prediction.ttft_s, "s")),
        ("time per output token", _range(prediction.tpot_s, "s")),
        ("output", _range(prediction.output_tokens_per_s, "tokens/s")),
        ("requests", _range(prediction.requests_per_s, "requests/s")),
        ("KV cache", f"{show_count(prediction.kv_tokens)} tokens, {show_count(prediction.max_sequences)} requests at once"),
    ]
    return [f"{name:<22} {value}" for name, value in rows] + [f"(from {_plain(prediction.calibration)} coefficients)"]


def _range(estimate: Estimate, unit: str) -> str:
    def text(value: float) -> str:
        return show(value, "s") if unit == "s" else f"{show_count(value)} {unit}"

    if estimate.low == estimate.value == estimate.high:
        return text(estimate.value)
    return f"{text(estimate.value)}, 90% within {text(estimate.low)} to {text(estimate.high)}"


def _plain(text: str) -> str:
    """Text that stays within its comment line."""
    return "".join(ch if ch.isprintable() else "?" for ch in text)[:200]


def plan_line(plan: Plan) -> str:
    """The whole plan in one line, exactly: what `parse` reads and checks against the commands."""
    parts = [PLAN_MARK, plan.label]
    if plan.layer_split:
        parts.append("layers=" + ",".join(map(str, plan.layer_split)))
    if plan.gpus:
        parts.append("gpus=" + ",".join(map(str, plan.gpus)))
    if plan.settings:
        s = plan.settings
        parts.append(
            f"max_sequences={s.max_sequences} token_budget={s.token_budget} max_context_tokens={s.max_context_tokens} "
            f"memory_fraction={s.memory_fraction!r}"
        )
    return " ".join(parts)


def slug(name: str) -> str:
    """A name that Kubernetes, Docker and Slurm take: lower-case letters, digits and dashes, at most 40."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return text if text[:1].isalpha() else f"m-{text}".strip("-")


def write(files: Iterable[ScriptFile], folder: Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write all files into `folder`, or none. A file that is there with the same text is left.

    Raises QuestionError where another file is in the way and `force` is not said, else as `files.write_all`.
    """
    wanted = [(folder / file.name, file) for file in files]
    in_the_way = [path for path, file in wanted if path.exists() and not force and not _same(path, file)]
    if in_the_way:
        raise QuestionError(f"{shown(in_the_way[0])} is there with another content: say --force to replace it, or another --out.")
    write_all([NewFile(path=path, data=file.text.encode(), executable=file.executable) for path, file in wanted])
    return tuple(path for path, _ in wanted)


def _same(path: Path, file: ScriptFile) -> bool:
    wanted = file.text.encode()
    return path.is_file() and path.stat().st_size == len(wanted) and path.read_bytes() == wanted
