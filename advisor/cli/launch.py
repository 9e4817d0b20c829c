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
    given: Options,
) -> None:
    """Write the scripts that start a plan and load it: the recommended one, or --plan.

    The settings are the ranked ones. Nothing is replaced without --force, and all files are written or none.
    """
    from advisor.api.answer import answer, launchable_plan
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
        checkpoint=checkpoint, port=port, image=image, trust_remote_code=trust_remote_code, ray=ray, load_tool=load_tool
    )  # fmt: skip
    files = render(asked.problem, prediction, target=target, options=chosen)
    if out is None:
        emit("\n".join(file.text for file in files))
        return
    for path in script.write(files, out, force=force):
        typer.echo(f"Wrote {path}.", err=True)
