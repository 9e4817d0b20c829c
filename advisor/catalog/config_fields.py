"""A config's figures, read one by one: there, of their type, finite and within sane bounds, or one sentence says what is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from advisor.errors import ProfileError

MAX_SIZE = 10**7  # no width, vocabulary or context of a published model is near it, but for contexts
MAX_CONTEXT = 10**9
MAX_LAYERS = 2000
_MISSING: Any = object()


class Fields:
    """An untrusted mapping. `keys` arguments are alternatives: the first that is present and not null is read.

    Remembers what was asked for, so that a data sheet can refuse figures that nothing reads.
    """

    __slots__ = ("_asked", "_children", "_data", "origin")

    def __init__(self, data: Mapping[str, Any], origin: str) -> None:
        self._data = data
        self._asked: set[str] = set()
        self._children: dict[str, Fields] = {}
        self.origin = origin

    def unread(self) -> list[str]:
        """Fields that nothing asked for, in file order, those of nested mappings after their own."""
        own = [key for key in self._data if key not in self._asked]
        return own + [f"{name}.{key}" for name, child in self._children.items() for key in child.unread()]

    def _find(self, keys: tuple[str, ...]) -> tuple[str, Any]:
        self._asked.update(keys)
        for key in keys:
            value = self._data.get(key)
            if value is not None:
                return key, value
        return keys[0], None

    def has(self, *keys: str) -> bool:
        """Whether one of `keys` is present and not null."""
        return self._find(keys)[1] is not None

    def refuse(self, what: str) -> ProfileError:
        """The error with this config's name in front."""
        return ProfileError(f"{self.origin}: {what}")

    def _missing(self, keys: tuple[str, ...]) -> ProfileError:
        return self.refuse(f"{' or '.join(keys)} is missing, and the size of the model depends on it.")

    def integer(self, *keys: str, default: int | None = _MISSING, low: int = 1, high: int = MAX_SIZE) -> int:
        """A whole number within [low, high]; JSON floats without a fraction count."""
        key, value = self._find(keys)
        if value is None:
            if default is _MISSING:
                raise self._missing(keys)
            return default  # type: ignore[return-value]
        if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and not value.is_integer()):
            raise self.refuse(f"{key} must be a whole number, not {_shown(value)}.")
        if not low <= value <= high:
            raise self.refuse(f"{key} must be between {low} and {high}, not {_shown(value)}.")
        return int(value)

    def number(self, *keys: str, default: float | None = _MISSING, low: float = 0.0, high: float = 1e12) -> float:
        """A finite number within [low, high]."""
        key, value = self._find(keys)
        if value is None:
            if default is _MISSING:
                raise self._missing(keys)
            return default  # type: ignore[return-value]
        return self._number(key, value, low, high)

    def _number(self, key: str, value: Any, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(f"{key} must be a number, not {_shown(value)}.")
        if not low <= value <= high or not math.isfinite(value):
            raise self.refuse(f"{key} must be between {low:g} and {high:g}, not {_shown(value)}.")
        return float(value)

    def flag(self, *keys: str, default: bool = False) -> bool:
        """True or false; 0 and 1 count."""
        key, value = self._find(keys)
        if value is None:
            return default
        if not isinstance(value, bool) and value not in (0, 1):
            raise self.refuse(f"{key} must be true or false, not {_shown(value)}.")
        return bool(value)

    def text(self, *keys: str, default: str = "") -> str:
        """A string."""
        key, value = self._find(keys)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.refuse(f"{key} must be a text, not {_shown(value)}.")
        return value

    def child(self, *keys: str) -> Fields | None:
        """A nested mapping, or None where there is none."""
        key, value = self._find(keys)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.refuse(f"{key} must be a mapping, not {_shown(value)}.")
        return self._children.setdefault(key, Fields(value, f"{self.origin}, {key}"))

    def children(self) -> list[Fields]:
        """Every value that is itself a mapping."""
        found = [self.child(key) for key, value in self._data.items() if isinstance(value, dict)]
        return [x for x in found if x is not None]

    def nested_texts(self, key: str) -> list[tuple[str, str]]:
        """Name and text of `key` for every mapping inside this one."""
        self._asked.update(self._data)
        return [(name, Fields(v, self.origin).text(key)) for name, v in self._data.items() if isinstance(v, dict)]

    def texts(self, *keys: str) -> list[str]:
        """A list of strings; empty where there is none."""
        return [self._typed(key, x, str) for key, x in self._items(keys)]

    def integers(self, *keys: str, low: int = 0, high: int = MAX_SIZE) -> list[int]:
        """A list of whole numbers; empty where there is none."""
        found = []
        for key, value in self._items(keys):
            item = int(value) if isinstance(value, bool) else self._typed(key, value, int)
            if not low <= item <= high:
                raise self.refuse(f"every {key} must be between {low} and {high}, not {_shown(item)}.")
            found.append(item)
        return found

    def numbers(self, *keys: str) -> tuple[float, ...]:
        """A list of finite numbers; empty where there is none."""
        return tuple(self._number(key, x, -1e12, 1e12) for key, x in self._items(keys))

    def is_list(self, key: str) -> bool:
        """Whether `key` holds a list."""
        return isinstance(self._find((key,))[1], list)

    def is_text(self, key: str) -> bool:
        """Whether `key` holds a text."""
        return isinstance(self._find((key,))[1], str)

    def _items(self, keys: tuple[str, ...]) -> list[tuple[str, Any]]:
        key, value = self._find(keys)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > 100 * MAX_LAYERS:
            raise self.refuse(f"{key} must be a list, not {_shown(value)}.")
        return [(key, x) for x in value]

    def _typed(self, key: str, value: Any, kind: type) -> Any:
        if not isinstance(value, kind):
            raise self.refuse(f"every {key} must be a {'text' if kind is str else 'whole number'}, not {_shown(value)}.")
        return value

    def per_layer(self, key: str, layers: int, found: list[Any]) -> list[Any]:
        """`found` cut to the layers of the decode path (next-n layers may follow); refused when it is shorter."""
        if len(found) < layers:
            raise self.refuse(f"{key} describes {len(found)} layers, but the model has {layers}.")
        return found[:layers]


def _shown(value: Any) -> str:
    """An untrusted value, short enough for a sentence."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a number of hundreds of digits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
