"""`mtp:3` and an acceptance in words -> Speculation; the accepted lengths that ship, with their source and spread."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import cast, get_args

from advisor.catalog.shipped import folder
from advisor.errors import QuestionError
from advisor.specs.speculation import Method, Speculation, accepted_length
from advisor.specs.wire import from_data
from advisor.untrusted import parse_yaml

MOST_DRAFTS = 16  # beyond it no engine drafts a chain


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLengths:
    """Accepted lengths of a method for 1, 2, 3, ... drafted tokens: mean, lowest and highest of the published curves."""

    lengths: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    source: str


def load_speculation(text: str, *, acceptance: str = "") -> Speculation:
    """`METHOD:DRAFTS`, e.g. `mtp:3`, with the method's published acceptance or the one given.

    `acceptance` is an accepted length above 1 (`2.6`: tokens a verify step yields) or the conditional rate of each position
    (`0.8,0.7,0.6`). Raises QuestionError with one sentence.
    """
    match = re.fullmatch(r"([a-z0-9]+):(\d{1,3})", text.strip().lower())
    if not match or match[1] not in get_args(Method) or not 1 <= int(match[2]) <= MOST_DRAFTS:
        raise QuestionError(
            f"--speculate {text[:40]!r} is not METHOD:TOKENS; write mtp:3, eagle3:3 or ngram:4 (1 to {MOST_DRAFTS} drafted tokens)."
        )
    method, drafts = cast(Method, match[1]), int(match[2])
    if acceptance:
        length = _given(acceptance, drafts)
        return Speculation(
            method=method, drafts=drafts, length=length, length_low=length, length_high=length, source="--acceptance"
        )
    published = _published().get(method)
    if published is None:
        raise QuestionError(
            f"what {method} accepts depends on the text alone, and no published length is shipped: "
            "say --acceptance 1.8 (tokens a step yields) or rates such as --acceptance 0.5,0.4."
        )
    if drafts > len(published.lengths):
        raise QuestionError(
            f"published lengths of {method} end at {len(published.lengths)} drafted tokens: say --acceptance for {drafts}."
        )
    low, length, high = (curve[drafts - 1] for curve in (published.lowest, published.lengths, published.highest))
    return Speculation(method=method, drafts=drafts, length=length, length_low=low, length_high=high, source=published.source)


def _given(text: str, drafts: int) -> float:
    """The accepted length of a length or of rates by position."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if len(numbers) == 1 and 1 <= numbers[0] <= drafts + 1:
        return numbers[0]
    if len(numbers) == drafts and all(0 <= rate <= 1 for rate in numbers):
        return accepted_length(numbers)
    raise QuestionError(
        f"--acceptance {text[:40]!r} is neither a length between 1 and {drafts + 1} nor {drafts} rates between 0 and 1; "
        "write 2.6, or one rate for each drafted token as 0.8,0.7,0.6."
    )


@cache
def _published() -> dict[str, PublishedLengths]:
    origin = "profiles/speculation.yaml"
    data = parse_yaml(folder("speculation.yaml").read_text(encoding="utf-8"), origin=origin)
    return {name: from_data(entry, PublishedLengths, origin=f"{origin}, {name}") for name, entry in data.items()}
