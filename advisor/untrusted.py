"""Untrusted YAML and JSON, read as plain data: no tags, no anchors, no duplicate keys, bounded size and depth."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from advisor.errors import ProfileError, QuestionError
from advisor.files import read_bounded, shown

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 40
MAX_VALUES = 100_000

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser where pyyaml was built with it
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))
_BRACKET = re.compile(r"[\[\]{}]")
# A line that opens more levels than a profile has: a run of `- ` and `? `, or indentation.
_DEEP_LINE = re.compile(r"^(?:[-?] +){%d}|^ {%d}" % (MAX_DEPTH, 8 * MAX_DEPTH), re.MULTILINE)  # noqa: UP031


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader with unique keys, whose dates and sexagesimal numbers (`12:30`) stay the text they were written as."""

    tags = _PLAIN_TAGS

    def get_node(self) -> Any:
        root = super().get_node()
        pending = [root] if root is not None else []
        while pending:
            node = pending.pop()
            if node.tag == "tag:yaml.org,2002:timestamp" or (node.tag in _NUMBER_TAGS and ":" in node.value):
                node.tag = "tag:yaml.org,2002:str"
            elif node.tag not in self.tags:
                raise yaml.MarkedYAMLError(
                    problem=f"{node.tag.rpartition(':')[2]} values are not read", problem_mark=node.start_mark
                )
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
                pending += [value for pair in node.value for value in pair]
            elif isinstance(node, yaml.SequenceNode):
                pending += node.value
        return root


class _SharedLoader(_Loader):
    """One that also merges (`<<: *server`), for texts whose aliases were found to be few."""

    tags = _PLAIN_TAGS | {"tag:yaml.org,2002:merge"}


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key is not a plain word", problem_mark=key.start_mark)
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {key.value[:40]!r} stands twice", problem_mark=key.start_mark)
        seen.add(key.value)


def _check_events(text: str) -> None:
    """Refuse tags, anchors, aliases and depth before nodes are composed.

    The C composer recurses without a limit and resolves aliases unseen, so the event stream (flat, one pass) is asked, but only
    where the text could hold any of these.
    """
    deep = bool(_DEEP_LINE.search(text)) or _bracket_depth(text) > MAX_DEPTH
    if not deep and not any(mark in text for mark in "!&*"):
        return
    depth = 0
    events: Any = yaml.parse(text, Loader=_Base)
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not read", problem_mark=event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem="tags are not read", problem_mark=event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels deep", problem_mark=event.start_mark)


def _check_aliases(text: str) -> None:
    """Refuse tags, and anchors that grow beyond `MAX_VALUES` values when all aliases are written out, or hold themselves."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]  # anchor, values in it so far
    for event in yaml.parse(text, Loader=_Base):
        mark: Any = event.start_mark
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem="tags are not read", problem_mark=mark)
        added, anchor = 0, getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise yaml.MarkedYAMLError(problem="an alias stands in its own anchor", problem_mark=mark)
            added = sizes[anchor]
        elif isinstance(event, yaml.ScalarEvent):
            added = 1
            sizes |= {anchor: 1} if anchor else {}
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            name, added = open_nodes.pop()
            sizes |= {name: added} if name else {}
        outer, size = open_nodes[-1]
        open_nodes[-1] = outer, size + added
        if size + added > MAX_VALUES or len(open_nodes) > MAX_DEPTH + 1:
            raise yaml.MarkedYAMLError(problem="too many values or levels", problem_mark=mark)


def _bracket_depth(text: str) -> int:
    """The deepest nesting of brackets, those inside quotes counted too: never less than the real one."""
    deepest = depth = 0
    for match in _BRACKET.finditer(text):
        depth = depth + 1 if match[0] in "[{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest


# YAML 1.1 wants a point in a float; people and other programs write 1e-05.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+\Z"), list("-+0123456789"))


def read_text(path: Path) -> str:
    """The file as UTF-8 text. Raises ProfileError with a sentence."""
    try:
        raw = read_bounded(path, most_bytes=MAX_BYTES, what="a YAML or JSON file")
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ProfileError(f"{shown(path)} is not text (UTF-8): give a YAML or JSON file.") from None
    except QuestionError as error:
        raise ProfileError(str(error)) from None


def parse_yaml(text: str, *, origin: str) -> dict[str, Any]:
    """The mapping in YAML `text`. Raises ProfileError naming `origin` when it is not one."""
    found = _documents(text, origin, _check_events, _Loader)
    if len(found) > 1:
        raise ProfileError(f"{origin} is not plain YAML: it holds another document, where one is read.")
    return _mapping(found[0] if found else None, origin)


def parse_documents(text: str, *, origin: str) -> list[dict[str, Any]]:
    """The mappings among the documents of a YAML text (`---` between them), aliases written out. Raises ProfileError."""
    found = _documents(text, origin, _check_aliases, _SharedLoader)
    return [_mapping(data, origin) for data in found if data is not None]


def _documents(text: str, origin: str, check: Callable[[str], None], loader: type[_Loader]) -> list[Any]:
    try:
        check(text)
        return list(yaml.load_all(text, Loader=loader))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).split("\n")[0] or type(error).__name__
        if "nesting depth" in what:  # libyaml's own limit, which newer versions have
            what = f"more than {MAX_DEPTH} levels deep"
        raise ProfileError(f"{origin} is not plain YAML{where}: {what}.") from None


def parse_json(text: str, *, origin: str) -> dict[str, Any]:
    """The object in JSON `text`. Raises ProfileError naming `origin` when it is not one."""
    return _mapping(json_value(text, origin=origin), origin)


def json_value(text: str, *, origin: str) -> Any:
    """Any value in JSON `text`, a constant or a list too. Raises ProfileError naming `origin`."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ProfileError(f"{origin} is nested too deeply to be a config.") from None
    except ValueError as error:
        raise ProfileError(f"{origin} is not JSON: {error}.") from None


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
