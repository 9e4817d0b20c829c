"""The same question on machines of different GPUs."""

from __future__ import annotations

import math

from advisor.api.answer import answer
from advisor.api.options import Options
from advisor.api.question import question
from advisor.errors import QuestionError
from advisor.specs.advice import Compared, Comparison
from advisor.specs.workload import Workload

MOST = 12  # GPUs in one table


def compared(model: str, names: str, options: Options) -> Comparison:
    """The best plan on each GPU of `names` ("h100,h200,l40s"), with the other options as they are; best first.

    Raises QuestionError where the options cannot be meant on any GPU.
    """
    gpus = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if options.get("gpu") or options.get("cluster"):
        raise QuestionError("--compare names the GPUs; leave out --gpu and --cluster.")
    if not 1 < len(gpus) <= MOST:
        raise QuestionError(f"--compare {names[:60]!r} names {len(gpus)} GPUs; give 2 to {MOST}, e.g. h100,h200,l40s.")
    found = [_one(model, gpu, options) for gpu in gpus]
    if all(each.refused for each in found):
        raise QuestionError(found[0].refused)
    return Comparison(machines=tuple(sorted(found, key=_key)))


def _one(model: str, gpu: str, options: Options) -> Compared:
    own: Options = {**options, "gpu": gpu}
    try:
        asked = question(model=model, **own)
    except QuestionError as error:
        return Compared(gpu=gpu, refused=str(error))
    device = asked.problem.cluster.device
    return Compared(
        gpu=device.name, advice=answer(asked), usd_per_hour=device.price_usd_per_hour, price_date=device.price_date
    )  # fmt: skip


def _key(each: Compared) -> tuple[bool, bool, float]:
    """Plans that keep the limits first, by the figure of the goal."""
    advice = each.advice
    if advice is None or not advice.choices or advice.asked is None:
        return True, True, math.inf
    return False, not advice.limits_met, _figure(each, advice.asked.workload)


def _figure(each: Compared, workload: Workload) -> float:
    assert each.advice is not None
    first = each.advice.choices[0]
    if workload.goal == "cost":
        return math.inf if first.usd_per_million_tokens is None else first.usd_per_million_tokens
    if workload.goal == "latency" or workload.mode == "single_stream":
        return first.latency_s.value
    return -first.output_tokens_per_s.value
