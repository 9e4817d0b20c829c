"""`advisor models`: the model catalogue, or one model's sheet."""

from __future__ import annotations

from typing import Annotated

import typer

from advisor.cli import options
from advisor.cli.show import emit, screen


def models(
    name: Annotated[str, typer.Argument(help="Alias, Hugging Face id, config.json, folder or YAML.", show_default=False)] = "",
    as_json: options.Json = False,
    offline: options.Offline = False,
) -> None:
    """List the model catalogue, or show what one model is made of and what it weighs."""
    from advisor.catalog.models import list_models, load_model
    from advisor.report import catalog

    if not name:
        listed = list_models()
        emit(catalog.data_json(listed) if as_json else catalog.models_page(listed, screen=screen()))
        return
    loaded = load_model(name, online=not offline)
    if as_json:
        emit(catalog.data_json(loaded.spec))
    else:
        emit(catalog.model_page(loaded.spec, screen=screen()))
