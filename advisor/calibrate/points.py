"""Rows of published measurements -> questions: one row names a model, a machine, a plan, a load, and what was measured.

Columns: `id, source, hardware, interconnect, nodes, gpus, engine, engine_version, model, weight_dtype, kv_dtype, tp, pp, dp, ep,
input_tokens, output_tokens, mode, load, request_rate_per_s` ask; `ttft_s, tpot_s, itl_s, latency_s, decode_tokens_per_s,
output_tokens_per_s, total_tokens_per_s, requests_per_s` answer. Further columns are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from advisor.calibrate.names import spoken_format
from advisor.calibrate.pool_points import deployment_of_row, served_by
from advisor.errors import QuestionError
from advisor.specs.deployment import Deployment
from advisor.specs.plan import Plan
from advisor.specs.workload import Workload

# Benchmarks run release candidates months ahead: from this date on, rows without a version ran this release.
CURRENT = {"trtllm": ("2025-10", "1.1.0")}
FIGURES = (
    "ttft_s", "tpot_s", "latency_s", "decode_tokens_per_s", "output_tokens_per_s", "total_tokens_per_s", "requests_per_s",
)  # fmt: skip
MODES = ("static_batch", "single_stream", "closed_loop", "open_loop", "offline")
# A closed-loop benchmark as InferenceX runs it (its public recipe): all users start at once, ten requests a user, lengths
# uniform between 80% and 100% of the nominal ones. Other clients start the same way. SGLang's (bench_serving.py) tells the engine
# to ignore the end of text unless --disable-ignore-eos is given: all answers are equally long. vLLM's (benchmarks/serve.py) and
# TensorRT-LLM's copy of it do so only with --ignore-eos, and their rows do not say whether it was given. A spread of a tenth is
# assumed for them and for users that no source describes: with equal lengths TTFT came out 40 to 50% too long on these rows.
# The rows of InferenceX with prompts of whole thousands show no first burst (112 users at once, 1,000 tokens each, a mean TTFT of
# 72 ms): they are a steady state.
REQUESTS_PER_USER = 10
INFERENCEX = "aiconfigurator-silicon-sample"
INFERENCEX_LENGTHS = ((1024.0, 1024.0), (1024.0, 8192.0), (8192.0, 1024.0))
INFERENCEX_SPREAD = 0.8
LENGTH_SPREAD = {"sglang": 1.0}
OTHER_SPREAD = 0.9
# NVIDIA's fp8 and nvfp4 checkpoints state an fp8 cache. TensorRT-LLM takes it from there; vLLM and SGLang keep 16 bits unless told
# otherwise, which that source's runs were, but for InferenceX on Hopper (its scripts; TPOT over contexts scatters by 5%, not 11%).
FP8_CACHE_WEIGHTS = ("fp8", "nvfp4")
HOPPER = ("h100", "h200", "gh200")
OPEN_LOOP_REQUESTS = 200
# Rows that state no prompt measure generation alone (llama-bench tg: next to nothing cached) or a data set of chats.
DEFAULT_INPUT_TOKENS = {"single_stream": 16.0, "offline": 256.0}
DEFAULT_OUTPUT_TOKENS = 200  # gpt-fast generate.py's default; rows of single streams that do not state theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One row: names as given, and the plan and workload it describes; what was measured is read apart.

    `speculation` is the drafting that the run's recipe states ("": not known), `acceptance` the tokens that a step yields with it.
    `deployment` has the pools of a row with separate prefill and decode workers; `plan` is then that of the decode workers.
    `assumed` says what the row leaves open.
    """

    id: str
    source: str
    hardware: str
    interconnect: str
    nodes: int
    gpus: int
    engine: str
    engine_version: str
    model: str
    weight_dtype: str
    kv_dtype: str
    plan: Plan
    workload: Workload
    speculation: str = ""
    acceptance: str = ""
    deployment: Deployment | None = None
    assumed: str = ""


def point_of_row(row: Mapping[str, str | None]) -> Point:
    """The point of one row. Raises QuestionError with a sentence that names the column."""
    text = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
    for name in ("hardware", "engine", "model"):
        if not text.get(name):
            raise QuestionError(f"column {name} is empty: give its name.")
    deployment = deployment_of_row(text)
    plan = deployment.decode if deployment else _plan(text)
    world = deployment.world if deployment else plan.world
    gpus = _count(text, "gpus", default=world)
    workload = _workload(text)
    return Point(
        id=text.get("id", ""),
        source=text.get("source", ""),
        hardware=text["hardware"],
        interconnect=text.get("interconnect", ""),
        nodes=_count(text, "nodes", default=1),
        gpus=max(gpus, world),
        engine=text["engine"],
        engine_version=served_by(deployment, text["engine"], _version(text)),
        model=text["model"],
        weight_dtype=spoken_format(text.get("weight_dtype", "")),
        kv_dtype=_kv_dtype(text, workload),
        plan=plan,
        workload=workload,
        speculation=text.get("speculation", ""),
        acceptance=text.get("acceptance_length", ""),
        deployment=deployment,
        assumed=_assumed(text, workload),
    )


