"""`advisor launch`: the scripts that start a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.cli.show import emit
from advisor.errors import NoPlanFitsError


@options.asking()
def launch(
    *,
    model: options.Model,
    plan: options.PlanText = "",
    target: Annotated[str, typer.Option("--target", help="bash, docker, compose, kubernetes or slurm.")] = "bash",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write into; on the screen otherwise.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="Model path or id to serve; the model's own otherwise.", show_default=False)
    ] = "",
    port: Annotated[int, typer.Option("--port", help="Port that clients reach.")] = 8000,
    image: Annotated[
        str, typer.Option("--image", help="Container image; the engine profile's otherwise.", show_default=False)
    ] = "",
    ray: Annotated[bool, typer.Option("--ray", help="Span nodes with Ray (vllm; bash).")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the engine run Python code that comes with the checkpoint.")
    ] = False,
    load_tool: Annotated[str, typer.Option("--load-tool", help="Program of the benchmark script: vllm or aiperf.")] = "vllm",
    served_name: Annotated[str, typer.Option("--served-name", help="What clients call the model.", show_default=False)] = "",
    chat_formats: Annotated[
        bool, typer.Option("--chat-formats/--no-chat-formats", help="Tool calls and thoughts as the model's family writes them.")
    ] = True,
    lora: Annotated[
        list[str] | None, typer.Option("--lora", help="An adapter, NAME=PATH; may be given again.", show_default=False)
    ] = None,
    kv_offload: Annotated[
        float, typer.Option("--kv-offload", help="GiB of host memory a server for cache that the GPUs drop.", show_default=False)
    ] = 0.0,
    expert_backend: Annotated[
        str, typer.Option("--expert-backend", help="All-to-all of the experts, in the engine's words.", show_default=False)
    ] = "",
    balance_experts: Annotated[bool, typer.Option("--balance-experts", help="Copy popular experts (EPLB).")] = False,
    claim: Annotated[
        str, typer.Option("--claim", help="Kubernetes: a volume claim that is there, for the weights.", show_default=False)
    ] = "",
    rdma: Annotated[
        str, typer.Option("--rdma", help="Kubernetes: resource of the network adapters.")
    ] = "rdma/rdma_shared_device_a",
    autoscale: Annotated[int, typer.Option("--autoscale", help="Kubernetes: the most replicas (KEDA).", show_default=False)] = 0,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="A Grafana dashboard beside the script.")] = False,
    draft_model: Annotated[
        str, typer.Option("--draft-model", help="Checkpoint of the drafter for --speculate eagle3.", show_default=False)
    ] = "",
    given: Options,
) -> None:
    """Write the scripts that start a plan and load it: the recommended one, or --plan.

    The settings are the ranked ones. Nothing is replaced without --force, and all files are written or none.
    """
    from advisor.api.answer import answer, launchable_plan, with_chat_format
    from advisor.api.question import question
    from advisor.launch import render, script

    asked = question(model=model, **given)
    if plan:
        prediction = launchable_plan(asked, plan)
    else:
        advice = answer(asked)
        if not advice.choices:
            raise NoPlanFitsError("no plan fits; `advisor recommend` with the same options says what would help.")
        prediction = advice.choices[0]
    chosen = script.Options(
        checkpoint=checkpoint, port=port, image=image, trust_remote_code=trust_remote_code, ray=ray, load_tool=load_tool,
        served_name=served_name, loras=tuple(lora or ()), kv_offload_gib=kv_offload, expert_backend=expert_backend,
        balance_experts=balance_experts, claim=claim, rdma=rdma, autoscale=autoscale, dashboard=dashboard,
        draft_model=draft_model,
    )  # fmt: skip
    if chat_formats:
        chosen = with_chat_format(asked.problem, chosen)
    files = render(asked.problem, prediction, target=target, options=chosen)
    if out is None:
        emit("\n".join(file.text for file in files))
        return
    for path in script.write(files, out, force=force):
        typer.echo(f"Wrote {path}.", err=True)
