"""Any spec <-> JSON, through one pydantic TypeAdapter a type."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from advisor.errors import ProfileError

T = TypeVar("T")


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _adapters:  # building one costs milliseconds; the types never change
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_json(value: object, *, indent: int | None = 2) -> str:
    """The value as JSON text, fields by name."""
    return _adapter(type(value)).dump_json(value, indent=indent).decode()


def to_data(value: object) -> Any:
    """The value as plain lists and dicts, fit for JSON or YAML."""
    return _adapter(type(value)).dump_python(value, mode="json")


def from_json(text: str | bytes, kind: type[T], *, origin: str) -> T:
    """The spec in `text`. Raises ProfileError naming `origin` and the first field that is wrong."""
    try:
        return _adapter(kind).validate_json(text)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise ProfileError(f"{origin} is not a valid {kind.__name__} file: {first_problem(error)}") from None


def from_data(data: object, kind: type[T], *, origin: str) -> T:
    """The spec in plain `data`. Raises ProfileError naming `origin` and the first field that is wrong."""
    try:
        return _adapter(kind).validate_python(data)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise ProfileError(f"{origin} is not a valid {kind.__name__} file: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found, as `field: what is wrong`."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"]) or "content"
    return f"{place}: {problem['msg']}"
