"""The explorer as one HTML file: page, style, program and data in it, and a policy under which it can request nothing."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files

from advisor.report.explorer.pack import pack
from advisor.specs.exploration import Exploration

START = "main"
# Lines of a module that name another module of this folder, and what it gives away: both start a line.
_IMPORT = re.compile(r'^import \{(?P<names>[^}]*)\} from "\./(?P<file>[a-z_]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?P<kind>const|function|async function|class) (?P<name>\w+)", re.MULTILINE)


def page(exploration: Exploration) -> str:
    """The whole file. Every text of the question is data: the program writes it as text, never as markup."""
    style, program = _source("style.css"), bundle(START)
    title = f"{exploration.asked.model[:80]} on {exploration.asked.machine[:80]}"
    parts = {
        "{{POLICY}}": policy(style, program),
        "{{TITLE}}": escape(title),
        "{{STYLE}}": style,
        "{{DATA}}": embedded(pack(exploration)),
        "{{PROGRAM}}": program,
    }
    return re.sub(r"\{\{[A-Z]+\}\}", lambda found: parts[found[0]], _source("page.html"))


def policy(style: str, program: str) -> str:
    """A content-security policy that allows this style and this program, images made by it, and not one request."""
    return (
        f"default-src 'none'; script-src '{_digest(program)}'; style-src '{_digest(style)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def embedded(data: object) -> str:
    """`data` as JSON that cannot end the element it stands in: no `<`, `>` or `&` is left in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def bundle(start: str) -> str:
    """The modules that `start` needs as one script: each a function called once, after those it imports from.

    Raises ValueError where modules import each other in a ring.
    """
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"modules import each other: {' -> '.join((*path, name))}")
        if name not in order:
            for found in _IMPORT.finditer(_source(f"{name}.js")):
                visit(found["file"], (*path, name))
            order.append(name)

    visit(start, ())
    return "\n".join(map(_module, order))


def _module(name: str) -> str:
    """A module as a function that returns what it exports; imports become constants inside it."""
    text = _source(f"{name}.js")
    given = ", ".join(found["name"] for found in _EXPORT.finditer(text))
    text = _IMPORT.sub(lambda found: f"const {{{found['names'].replace(' as ', ': ')}}} = ${found['file']};\n", text)
    text = _EXPORT.sub(lambda found: f"{found['kind']} {found['name']}", text)
    return f"const ${name} = (() => {{\n{text}return {{ {given} }};\n}})();"


def _source(name: str) -> str:
    return files("advisor.report.explorer").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The hash that a policy names an element by."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
