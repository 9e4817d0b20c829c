"""From predictions to advice: the order by the goal under the limits, the front, how sure the first place is, and why."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.search.cause import cause
from advisor.search.certainty import first_share
from advisor.search.front import fills, front
from advisor.search.limits import held_to, implied_ttft_s
from advisor.search.order import shape, sort_key
from advisor.search.ties import chosen, tied
from advisor.specs.advice import Advice
from advisor.specs.prediction import Prediction, Rejected
from advisor.specs.workload import Workload

CONTENDERS = 12  # plans further down never come first in practice; the draw looks at so many


def rank(predictions: Sequence[Prediction], workload: Workload, rejected: Sequence[Rejected], *, gpus: int = 0) -> Advice:
    """The advice: `predictions` best first, with the front, the cause and the certainty of the first place.

    Plans within the limits come first, by the goal; the others follow by the load that they carry within them. Of the plans that
    cannot be told from the best, the one with the fewest GPUs, then the simplest is taken. `gpus` are those of the machine: plans
    whose replicas do not fill it stay out of the front.
    """
    if not predictions:
        return Advice(choices=(), front=(), cause=None, rejected=tuple(rejected), limits_met=False)
    judged, limited = held_to(predictions, workload)
    order = sorted(judged, key=lambda p: sort_key(p, limited))
    tie = tied(order, workload)
    first, why = chosen(tie, workload)
    order = [first, *(p for p in order if p is not first)]
    runner = _runner_up(order, tie)
    return Advice(
        choices=tuple(order),
        front=tuple(p.plan for p in front(_alike(order, gpus))),
        cause=cause(first, runner, workload),
        rejected=tuple(rejected),
        runner_up=runner.plan if runner else None,
        first_share=first_share(_rivals(order), workload) if first.within_limits else None,
        ties=tuple(p.plan for p in tie) if len(tie) > 1 else (),
        tie_reason=why if len(tie) > 1 else None,
        limits_met=first.within_limits,
        implied_ttft_s=implied_ttft_s(predictions, workload),
    )


def _runner_up(order: Sequence[Prediction], tie: Sequence[Prediction]) -> Prediction | None:
    """The best plan of another shape, one that can be told from the first where there is one: that comparison says more."""
    others = [p for p in order[1:] if shape(p.plan) != shape(order[0].plan)]
    tied_shapes = [shape(p.plan) for p in tie]
    return next((p for p in others if shape(p.plan) not in tied_shapes), others[0] if others else None)


def _alike(order: Sequence[Prediction], gpus: int) -> list[Prediction]:
    """The first plan, and those that stand to the limits as it does and fill the machine."""
    return [p for p in order if p is order[0] or (p.within_limits == order[0].within_limits and fills(p.plan, gpus))]


def _rivals(order: Sequence[Prediction]) -> list[Prediction]:
    """The best plan of each replica shape, of those that stand to the limits as the first does."""
    found: dict[tuple[int, ...], Prediction] = {}
    for p in order:
        if len(found) < CONTENDERS and p.within_limits == order[0].within_limits:
            found.setdefault(shape(p.plan), p)
    return list(found.values())
