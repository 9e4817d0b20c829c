"""`advisor recommend`: the question this program exists for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.cli.show import emit, screen
from advisor.errors import NoPlanFitsError


@options.asking()
def recommend(
    *,
    model: options.Model,
    given: Options,
    launch: Annotated[
        Path | None, typer.Option("--launch", help="Write the launch script into this folder.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the answer as one HTML file too, as `explore` does.", show_default=False)
    ] = None,
    disaggregate: Annotated[
        str, typer.Option("--disaggregate", help="Prefill and decode apart: auto (more than 8 GPUs), never or only.")
    ] = "auto",
    compare: Annotated[
        str, typer.Option("--compare", help="GPUs to set side by side, e.g. h100,h200,l40s; in place of --gpu.", show_default=False)
    ] = "",
    top: Annotated[int, typer.Option("--top", min=1, help="Rows of the table.")] = 8,
    everything: Annotated[bool, typer.Option("--all", help="Every plan, and the rejected ones with their reasons.")] = False,
    as_json: options.Json = False,
) -> int:
    """The best plan for a model, a machine and a workload, why, and how to launch it.

    Without --gpu the machine here is read; without a GPU here, eight H100 are assumed. Without --users or --rate, as many users
    as fit within the limits. Exit code 1 when nothing fits.
    """
    from advisor.api.answer import answer, chosen, write_launch
    from advisor.api.question import question

    if compare:
        return _compared(model, compare, given, as_json=as_json)
    asked = question(model=model, **given)
    advice = answer(asked, disaggregate=chosen(disaggregate))
    written = write_launch(asked, advice, launch) if launch else ()
    if html is not None:
        from advisor.api.explore import explore, write_page

        write_page(explore(asked, advice), html)
        written = (*written, html)
    if as_json:
        from advisor.report.data import advice_json

        emit(advice_json(advice, top=None if everything else top))
    else:
        from advisor.report.advice import page

        emit(page(advice, top=top, everything=everything, screen=screen()))
    for path in written:
        typer.echo(f"Wrote {path}.", err=True)
    return 0 if advice.choices else NoPlanFitsError.exit_code


def _compared(model: str, names: str, given: Options, *, as_json: bool) -> int:
    from advisor.api.side_by_side import compared
    from advisor.report.side_by_side import page

    found = compared(model, names, given)
    if as_json:
        from advisor.specs.wire import to_json

        emit(to_json(found))
    else:
        emit(page(found, screen=screen()))
    return 0 if any(each.advice and each.advice.choices for each in found.machines) else NoPlanFitsError.exit_code
