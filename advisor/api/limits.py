"""Limits as they are said: 500ms of the mean, p90=2s of a percentile."""

from __future__ import annotations

import math
import re
from typing import cast, get_args

from advisor.errors import QuestionError
from advisor.specs.limit import Limit, Timed
from advisor.units import parse

_LIMIT = re.compile(r"(?:(mean|p\d{1,2}(?:\.\d+)?)\s*=\s*)?(.+)", re.DOTALL)


def limits_of(*, ttft: str | float | None, tpot: str | float | None, e2e: str | float | None) -> tuple[Limit, ...]:
    """All of them; text may hold several, separated by commas, and a bare number is seconds."""
    found: list[Limit] = []
    for figure, value in zip(get_args(Timed), (ttft, tpot, e2e), strict=True):
        if value is None or value == "":
            continue
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
        found += [limit_of(cast(Timed, figure), part) for part in parts if part != ""]
    return tuple(found)


def limit_of(figure: Timed, value: str | float) -> Limit:
    """One limit: p90=2s, mean=1s, 2s, or seconds as a number."""
    share, text = 0.0, value
    if isinstance(value, str):
        match = _LIMIT.fullmatch(value.lower())
        assert match is not None
        share, text = (0.0 if match[1] in (None, "mean") else float(match[1][1:]) / 100), match[2]
    return Limit(figure=figure, seconds=seconds_of(f"--{figure}", text), share=share)


def seconds_of(option: str, value: str | float) -> float:
    """Seconds; text must name its unit, because 30 means milliseconds to some and seconds to others."""
    if isinstance(value, str):
        try:
            seconds = parse(value.strip(), "s")
        except ValueError:
            raise QuestionError(f"{option} {value[:60]!r} is not a time with a unit; write it as 500ms or 2s, or p90=2s.") from None
    else:
        seconds = float(value)
    if not (math.isfinite(seconds) and 0 < seconds < 1e6):
        raise QuestionError(f"{option} {value} is not a possible limit; it must be above 0.")
    return seconds
