"""A question explored: the advice, and the grids of figures that the page moves through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from advisor.api.answer import answer, in_short
from advisor.api.ladder import ladder
from advisor.api.load_curve import Curves
from advisor.api.question import Question
from advisor.api.variants import variants
from advisor.files import write_whole
from advisor.search.certainty import better_chance
from advisor.search.order import shape
from advisor.search.ties import CLOSE
from advisor.serving.predict import Predictor
from advisor.specs.advice import Advice
from advisor.specs.exploration import Exploration, Explored
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload

MOST_EXPLORED = 16  # plans with a curve of their own: more lines than that cannot be told apart in a picture
FEWEST_USERS, MOST_USERS = 256, 65536  # where the axis of the load ends at least, and at most


def explore(asked: Question, advice: Advice | None = None) -> Exploration:
    """Everything that the page of a question shows. `advice` saves a second search where it is known."""
    advice = advice or answer(asked)
    shown = chosen(advice)
    most = most_users(shown, asked.problem.workload)
    predictor = Predictor(asked.problem, asked.calibration)
    curves = Curves(predictor, most_users=most)
    groups = ties(shown, asked.problem.workload)
    explored = tuple(Explored(prediction=p, curve=curves.of(p.plan), tie=group) for p, group in zip(shown, groups, strict=True))
    shapes = [p.plan for p in shown]
    return Exploration(
        advice=advice, asked=in_short(asked.problem), problem=asked.problem, explored=explored, most_users=most,
        ladder=ladder(predictor, shapes), variants=variants(asked, shapes, most_users=most),
    )  # fmt: skip


def write_page(exploration: Exploration, out: Path) -> None:
    """The page of an exploration in a file: whole or not at all. Raises as `write_whole`."""
    from advisor.report.explorer.page import page

    write_whole(out, page(exploration))


def chosen(advice: Advice) -> list[Prediction]:
    """The plans to show in full: the first, the front, the best number of replicas of each shape; in the order of the advice."""
    front = set(advice.front)
    seen: set[tuple[int, ...]] = set()
    first_of_shape: list[Prediction] = []
    for p in advice.choices:
        if shape(p.plan) not in seen:
            seen.add(shape(p.plan))
            first_of_shape.append(p)
    wanted = [*advice.choices[:1], *(p for p in advice.choices if p.plan in front), *first_of_shape]
    kept: list[Plan] = list(dict.fromkeys(p.plan for p in wanted))[:MOST_EXPLORED]
    return [p for p in advice.choices if p.plan in set(kept)]


def most_users(shown: Sequence[Prediction], workload: Workload) -> int:
    """Where the axis of the load ends: twice what the roomiest plan holds at once, as a power of two."""
    held = max([p.max_sequences for p in shown], default=0)
    wanted = max(2 * min(held, MOST_USERS // 2), 2 * workload.users, FEWEST_USERS)
    return int(min(2 ** math.ceil(math.log2(wanted)), max(MOST_USERS, workload.users)))


def ties(shown: Sequence[Prediction], workload: Workload) -> list[int]:
    """A number for each plan: equal ones cannot be told apart in the figure of the goal; 0 stands alone."""
    groups = [0] * len(shown)
    for at, leader in enumerate(shown):
        if groups[at]:
            continue
        near = [
            i
            for i in range(at + 1, len(shown))
            if not groups[i]
            and shown[i].within_limits == leader.within_limits
            and better_chance(leader, shown[i], workload) < CLOSE
        ]
        if near:
            number = max(groups) + 1
            for i in (at, *near):
                groups[i] = number
    return groups
