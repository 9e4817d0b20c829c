"""YAML and JSON from strangers, read as plain data: no tags, no aliases, no duplicate keys, bounded size and depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from advisor.errors import ProfileError

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 40

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser where pyyaml was built with it


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader without aliases and with unique keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        if len(set(map(str, keys))) != len(keys):
            raise yaml.YAMLError("a key stands twice")
        return super().construct_mapping(node, deep=deep)


def read_text(path: Path) -> str:
    """The file as UTF-8 text. Raises ProfileError with a sentence."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ProfileError(f"{path} is larger than {MAX_BYTES // 2**20} MiB: that is no profile or config.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise ProfileError(f"{path} is not text (UTF-8): give a YAML or JSON file.") from None


def parse_yaml(text: str, *, origin: str) -> dict[str, Any]:
    """The mapping in YAML `text`. Raises ProfileError naming `origin` when it is not one."""
    try:
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).split("\n")[0] or type(error).__name__
        raise ProfileError(f"{origin} is not plain YAML{where}: {what}.") from None
    return _mapping(data, origin)


def parse_json(text: str, *, origin: str) -> dict[str, Any]:
    """The object in JSON `text`. Raises ProfileError naming `origin` when it is not one."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise ProfileError(f"{origin} is nested too deeply to be a config.") from None
    except ValueError as error:
        raise ProfileError(f"{origin} is not JSON: {error}.") from None
    return _mapping(data, origin)


def _mapping(data: Any, origin: str) -> dict[str, Any]:
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ProfileError(f"{origin} must be a mapping of names to values.")
    if _depth(data) > MAX_DEPTH:
        raise ProfileError(f"{origin} is nested more than {MAX_DEPTH} levels deep.")
    return data


def _depth(data: Any) -> int:
    level, depth = [data], 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [v for x in level for v in (x.values() if isinstance(x, dict) else x if isinstance(x, list) else ())]
    return depth
