"""The options that verbs share. Those of a question are made from the fields of `advisor.api.options`, once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from advisor.api.options import PARTS

R = TypeVar("R")

# What the command line takes where Python takes more: a path for a cluster or a calibration, text with a unit for a limit.
_TEXT: dict[str, tuple[Any, object]] = {
    "cluster": (Path | None, None), "calibration": (Path | None, None), "ttft": (str, ""), "tpot": (str, ""),
}  # fmt: skip


def _names(option: str) -> Callable[[str], list[str]]:
    """What the shell may complete an option to."""

    def complete(incomplete: str) -> list[str]:
        from advisor.cli.complete import known

        return [name for name in known(option) if name.startswith(incomplete)]

    return complete


Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Alias (70b, mixtral), Hugging Face id, config.json, folder or YAML profile.", show_default=False,
        autocompletion=_names("model"),
    ),
]  # fmt: skip
PlanText = Annotated[str, typer.Option("--plan", help="Degrees, e.g. tp=4,pp=2,dp=1 (also ep, adp).", show_default=False)]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the Hugging Face hub.")]
Json = Annotated[bool, typer.Option("--json", help="The whole answer as JSON, units in the keys.")]


def asking(
    *, only: Iterable[str] = (), without: Iterable[str] = (), offline: bool = True
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Gives a verb the options of a question, which it takes as one argument `given` (an `advisor.api.options.Options`).

    All of them, or `only` some, or all `without` some; and --offline. The help lists them at the position of `given`.
    """
    chosen, left_out = set(only), set(without)
    options = [p for p in _parameters() if (p.name in chosen if chosen else p.name not in left_out)]
    last = [inspect.Parameter("offline", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Offline)] if offline else []

    def with_options(verb: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(verb)
        def called(**values: Any) -> R:
            given = {option.name: values.pop(option.name) for option in options}
            return verb(given={**given, "online": not values.pop("offline", False)}, **values)

        found: list[inspect.Parameter] = []
        for parameter in inspect.signature(verb, eval_str=True).parameters.values():
            found += options if parameter.name == "given" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        found += last
        called.__signature__ = inspect.Signature(found)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in found}
        return called

    return with_options


def _parameters() -> list[inspect.Parameter]:
    return [_parameter(each, kinds[each.name]) for part in PARTS for kinds in [get_type_hints(part)] for each in fields(part)]


def _parameter(each: Field[Any], kind: object) -> inspect.Parameter:
    kind, default = _TEXT.get(each.name, (kind, each.default))
    flags = ["--" + each.name.replace("_", "-"), *filter(None, [each.metadata["also"]])]
    option = typer.Option(
        *flags, help=each.metadata["help"], show_default=bool(default), autocompletion=_names(each.name) if kind is str else None
    )
    return inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
