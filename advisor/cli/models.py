"""`advisor models`: the model catalogue, or one model's sheet."""

from __future__ import annotations

from typing import Annotated

import typer

from advisor.cli import options
from advisor.cli.show import emit, screen


def models(
    name: Annotated[
        str, typer.Argument(help="Alias, Hugging Face id, path, or part of a name to search for.", show_default=False)
    ] = "",
    as_json: options.Json = False,
    offline: options.Offline = False,
) -> None:
    """List the model catalogue, or show what one model is made of and what it weighs."""
    from advisor.catalog.models import list_models, load_model
    from advisor.report.catalog import model_page, models_page

    if not name:
        listed = list_models()
        if as_json:
            from advisor.specs import wire

            emit(wire.to_json(listed) if False else _json(listed))
        else:
            emit(models_page(listed))
        return
    loaded = load_model(name, online=not offline)
    if as_json:
        from advisor.specs import wire

        emit(wire.to_json(loaded.spec))
    else:
        emit(model_page(loaded.spec, taken_as=loaded.taken_as if loaded.taken_as != name else "", screen=screen()))


def _json(listed: object) -> str:
    raise NotImplementedError
