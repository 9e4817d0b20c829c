"""Plans that the error bars cannot tell apart, and which of them is taken."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.search.certainty import better_chance, objective
from advisor.search.order import shape, simplicity, sort_key
from advisor.specs.advice import TieReason
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload

CLOSE = 0.65  # below this chance of being better, two plans cannot be told apart
GIVEN_AWAY = 0.05  # of the goal's figure is the most that a tie may cost: about what two runs of one benchmark differ by
WORSE, SMALLER = 1.005, 0.99  # by so much a tied plan is worse, and its cache smaller: then nothing speaks for it


def tied(order: Sequence[Prediction], workload: Workload) -> list[Prediction]:
    """The best plan and those of other shapes that cannot be told from it; the best alone where it misses a limit.

    A plan that misses is nearest or it is not, however close the figures of the goal are.
    """
    best = order[0]
    if not best.within_limits:
        return [best]
    most = objective(best, workload).value * (1 + GIVEN_AWAY)
    found = {shape(best.plan): best}
    for p in order[1:]:
        if p.within_limits and objective(p, workload).value <= most and better_chance(best, p, workload) < CLOSE:
            found.setdefault(shape(p.plan), p)
    return list(found.values())


def chosen(tie: Sequence[Prediction], workload: Workload) -> tuple[Prediction, TieReason]:
    """The one that is taken of a tie: the fewest GPUs, then the simplest, then the best figure; and which of these decided.

    A plan beside which another has both the better figure and the larger cache, on no more GPUs, is never taken.
    """
    fair = [p for p in tie if not any(_dominates(other, p, workload) for other in tie)]
    first = min(fair, key=lambda p: (p.plan.world, simplicity(p.plan)[:3], sort_key(p, workload)))
    if any(p.plan.world > first.plan.world for p in fair):
        return first, "fewest_gpus"
    return first, "simplest" if any(simplicity(p.plan)[:3] > simplicity(first.plan)[:3] for p in fair) else "best_figure"


def _dominates(a: Prediction, b: Prediction, workload: Workload) -> bool:
    better = objective(b, workload).value > objective(a, workload).value * WORSE
    return better and b.max_sequences < a.max_sequences * SMALLER and a.plan.world <= b.plan.world
