"""`advisor explore`: a question as one HTML file, to look at and to send."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import options
from advisor.errors import NoPlanFitsError


def explore(
    model: options.Model,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("advice.html"),
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    gpu: options.Gpu = "",
    gpus: options.Gpus = None,
    nodes: options.Nodes = None,
    cluster: options.ClusterFile = None,
    node: options.NodeName = "",
    network: options.NetworkName = "",
    engine: options.EngineName = "vllm",
    engine_version: options.EngineVersion = "",
    dtype: options.Dtype = "",
    kv_dtype: options.KvDtype = "",
    preset: options.Preset = "",
    input_tokens: options.InputTokens = None,
    output_tokens: options.OutputTokens = None,
    users: options.Users = None,
    rate: options.Rate = None,
    prefix_cached_tokens: options.PrefixCached = None,
    ttft: options.Ttft = "",
    tpot: options.Tpot = "",
    goal: options.GoalName = "",
    calibration: options.CalibrationFile = None,
    offline: options.Offline = False,
) -> int:
    """The answer as one HTML file with sliders: plans, load, where the time goes, other GPUs, ranks on the machine, formulas.

    The file needs no network and no other file; its figures were computed when it was written. Exit code 1 when nothing fits: the
    file then shows why.
    """
    from advisor.api.explore import explore as explored
    from advisor.api.explore import write_page
    from advisor.api.question import question

    asked = question(
        model=model, gpu=gpu, gpus=gpus, nodes=nodes, cluster=cluster, node=node, network=network, engine=engine,
        engine_version=engine_version, dtype=dtype, kv_dtype=kv_dtype, preset=preset, input_tokens=input_tokens,
        output_tokens=output_tokens, users=users, rate=rate, prefix_cached_tokens=prefix_cached_tokens, ttft=ttft, tpot=tpot,
        goal=goal, calibration=calibration, online=not offline,
    )  # fmt: skip
    found = explored(asked)
    write_page(found, out)
    typer.echo(f"Wrote {out}.", err=True)
    if open_it:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())
    return 0 if found.explored else NoPlanFitsError.exit_code
