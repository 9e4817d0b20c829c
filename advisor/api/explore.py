"""A question explored: the advice, and the grids of figures that the page moves through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from advisor.api.answer import answer, in_short
from advisor.api.ladder import ladder
from advisor.api.load_curve import Curves
from advisor.api.question import Question
from advisor.api.variants import variants
from advisor.files import write_whole
from advisor.search.confidence import sure
from advisor.search.order import shape
from advisor.serving.predict import Predictor
from advisor.specs.advice import Advice
from advisor.specs.exploration import Exploration, Explored
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload

MOST_EXPLORED = 12  # plans with a curve of their own: more lines than that cannot be told apart in a picture
FEWEST_USERS, MOST_USERS = 256, 65536  # where the axis of the load ends at least, and at most


def explore(asked: Question, advice: Advice | None = None) -> Exploration:
    """Everything that the page of a question shows. `advice` saves a second search where it is known."""
    advice = advice or answer(asked)
    shown = chosen(advice)
    most = most_users(shown, asked.problem.workload)
    predictor = Predictor(asked.problem, asked.calibration, asked.others)
    curves = Curves(predictor, most_users=most)
    ttft_margin, tpot_margin = margins(asked)
    explored = tuple(Explored(prediction=p, curve=curves.of(p.plan), tied=p.plan in advice.ties) for p in shown)
    shapes = [p.plan for p in shown]
    return Exploration(
        advice=advice, asked=in_short(asked.problem), problem=asked.problem, explored=explored, most_users=most,
        ttft_margin=ttft_margin, tpot_margin=tpot_margin,
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


def margins(asked: Question) -> tuple[float, float]:
    """What of a limit on TTFT and on TPOT is left when it is to be kept with the question's certainty."""
    unit = replace(asked.problem.workload, ttft_limit_s=1.0, tpot_limit_s=1.0)
    tightened = sure(replace(asked.problem, workload=unit), asked.calibration).workload
    return tightened.ttft_limit_s or 1.0, tightened.tpot_limit_s or 1.0
