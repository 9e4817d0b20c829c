"""Spreads of residuals made complete: what a profile's rows do not measure is lent, and less familiar is never narrower.

A spread belongs to a figure, to how near the GPU is, and to a family of models ("": all of them; "unseen": families left out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from advisor.serving.familiarity import CLOSENESS, LENT, UNSEEN
from advisor.specs.calibration import Spread

SpreadKey = tuple[str, str, str]  # figure, closeness, family

WIDER = 1.5  # nothing known of a GPU, or no family ever left out: the interval of what is known, half as wide again
FIRST_TOKEN = 2.0  # a TTFT that no row measures scatters about twice as much as TPOT
_LENDERS = {"tpot": ("latency", "throughput"), "latency": ("tpot", "throughput"), "throughput": ("tpot", "latency")}
FIGURES = ("ttft", "tpot", "latency", "throughput")


def completed(spreads: Mapping[SpreadKey, Spread]) -> dict[SpreadKey, Spread]:
    """Latency, throughput and TPOT lend each other what the rows do not measure; farther and unseen are never narrower."""
    found = dict(spreads)
    for near, kind in sorted({(near, kind) for _, near, kind in spreads}):
        for name, others in _LENDERS.items():
            lent = next((spreads[o, near, kind] for o in (name, *others) if (o, near, kind) in spreads), None)
            if lent:
                found[name, near, kind] = lent
        if ("ttft", near, kind) not in found and ("tpot", near, kind) in found:
            found["ttft", near, kind] = widened(found["tpot", near, kind], FIRST_TOKEN)
    kinds = sorted({kind for *_, kind in spreads} | {UNSEEN})  # "" comes first: the others stand on it
    for name in FIGURES:
        for kind in kinds:
            _grow(found, name, kind)
    return found


def _grow(found: dict[SpreadKey, Spread], name: str, kind: str) -> None:
    """Every closeness of one figure and family: at least what is nearer has, unseen at least what all have."""
    nearer: Spread | None = None
    for near in CLOSENESS:
        everyone = found.get((name, near, ""))
        here = found.get((name, near, kind))
        if near == CLOSENESS[-1]:
            here = widened(nearer, WIDER) if nearer else None
        elif here is None and kind and nearer:
            here = wider(everyone, nearer)
        elif here is None and kind == UNSEEN and everyone:
            here = widened(everyone, WIDER)
        if kind == UNSEEN:
            here = wider(here, everyone)
        here = wider(here, nearer)
        if here:
            found[name, near, kind] = nearer = here
    lent = wider(found.get((name, LENT, kind)) or found.get((name, LENT, "")), found.get((name, CLOSENESS[0], kind)))
    if (name, LENT, "") in found and lent:
        found[name, LENT, kind] = lent


def total(spread: Spread) -> float:
    """Standard deviation of one prediction."""
    return math.hypot(spread.shared, spread.independent)


def wider(one: Spread | None, other: Spread | None) -> Spread | None:
    """The wider of two, the first where they are equal."""
    return max((spread for spread in (one, other) if spread), key=total, default=None)


def widened(spread: Spread, factor: float) -> Spread:
    """A spread whose shared part is so many times as wide: no rows stand behind it."""
    return replace(spread, shared=spread.shared * factor, points=0)
