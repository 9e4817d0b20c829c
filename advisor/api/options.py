"""What a question may say beside its model, declared once for the command line and for Python: the machine, the engine, the load.

The command line makes its options from the fields (`advisor/cli/options.py`), Python takes them as keyword arguments (`Options`),
and `question` turns them into a Problem.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from advisor.errors import unknown
from advisor.specs.cluster import Cluster


def _help(text: str, *, also: str = "") -> dict[str, str]:
    return {"help": text, "also": also}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Which GPUs, how many, how they are joined, and what they reach of their data sheets."""

    gpu: str = field(default="", metadata=_help("GPU name, e.g. h100-80g-sxm (see `advisor gpus`)."))
    gpus: int | None = field(default=None, metadata=_help("GPUs, of each node where there are several.", also="-n"))
    nodes: int | None = field(default=None, metadata=_help("Equal nodes."))
    cluster: Path | str | Cluster | None = field(
        default=None, metadata=_help("Cluster YAML or JSON, as `advisor probe --yaml` writes it.")
    )
    node: str = field(default="", metadata=_help("Node sheet: how the GPUs of a node are linked, e.g. pcie-2-socket."))
    network: str = field(default="", metadata=_help("Network between nodes, e.g. ib-400g."))
    price: float | None = field(default=None, metadata=_help("US dollars an hour of one GPU; the sheet's price otherwise."))
    calibration: Path | str | None = field(
        default=None, metadata=_help("Calibration file; this machine's own or the shipped one otherwise.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which engine serves, the number formats that it loads the model in, and how it drafts tokens."""

    engine: str = field(default="vllm", metadata=_help("vllm, sglang or trtllm."))
    engine_version: str = field(default="", metadata=_help("Engine version; the newest profile otherwise."))
    dtype: str = field(default="", metadata=_help("Number format of the weights, e.g. bf16, fp8, int4-awq."))
    kv_dtype: str = field(default="", metadata=_help("Number format of the KV cache, e.g. fp8."))
    speculate: str = field(
        default="", metadata=_help("Speculative decoding, METHOD:TOKENS: mtp:3, eagle3:3 or ngram:4 (with --acceptance).")
    )
    acceptance: str = field(
        default="", metadata=_help("Tokens a verify step yields, e.g. 2.6, or one acceptance rate for each drafted token.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of the deployment: lengths, how many requests, limits, and the goal."""

    preset: str = field(default="", metadata=_help("Named workload: chat, rag, code or batch."))
    input_tokens: int | None = field(default=None, metadata=_help("Prompt tokens of a request."))
    output_tokens: int | None = field(default=None, metadata=_help("Generated tokens of a request."))
    users: int | None = field(default=None, metadata=_help("Requests kept in flight over the whole deployment."))
    rate: float | None = field(default=None, metadata=_help("Requests per second that arrive."))
    prefix_cached_tokens: int | None = field(default=None, metadata=_help("Prompt tokens found in the prefix cache."))
    context: int | None = field(
        default=None,
        metadata=_help("Longest request, prompt and answer together; what costs little otherwise.", also="--max-model-len"),
    )
    ttft: str | float | None = field(
        default=None, metadata=_help("Limit on the time to first token: of the mean, e.g. 500ms, or p90=2s.")
    )
    tpot: str | float | None = field(
        default=None, metadata=_help("Limit on the time per output token: of the mean, e.g. 30ms, or p99=50ms.")
    )
    e2e: str = field(default="", metadata=_help("Limit on the whole request, e.g. p95=20s or 10s for the mean."))
    confidence: float | None = field(
        default=None,
        metadata=_help("Chance of keeping the limits where as many users as fit are asked for; 0.9 otherwise."),
    )
    goal: str = field(default="", metadata=_help("latency, throughput or cost."))


PARTS = (Machine, EngineChoice, Load)


class Options(TypedDict, total=False):
    """The fields of the three as keyword arguments, and `online`: whether the Hugging Face hub may be asked."""

    gpu: str
    gpus: int | None
    nodes: int | None
    cluster: Path | str | Cluster | None
    node: str
    network: str
    price: float | None
    calibration: Path | str | None
    engine: str
    engine_version: str
    dtype: str
    kv_dtype: str
    speculate: str
    acceptance: str
    preset: str
    input_tokens: int | None
    output_tokens: int | None
    users: int | None
    rate: float | None
    prefix_cached_tokens: int | None
    context: int | None
    ttft: str | float | None
    tpot: str | float | None
    e2e: str
    confidence: float | None
    goal: str
    online: bool


def parts_of(options: Options) -> tuple[Machine, EngineChoice, Load]:
    """The options by part. Raises QuestionError for a name that is none."""
    for name in options:
        if name not in Options.__annotations__:
            raise unknown("option", name, Options.__annotations__)
    given: dict[str, Any] = dict(options)
    machine, engine, load = ({f.name: given[f.name] for f in fields(part) if f.name in given} for part in PARTS)
    return Machine(**machine), EngineChoice(**engine), Load(**load)
