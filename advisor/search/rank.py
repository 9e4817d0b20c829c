"""From predictions to advice: the order by the goal under the limits, the front, how sure the first place is, and why."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.search.cause import cause
from advisor.search.certainty import first_share
from advisor.search.front import front
from advisor.search.order import prefer_simple, shape, sort_key
from advisor.specs.advice import Advice
from advisor.specs.prediction import Estimate, Prediction, Rejected
from advisor.specs.workload import Workload
from advisor.units import show

CONTENDERS = 12  # plans further down never come first in practice; the draw looks at so many


def rank(predictions: Sequence[Prediction], workload: Workload, rejected: Sequence[Rejected]) -> Advice:
    """The advice: `predictions` best first, with the front, the cause and the certainty of the first place.

    Plans within the limits come first, by the goal; the others follow by how far they miss. Where the best cannot be told
    from a simpler plan, the simpler one is chosen.
    """
    if not predictions:
        return Advice(choices=(), front=(), cause=None, rejected=tuple(rejected), limits_met=False)
    order, close = prefer_simple(sorted(predictions, key=lambda p: sort_key(p, workload)), workload)
    first = order[0]
    runner = next((p for p in order[1:] if shape(p.plan) != shape(first.plan)), None)
    return Advice(
        choices=tuple(order),
        front=tuple(p.plan for p in front(order)),
        cause=cause(first, runner, workload, close=close),
        rejected=tuple(rejected),
        runner_up=runner.plan if runner else None,
        first_share=first_share(_rivals(order), workload) if first.within_limits else None,
        close_call=close,
        limits_met=first.within_limits,
        notes=tuple(_limit_notes(order, workload)),
    )


def _rivals(order: Sequence[Prediction]) -> list[Prediction]:
    """The best plan of each replica shape, of those that stand to the limits as the first does."""
    found: dict[tuple[int, ...], Prediction] = {}
    for p in order:
        if len(found) < CONTENDERS and p.within_limits == order[0].within_limits:
            found.setdefault(shape(p.plan), p)
    return list(found.values())


def _limit_notes(order: Sequence[Prediction], workload: Workload) -> list[str]:
    """What to know about the limits: not met by any plan, not at once, or closer than the error bar."""
    notes: list[str] = []
    first = order[0]
    if workload.ttft_limit_s is not None:
        notes += _limit_note("TTFT", workload.ttft_limit_s, [p.ttft_s for p in order], first, workload)
    if workload.tpot_limit_s is not None:
        notes += _limit_note("TPOT", workload.tpot_limit_s, [p.tpot_s for p in order], first, workload)
    if not first.within_limits and not notes:
        notes.append("No plan carries this load within the limits.")
    return notes


def _limit_note(name: str, limit_s: float, found: Sequence[Estimate], first: Prediction, workload: Workload) -> list[str]:
    best = min(e.value for e in found)
    if best > limit_s:
        return [f"No plan meets the {name} limit of {show(limit_s, 's')}: the closest has {show(best, 's')}."]
    mine = found[0]
    if mine.value > limit_s:
        return [
            f"The {name} limit of {show(limit_s, 's')} is met only by plans that miss the other: this one has "
            f"{show(mine.value, 's')}."
        ]
    if first.within_limits and mine.high > limit_s and workload.mode != "capacity":
        return [
            f"{name} {show(mine.value, 's')} is within the limit of {show(limit_s, 's')}, but its 90% interval reaches "
            f"{show(mine.high, 's')}."
        ]
    return []
