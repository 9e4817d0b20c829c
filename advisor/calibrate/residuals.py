"""Residuals of rows that were left out -> error bars, and how often the choice between plans came out right."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from advisor.specs.calibration import Spread

Z90 = 1.6449
FEWEST = 12  # residuals below this say too little for an interval of their own
FLOOR = 0.03  # no figure is known better than 3%: repeats of the same benchmark differ by that much


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Median and 90th percentile of |predicted / measured - 1|, the share of measured figures inside the 90% interval, and how
    many times its upper end is its lower one in the median (`width`)."""

    points: int
    median: float
    p90: float
    bias: float
    covered: float | None = None
    width: float | None = None


def scatter(logs: Sequence[float], covered: Sequence[bool] = (), widths: Sequence[float] = ()) -> Scatter:
    """Summary of ln(measured / predicted); `bias` is the middle predicted / measured - 1, `widths` are upper over lower ends."""
    errors = sorted(abs(math.expm1(-value)) for value in logs)
    return Scatter(
        points=len(errors),
        median=quantile(errors, 0.5),
        p90=quantile(errors, 0.9),
        bias=math.expm1(-statistics.median(logs)),
        covered=sum(covered) / len(covered) if covered else None,
        width=statistics.median(widths) if widths else None,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the ordered values lie, linear between neighbours."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread_of(residuals: Iterable[tuple[str, float]]) -> Spread | None:
    """The spread of (question, ln(measured / predicted)) pairs; None when they are too few.

    Questions name what plans compared with each other share (box, engine, model, lengths): the scatter of their medians is the
    shared part, what remains inside a question the independent part. The total is set so that 90% of |ln| lie inside the
    interval around the prediction, whatever the shape of the tails.
    """
    rows = list(residuals)
    if len(rows) < FEWEST:
        return None
    total = max(FLOOR, quantile(sorted(abs(value) for _, value in rows), 0.9) / Z90)
    by_question: dict[str, list[float]] = defaultdict(list)
    for question, value in rows:
        by_question[question].append(value)
    inside = [
        (value - statistics.median(values)) * math.sqrt(len(values) / (len(values) - 1))
        for values in by_question.values()
        if len(values) > 1
        for value in values
    ]
    own = quantile(sorted(map(abs, inside)), 0.683) if len(inside) >= FEWEST else total / math.sqrt(2)
    own = min(max(own, FLOOR / 2), total * 0.95)
    return Spread(
        shared=math.sqrt(total**2 - own**2),
        independent=own,
        points=len(rows),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Choices between plans on the same number of GPUs at the same load, all plans measured."""

    made: int
    right: int
    mean_regret: float
    largest_tp_right: int


def choices(alternatives: Mapping[str, Mapping[str, tuple[float, float]]], *, tie: float = 0.0) -> Choices:
    """`alternatives[question][plan] = (measured, predicted)` seconds: lower is better; plan names sort by their tp degree.

    A choice is right when the plan predicted best measured best, or within `tie` of it. Regret is what the choice costs.
    """
    made = right = largest = 0
    regret = 0.0
    for plans in alternatives.values():
        if len(plans) < 2:
            continue
        made += 1
        best = min(measured for measured, _ in plans.values())
        chosen = min(plans.values(), key=lambda pair: pair[1])[0]
        right += chosen <= best * (1 + tie)
        regret += chosen / best - 1
        largest += plans[max(plans)][0] <= best * (1 + tie)
    return Choices(made=made, right=right, mean_regret=regret / made if made else 0.0, largest_tp_right=largest)
