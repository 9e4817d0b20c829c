"""`advisor accuracy`: the scoreboard against published figures."""

from __future__ import annotations

from typing import Annotated

import typer

from advisor.cli import options
from advisor.cli.show import emit, screen


def accuracy(
    misses: Annotated[int, typer.Option("--misses", min=0, help="How many of the largest misses to list.")] = 10,
    markdown: Annotated[bool, typer.Option("--markdown", help="The whole page of docs/accuracy.md.")] = False,
    as_json: options.Json = False,
) -> None:
    """Predicted beside published figures, each row's own model (then its family, then its GPU) left out of the fit."""
    from advisor.calibrate.accuracy import family_group, gpu_group, score
    from advisor.calibrate.lookup import Lookup
    from advisor.catalog.published import left_out, published_rows
    from advisor.report import accuracy as report
    from advisor.report.terminal import progress

    rows, without = published_rows(), left_out()
    scored, failed = score(progress(rows, "without their model", total=len(rows)), without)
    families, _ = score(progress(rows, "without their family", total=len(rows)), without, group=family_group)
    elsewhere, _ = score(
        progress(rows, "without their GPU", total=len(rows)),
        without,
        group=gpu_group,
        lookup=Lookup(online=False, local=False, exact=False),
    )
    board = report.Board.of(scored, families, elsewhere)
    if as_json:
        emit(report.accuracy_json(board, scored))
    elif markdown:
        emit(report.accuracy_markdown(board, scored, failed))
    else:
        emit(report.accuracy_page(board, scored, misses=misses, screen=screen()))
