"""`advisor estimate`: one plan without a search, or a CSV file of configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.api.options import Options
from advisor.api.question import Question
from advisor.cli import options
from advisor.cli.show import emit, screen
from advisor.errors import QuestionError
from advisor.specs.deployment import names_pools


@options.asking()
def estimate(
    *,
    model: Annotated[str, typer.Option("--model", "-m", help="As for `recommend`.", show_default=False)] = "",
    plan: options.PlanText = "",
    given: Options,
    points: Annotated[
        Path | None, typer.Option("--points", help="CSV file, one configuration a row; with --out.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="CSV file to write, one row an input row.", show_default=False)] = None,
    as_json: options.Json = False,
) -> None:
    """Figures of one plan without a search, or of a whole CSV file of configurations (--points, --out).

    The file's columns: id, hardware, interconnect, nodes, gpus, engine, engine_version, model, weight_dtype, kv_dtype, tp, pp, dp,
    ep, input_tokens, output_tokens, mode, load, request_rate_per_s. Others are ignored.
    """
    if points is not None or out is not None:
        if points is None or out is None:
            raise QuestionError("--points and --out go together: the file to read and the file to write.")
        if model or plan:
            raise QuestionError("--points has its models and plans in the file; leave out --model and --plan.")
        from advisor.api.bulk import estimate_file

        own = given["calibration"]
        counts = estimate_file(points, out, calibration=Path(own) if own else None, online=given["online"])
        summary = ", ".join(f"{number:,} {status}" for status, number in counts.items() if number)
        typer.echo(f"Wrote {out}: {sum(counts.values()):,} rows ({summary}).", err=True)
        return
    if not plan:
        raise QuestionError("no plan was given: say --plan tp=4,dp=2, or ask `advisor recommend` for the best one.")
    from advisor.api.answer import estimate_plan, in_short
    from advisor.api.question import question

    asked = question(model=model, **given)
    if names_pools(plan):
        _pools(asked, plan, as_json=as_json)
        return
    prediction = estimate_plan(asked, plan)
    if as_json:
        from advisor.report.data import prediction_json

        emit(prediction_json(prediction))
        return
    from advisor.report.estimate import page

    emit(page(prediction, asked=in_short(asked.problem), said=asked.said, screen=screen()))


def _pools(asked: Question, plan: str, *, as_json: bool) -> None:
    """A plan that names pools: `prefill: tp=4,dp=4; decode: adp=8,ep=8`."""
    from advisor.api.answer import estimate_pools, in_short
    from advisor.report.pools import page
    from advisor.specs.wire import to_json

    found = estimate_pools(asked, plan)
    emit(to_json(found) if as_json else page(found, asked=in_short(asked.problem), said=asked.said, screen=screen()))