def _plan(text: Mapping[str, str]) -> Plan:
    """tp, pp, dp, ep of a row. dp together with ep over all of tp * dp is attention-data parallel; ep alone lies within tp."""
    tp, pp, dp, ep = (_count(text, axis, default=1) for axis in ("tp", "pp", "dp", "ep"))
    try:
        if dp > 1 and ep > 1:
            return Plan(tp=tp, pp=pp, adp=dp, ep=ep)
        return Plan(tp=tp, pp=pp, dp=dp, ep=ep)
    except ValueError as error:
        raise QuestionError(f"tp, pp, dp, ep do not make a plan: {error}.") from None


def _workload(text: Mapping[str, str]) -> Workload:
    mode = text.get("mode", "")
    if mode not in MODES:
        raise QuestionError(f"mode is {mode!r}: write one of {', '.join(MODES)}.")
    inputs = _amount(text, "input_tokens", default=DEFAULT_INPUT_TOKENS.get(mode))
    outputs = _amount(text, "output_tokens", default=float(DEFAULT_OUTPUT_TOKENS))
    if mode == "open_loop":
        return Workload(
            input_tokens=inputs, output_tokens=outputs, mode="open_loop",
            rate_per_s=_amount(text, "request_rate_per_s", default=None), start="burst", requests=OPEN_LOOP_REQUESTS,
        )  # fmt: skip
    if mode == "offline":
        ceiling = _count(text, "load", default=0)  # the largest batch the run allowed, where it says
        return Workload(input_tokens=inputs, output_tokens=outputs, mode="offline", users=ceiling)
    users = _count(text, "load" if text.get("load") else "users", default=1 if mode == "single_stream" else 0)
    if users < 1:
        raise QuestionError(f"column load is empty: {mode} needs the number of users or sequences.")
    if mode == "closed_loop":
        recipe = (inputs, outputs) in INFERENCEX_LENGTHS
        known = text.get("source") == INFERENCEX
        warm = known and inputs % 1000 == 0
        return Workload(
            input_tokens=inputs, output_tokens=outputs, mode="closed_loop", users=users,
            start="steady" if warm else "burst", requests=0 if warm else users * REQUESTS_PER_USER,
            length_spread=INFERENCEX_SPREAD if known and recipe else LENGTH_SPREAD.get(text["engine"], OTHER_SPREAD),
        )  # fmt: skip
    if mode == "single_stream":
        return Workload(input_tokens=inputs, output_tokens=outputs, mode="single_stream", users=1)
    return Workload(input_tokens=inputs, output_tokens=outputs, mode="static_batch", users=users)


def _kv_dtype(text: Mapping[str, str], workload: Workload) -> str:
    """The cache format of a row; "" is the engine's own choice."""
    given, engine = text.get("kv_dtype", ""), text["engine"]
    if given or text.get("weight_dtype", "") not in FP8_CACHE_WEIGHTS:
        return given
    if engine == "trtllm":
        return "fp8"
    if engine not in ("vllm", "sglang") or text.get("source") != INFERENCEX:
        return ""
    recipe = (workload.input_tokens, workload.output_tokens) in INFERENCEX_LENGTHS
    return "" if recipe and text["hardware"].startswith(HOPPER) else "fp8"


# What names a release, a year or a build of an engine; anything else names a container or the library below ("NIM 1.8.0",
# "TensorRT 10.11, CUDA 12.9") and tells the line by its date alone.
_RELEASE = re.compile(r"v?\d+(\.\d+)+\S*|20\d\d(-\d\d)*|(nightly|main|dev|latest|newest)\S*", re.IGNORECASE)


def _version(text: Mapping[str, str]) -> str:
    """The engine version of a row; the release of its date where it states none that is the engine's."""
    given = text.get("engine_version", "")
    return given if _RELEASE.fullmatch(given) else _version_of_date(text["engine"], text.get("date", ""))


def _assumed(text: Mapping[str, str], workload: Workload) -> str:
    """What the row does not state and a default stands for, in words."""
    said = []
    if not text.get("input_tokens"):
        said.append(f"a prompt of {workload.input_tokens:g} tokens")
    if not text.get("output_tokens"):
        said.append(f"an answer of {workload.output_tokens:g} tokens")
    return " and ".join(said)


def _version_of_date(engine: str, date: str) -> str:
    """Rows that state no engine version but a date: the release then run, else the year, stands for the version."""
    since, release = CURRENT.get(engine, ("", ""))
    return release if since and date >= since else date[:4] if date[:4].isdigit() else ""


def _amount(text: Mapping[str, str], name: str, *, default: float | None) -> float:
    given = text.get(name, "")
    if not given:
        if default is None:
            raise QuestionError(f"column {name} is empty: give a positive number.")
        return default
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e9:
        raise QuestionError(f"column {name} is {given!r}: give a positive number.")
    return value


def _count(text: Mapping[str, str], name: str, *, default: int) -> int:
    given = text.get(name, "")
    if not given:
        return default
    value = _amount(text, name, default=None)
    if value != int(value) or value > 1e6:
        raise QuestionError(f"column {name} is {given!r}: give a whole number from 1 to 1,000,000.")
    return int(value)


def figures_of_row(row: Mapping[str, str | None]) -> dict[str, float]:
    """What was measured in a row, by column; cells that are empty or no positive number are left out."""
    found: dict[str, float] = {}
    for name in FIGURES:
        given = row.get(name) or (row.get("itl_s") if name == "tpot_s" else None)
        try:
            value = float(given) if given else math.nan
        except ValueError:
            continue
        if 0 < value < math.inf:
            found[name] = value
    return found
