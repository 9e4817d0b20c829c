"""Questions that the explorer's tests ask, each computed once a run, and the command line's own answers to compare with."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from functools import cache
from typing import Any, Unpack

from advisor.api.answer import legal_plan
from advisor.api.explore import explore
from advisor.api.options import Options
from advisor.api.question import Question, question
from advisor.cli.app import run
from advisor.search.ceiling import with_ceiling
from advisor.serving.predict import Predictor
from advisor.specs.exploration import Exploration
from advisor.specs.prediction import Prediction

DENSE: Options = {"gpu": "h100-80g-sxm", "gpus": 8}
MIXTURE: Options = {"gpu": "l40s", "gpus": 4, "users": 32}


@cache
def dense_question() -> Question:
    return question(model="70b", online=False, **DENSE)


@cache
def dense() -> Exploration:
    """A 70B on eight GPUs, as many users as fit."""
    return explore(dense_question())


@cache
def mixture() -> Exploration:
    """A mixture of experts on four PCIe GPUs with 32 users."""
    return explore(question(model="mixtral", online=False, **MIXTURE))


def words(options: dict[str, object]) -> list[str]:
    """Options as the command line spells them."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def asked(verb: str, model: str, **options: object) -> dict[str, Any]:
    """What `advisor VERB --json` prints."""
    out = io.StringIO()
    with redirect_stdout(out):
        code = run([verb, "--model", model, *words(options), "--offline", "--json"])
    assert code == 0
    return json.loads(out.getvalue())  # type: ignore[no-any-return]


def screened(model: str, *, plan: str, **options: Unpack[Options]) -> Prediction:
    """What the formula that compares plans says of a plan."""
    found = question(model=model, online=False, **options)
    predictor = Predictor(found.problem, found.calibration)
    return predictor.screen(with_ceiling(found.problem, legal_plan(found.problem, plan)))
