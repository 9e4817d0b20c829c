"""Figures of a plan by users in flight: points just close enough that a straight line between neighbours is right.

Each load has the batch ceiling that goes with it, as `estimate` sets it. The load is answered by the formula that compares plans:
to simulate it at some fifty loads of a hundred plans takes minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from advisor.roofline.fabric import LinkGraph, plan_fabrics
from advisor.search.ceiling import with_ceiling
from advisor.search.place import Placer
from advisor.serving.predict import Predictor
from advisor.specs.exploration import Band, LoadCurve
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, Prediction

STEP = 4  # loads this many times each other start the grid
MOST_REPLICAS = 4  # a curve of several replicas has loads that are no whole number of users for each
EARLY = 16  # the share of an interval after which a bend at its beginning still shows
TOLERANCE = 0.012  # of a figure is the most that a line may miss it by where it is looked at

_Figures = tuple[float, float, float, float]


class Curves:
    """The curves of one question. Plans of the same replicas on the same kind of links share one."""

    def __init__(self, predictor: Predictor, *, most_users: int) -> None:
        self._predictor, self._cluster, self._most_users = predictor, predictor.problem.cluster, most_users
        self._placer, self._graph = Placer(predictor.problem), LinkGraph(self._cluster)
        self._found: dict[Plan, LoadCurve] = {}

    def of(self, plan: Plan) -> LoadCurve:
        """The curve of a plan that fits; of as many replicas as are worth it where they are all as good as the plan's."""
        plan = replace(plan, settings=None)
        several = self._placer.placed(replace(plan, dp=self._replicas(plan), gpus=()))
        shown = several if self._alike(several, plan) else plan
        if shown not in self._found:
            self._found[shown] = self._computed(shown)
        return self._found[shown]

    def _replicas(self, plan: Plan) -> int:
        return min(MOST_REPLICAS, self._cluster.gpus // plan.replica_gpus)

    def _alike(self, several: Plan, plan: Plan) -> bool:
        node = self._cluster.node
        if not node.is_uniform or any(free is not None for free in node.free_bytes):
            return False
        return plan_fabrics(self._graph, several) == plan_fabrics(self._graph, plan)

    def _computed(self, plan: Plan) -> LoadCurve:
        found: dict[int, Prediction] = {}

        def at(users: int) -> _Figures:
            if users not in found:
                found[users] = self._predicted(plan, users)
            p = found[users]
            return (p.ttft_s.value, p.tpot_s.value, p.output_tokens_per_s.value, p.sequences)

        users = grid(at, plan.dp, self._most_users * plan.dp)
        columns = [tuple(column) for column in zip(*(at(u) for u in users), strict=True)]
        kept = [found[u] for u in users]
        return LoadCurve(
            replicas=plan.dp, users=tuple(users), ttft_s=columns[0], tpot_s=columns[1], output_tokens_per_s=columns[2],
            running=columns[3], ttft_band=_band([p.ttft_s for p in kept]), tpot_band=_band([p.tpot_s for p in kept]),
            latency_band=_band([p.latency_s for p in kept]), rate_band=_band([p.output_tokens_per_s for p in kept]),
        )  # fmt: skip

    def _predicted(self, plan: Plan, users: int) -> Prediction:
        load = replace(self._predictor.problem.workload, mode="closed_loop", users=users, rate_per_s=0.0, requests=0)
        predictor = self._predictor.under(load)
        return predictor.screen(with_ceiling(predictor.problem, plan))


def grid(figures: Callable[[int], Sequence[float]], least: int, most: int) -> list[int]:
    """Whole numbers from `least` to `most` between which every figure is a straight line to within TOLERANCE.

    An interval is halved (on a logarithmic scale) while its middle or a point near its beginning is off the line, down to
    neighbours where a figure jumps: a wait that begins just beyond a full cache soon hides how small the time before it was.
    """
    kept = [least]

    def fill(low: int, high: int) -> None:
        middle = min(max(round(math.sqrt(low * high)), low + 1), high - 1)
        early = low + max(1, (high - low) // EARLY)
        if high - low > 1 and not all(_straight(figures, low, at, high) for at in (middle, early)):
            fill(low, middle)
            fill(middle, high)
        else:
            kept.append(high)

    while kept[-1] < most:
        fill(kept[-1], min(kept[-1] * STEP, most))
    return kept


def _straight(figures: Callable[[int], Sequence[float]], low: int, middle: int, high: int) -> bool:
    share = (middle - low) / (high - low)
    lines = zip(figures(low), figures(high), figures(middle), strict=True)
    return all(abs(a + share * (b - a) - between) <= TOLERANCE * abs(between) for a, b, between in lines)


def _band(estimates: Sequence[Estimate]) -> Band:
    """The widest interval among the points, as factors."""
    shares = [(e.low / e.value, e.high / e.value) for e in estimates if e.value > 0]
    return Band(low=min((low for low, _ in shares), default=1.0), high=max((high for _, high in shares), default=1.0))
