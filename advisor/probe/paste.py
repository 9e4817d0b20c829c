"""A pasted text made plain: escapes, colours, quotes, tables and line ends taken off, words left as they are."""

from __future__ import annotations

import html
import re

# An ANSI sequence with its ESC byte, with the byte replaced (U+FFFD, U+241B), written out (\x1b, \u001b, \033, ^[), or lost.
_ANSI = re.compile(r"(?:\x1b|\ufffd|\u241b|\u2190|\\x1b|\\u001b|\\033|\\e|\^\[)?\[\d{0,3}(?:;\d{1,3})*[mK]", re.IGNORECASE)
_LONE = re.compile(r"\x1b(?:\][^\x07\x1b\n]*\x07|[()][A-Z0-9]|[=>])?|[\u200b-\u200f\u2060\ufeff\ufffd\x00-\x08\x0b\x0c\x0e-\x1f]")
_BREAK = re.compile(r"<br\s*/?>|</(?:p|div|tr|li|pre)>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:td|th|tr|table|tbody|thead|pre|code|p|div|span|b|strong|em|i|li|ul|summary|details)(?:\s[^<>\n]*)?>", re.IGNORECASE
)
_SPACES = str.maketrans(
    dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " ")
)
_SIGNS = str.maketrans(dict.fromkeys("|│┃║¦`*", " ") | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
_QUOTE = re.compile(r"^\s*(?:(?:>|#+|//|;)\s*)+(?=\S)")  # a mail's or comment's mark before each line
_LONGEST_LINE = 4096  # characters: a row of 128 GPUs has about 900


def lines_of(text: str) -> list[str]:
    """The lines of a paste without colours, quotes, table bars, escapes and odd spaces."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "\n".join(_unquoted(line) for line in text.split("\n"))
    text = text.replace("\\r", "").replace("\\n", "\n").replace("\\t", "\t")
    if "&" in text:
        text = html.unescape(text)
    text = _TAG.sub(" ", _BREAK.sub("\n", text)) if "<" in text else text
    text = _LONE.sub("", _ANSI.sub(" ", text)).translate(_SPACES)
    return [_QUOTE.sub("", line[:_LONGEST_LINE].translate(_SIGNS)).rstrip() for line in text.split("\n")]


def _unquoted(line: str) -> str:
    """A line of a notebook or of a JSON array, as "GPU0\\t X \\n", without its quotes and its written-out end."""
    body = line.strip()
    if body[:1] not in ('"', "'"):
        return line
    quote = body[0]
    return body[1:].removesuffix(",").removesuffix(quote).removesuffix("\\n").removesuffix("\\r")
