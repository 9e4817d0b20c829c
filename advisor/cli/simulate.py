"""`advisor simulate`: a plan under a load with bursts, queues and lengths as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.cli.show import emit, screen

MACHINE_AND_ENGINE = (
    "gpu", "gpus", "nodes", "cluster", "node", "network", "calibration", "engine", "engine_version", "dtype", "kv_dtype",
)  # fmt: skip


@options.asking(only=MACHINE_AND_ENGINE)
def simulate(
    *,
    model: options.Model,
    plan: options.PlanText = "",
    given: Options,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", help="Requests: Azure or BurstGPT CSV, Mooncake JSON lines, or arrival_s,input_tokens,output_tokens."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a trace with a line that is not a request.")] = False,
    scale: Annotated[float, typer.Option("--scale", help="Times the trace's rate, or --rate: growth.")] = 1.0,
    arrivals: Annotated[str, typer.Option("--arrivals", help="poisson, gamma, constant or burst.", show_default=False)] = "",
    rate: Annotated[float | None, typer.Option("--rate", help="Requests per second.", show_default=False)] = None,
    burstiness: Annotated[
        float, typer.Option("--burstiness", help="Shape of gamma arrivals; 1 is poisson, less is burstier.")
    ] = 1.0,
    users: Annotated[int | None, typer.Option("--users", help="Users who wait for an answer before they ask again.")] = None,
    think: Annotated[str, typer.Option("--think", help="Mean time between an answer and the next request, e.g. 10s.")] = "",
    requests: Annotated[int | None, typer.Option("--requests", help="How many are drawn; 2000 otherwise.")] = None,
    input_tokens: Annotated[
        str, typer.Option("--input-tokens", help="Prompt lengths: 1024, lognormal(1024,3000) or a CSV of tokens,count.")
    ] = "",
    output_tokens: Annotated[str, typer.Option("--output-tokens", help="Answer lengths, the same way.")] = "",
    prefix_cached_tokens: Annotated[
        int, typer.Option("--prefix-cached-tokens", help="Tokens of each prompt that are always in the prefix cache.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of drawn arrivals and lengths.")] = 0,
    ttft: Annotated[str, typer.Option("--ttft", help="Limit, e.g. p90=2s, or 2s for the mean; several with commas.")] = "",
    tpot: Annotated[str, typer.Option("--tpot", help="Limit on the time per output token, e.g. p99=50ms.")] = "",
    e2e: Annotated[str, typer.Option("--e2e", help="Limit on the whole request, e.g. p95=20s.")] = "",
    max_num_seqs: Annotated[int | None, typer.Option("--max-num-seqs", min=1, help="As the engine was started.")] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option("--max-num-batched-tokens", min=1, help="As the engine was started.")
    ] = None,
    kv_tokens: Annotated[
        int | None, typer.Option("--kv-tokens", min=1, help="Cache tokens of a replica, as the engine printed them.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="CSV file to write, one row a request.", show_default=False)] = None,
    as_json: options.Json = False,
) -> None:
    """Percentiles, goodput and queues of a plan under a load, with the engine's own scheduler.

    The plan is --plan, or the one recommended for the load's mean. Intervals are those of runs with slower and faster steps.
    """
    from advisor.api.simulating import LoadWords, request_rows, simulate_plan
    from advisor.serving.simulate import Bounds

    load = LoadWords(
        trace=trace, strict=strict, scale=scale, arrivals=arrivals, rate=rate, burstiness=burstiness, users=users, think=think,
        requests=requests, input_tokens=input_tokens, output_tokens=output_tokens, prefix_cached_tokens=prefix_cached_tokens,
        seed=seed, ttft=ttft, tpot=tpot, e2e=e2e,
    )  # fmt: skip
    bounds = Bounds(max_sequences=max_num_seqs, token_budget=max_num_batched_tokens, kv_tokens=kv_tokens)
    found = simulate_plan(model=model, plan=plan, load=load, bounds=bounds, **given)
    if out is not None:
        from advisor.files import write_whole

        write_whole(out, request_rows(found.records))
        typer.echo(f"Wrote {out}: {len(found.records):,} requests.", err=True)
    if as_json:
        from advisor.specs.wire import to_json

        emit(to_json(found.simulation))
        return
    from advisor.report.simulation import page

    emit(page(found.simulation, said=found.said, screen=screen()))
