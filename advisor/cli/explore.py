"""`advisor explore`: a question as one HTML file, to look at and to send."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.errors import NoPlanFitsError


@options.asking()
def explore(
    *,
    model: options.Model,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("advice.html"),
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    given: Options,
) -> int:
    """The answer as one HTML file with sliders: plans, load, where the time goes, other GPUs, ranks on the machine, formulas.

    The file needs no network and no other file; its figures were computed when it was written. Exit code 1 when nothing fits: the
    file then shows why.
    """
    from advisor.api.explore import explore as explored
    from advisor.api.explore import write_page
    from advisor.api.question import question

    asked = question(model=model, **given)
    found = explored(asked)
    write_page(found, out)
    typer.echo(f"Wrote {out}.", err=True)
    if open_it:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())
    return 0 if found.explored else NoPlanFitsError.exit_code
