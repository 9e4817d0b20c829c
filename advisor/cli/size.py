"""`advisor size`: the fewest GPUs for a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.cli.show import emit, screen


@options.asking(only=("node", "network", "engine", "engine_version", "dtype", "kv_dtype"))
def size(
    *,
    model: options.Model,
    gpu: Annotated[str, typer.Option("--gpu", help="GPU types to compare, e.g. h100,h200,l40s.")] = "",
    given: Options,
    trace: Annotated[Path | None, typer.Option("--trace", help="Requests, as for `simulate`.", show_default=False)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a trace with a line that is not a request.")] = False,
    scale: Annotated[float, typer.Option("--scale", help="Times the trace's rate, or --rate: growth.")] = 1.0,
    arrivals: Annotated[str, typer.Option("--arrivals", help="poisson, gamma, constant or burst.", show_default=False)] = "",
    rate: Annotated[float | None, typer.Option("--rate", help="Requests per second.", show_default=False)] = None,
    burstiness: Annotated[float, typer.Option("--burstiness", help="Shape of gamma arrivals; below 1 they bunch.")] = 1.0,
    requests: Annotated[int | None, typer.Option("--requests", help="How many are drawn; 2000 otherwise.")] = None,
    input_tokens: Annotated[str, typer.Option("--input-tokens", help="As for `simulate`.")] = "",
    output_tokens: Annotated[str, typer.Option("--output-tokens", help="As for `simulate`.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of drawn arrivals and lengths.")] = 0,
    ttft: Annotated[str, typer.Option("--ttft", help="Limit, e.g. p90=1s.")] = "",
    tpot: Annotated[str, typer.Option("--tpot", help="Limit, e.g. p99=60ms.")] = "",
    e2e: Annotated[str, typer.Option("--e2e", help="Limit on the whole request, e.g. p95=20s.")] = "",
    goal: Annotated[str, typer.Option("--goal", help="What counts: gpus, usd (an hour) or usd-per-token.")] = "gpus",
    confidence: Annotated[float, typer.Option("--confidence", help="Chance that the limits are kept.")] = 0.9,
    price: Annotated[Path | None, typer.Option("--price", help="CSV of name,usd_per_hour, over the sheets' prices.")] = None,
    as_json: options.Json = False,
) -> None:
    """The fewest GPUs, or dollars, that serve a load within its limits, for each GPU type; and why one replica fewer does not."""
    from advisor.api.simulating import LoadWords
    from advisor.api.sizing import size_service

    load = LoadWords(
        trace=trace, strict=strict, scale=scale, arrivals=arrivals, rate=rate, burstiness=burstiness, requests=requests,
        input_tokens=input_tokens, output_tokens=output_tokens, seed=seed, ttft=ttft, tpot=tpot, e2e=e2e,
    )  # fmt: skip
    found, said = size_service(model=model, gpus=gpu, load=load, goal=goal, confidence=confidence, prices=price, options=given)
    if as_json:
        from advisor.specs.wire import to_json

        emit(to_json(found))
    else:
        from advisor.report.sizing import page

        emit(page(found, said=said, screen=screen()))
    if not found.sizes:
        raise typer.Exit(1)
