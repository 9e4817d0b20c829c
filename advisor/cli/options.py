"""The options that several verbs share, as types: `model: options.Model`. `question` turns their values into a Problem.

The values go to `advisor.api.question.question` by the same names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Alias (70b, mixtral), Hugging Face id, config.json, folder or YAML profile.", show_default=False
    ),
]
Gpu = Annotated[str, typer.Option("--gpu", help="GPU name, e.g. h100-80g-sxm (see `advisor gpus`).", show_default=False)]
Gpus = Annotated[int | None, typer.Option("--gpus", "-n", help="GPUs, of each node where there are several.", show_default=False)]
Nodes = Annotated[int | None, typer.Option("--nodes", help="Equal nodes.", show_default=False)]
ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="Cluster YAML or JSON, as `advisor probe --yaml` writes it.", show_default=False),
]
NodeName = Annotated[
    str, typer.Option("--node", help="Node sheet: how the GPUs of a node are linked, e.g. pcie-2-socket.", show_default=False)
]
NetworkName = Annotated[str, typer.Option("--network", help="Network between nodes, e.g. ib-400g.", show_default=False)]
EngineName = Annotated[str, typer.Option("--engine", help="vllm, sglang or trtllm.")]
EngineVersion = Annotated[
    str, typer.Option("--engine-version", help="Engine version; the newest profile otherwise.", show_default=False)
]
Dtype = Annotated[str, typer.Option("--dtype", help="Number format of the weights, e.g. bf16, fp8, int4-awq.", show_default=False)]
KvDtype = Annotated[str, typer.Option("--kv-dtype", help="Number format of the KV cache, e.g. fp8.", show_default=False)]
Preset = Annotated[str, typer.Option("--preset", help="Named workload: chat, rag, code or batch.", show_default=False)]
InputTokens = Annotated[int | None, typer.Option("--input-tokens", help="Prompt tokens of a request.", show_default=False)]
OutputTokens = Annotated[int | None, typer.Option("--output-tokens", help="Generated tokens of a request.", show_default=False)]
Users = Annotated[
    int | None, typer.Option("--users", help="Requests kept in flight over the whole deployment.", show_default=False)
]
Rate = Annotated[float | None, typer.Option("--rate", help="Requests per second that arrive.", show_default=False)]
PrefixCached = Annotated[
    int | None,
    typer.Option("--prefix-cached-tokens", help="Prompt tokens found in the prefix cache.", show_default=False),
]
Context = Annotated[
    int | None,
    typer.Option(
        "--context", "--max-model-len", help="Longest request, prompt and answer together; what costs little otherwise.",
        show_default=False,
    ),
]  # fmt: skip
Ttft = Annotated[str, typer.Option("--ttft", help="Limit on the mean time to first token, e.g. 500ms or 2s.", show_default=False)]
Tpot = Annotated[str, typer.Option("--tpot", help="Limit on the mean time per output token, e.g. 30ms.", show_default=False)]
GoalName = Annotated[str, typer.Option("--goal", help="latency, throughput or cost.", show_default=False)]
CalibrationFile = Annotated[
    Path | None,
    typer.Option("--calibration", help="Calibration file; this machine's own or the shipped one otherwise.", show_default=False),
]
PlanText = Annotated[str, typer.Option("--plan", help="Degrees, e.g. tp=4,pp=2,dp=1 (also ep, adp).", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="The whole answer as JSON, units in the keys.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the Hugging Face hub.")]
