"""Sound values and texts, damaged: fields dropped, doubled, moved, given other values; characters lost, doubled, swapped."""

from __future__ import annotations

import copy
import math
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 72, 4096, 10**6, 10**9, 2**63, 10**30, -(10**40), 0.5, -1.5, 1e-320, 1e308, math.inf,
    -math.inf, math.nan, "", " ", "4096", "auto", "x" * 3000, "re:(a+)+$", "../../etc/passwd", "$(touch here)", "`id`",
    "a\x1b[31mb", "a\nb", "é\u202e",
    "\ud800", [], [0], [1, 2, 3], [None], ["a"] * 50, [[[[]]]], {}, {"a": 1}, {"a": {"b": [1]}}, "80 GiB",
    "-1 GB/s", "1e400 B", "NaN", "0", "1e-300 s",
)  # fmt: skip
NOISE = ("\x00", "\x1b[2J", "\t", "  ", "\n", "\r\n", "[", "]", "{", "}", ":", ",", "-", '"', "'", "#", "&a ", "*a", "!!x ", "\\",
         "\ufeff", "GPU0", "NV18", "X", "9" * 30, "N/A", "é", "\u2028", "=" * 40, " " * 200)  # fmt: skip


def damaged(value: Any, dice: Random, *, times: int = 3) -> Any:
    """A copy of nested lists and mappings with some of it changed."""
    found = copy.deepcopy(value)
    for _ in range(dice.randint(1, times)):
        places = _places(found)
        if not places:
            return dice.choice(VALUES)
        holder, key = dice.choice(places)
        _change(holder, key, dice)
    return found


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        one = pending.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            pending.append(one[key])
    return found


def _change(holder: Any, key: Any, dice: Random) -> None:
    kind = dice.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[str(dice.choice(VALUES))[:40]] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.extend([copy.deepcopy(holder[key])] * dice.choice((1, 2, 50)))
    elif kind == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = holder[key] * dice.choice((-1, 0, 0.001, 2, 1000, 1e9))
    else:
        holder[key] = copy.deepcopy(dice.choice(VALUES))


def garbled(text: str, dice: Random, *, times: int = 6) -> str:
    """A text with pieces lost, doubled, moved or put in."""
    for _ in range(dice.randint(1, times)):
        at = dice.randint(0, len(text))
        length = dice.choice((1, 1, 2, 5, 20, 200))
        piece = text[at : at + length]
        kind = dice.randrange(6)
        if kind == 0:
            text = text[:at] + text[at + length :]
        elif kind == 1:
            text = text[:at] + piece * dice.choice((2, 2, 3, 500)) + text[at + length :]
        elif kind == 2:
            text = text[:at] + dice.choice(NOISE) * dice.choice((1, 1, 3, 300)) + text[at:]
        elif kind == 3:
            text = text[:at]
        elif kind == 4:
            other = dice.randint(0, len(text))
            text = text[:other] + piece + text[other:]
        else:
            lines = text.split("\n")
            dice.shuffle(lines)
            text = "\n".join(lines) if dice.random() < 0.2 else text.replace(dice.choice(lines) or "\n", dice.choice(NOISE), 1)
        text = text[:200_000]
    return text
