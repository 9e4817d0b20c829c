"""The limits in words: which of them no plan keeps and what is carried within them, how certain the kept ones are."""

from __future__ import annotations

import math
from statistics import NormalDist

from advisor.report.words import in_words
from advisor.specs.advice import Advice
from advisor.specs.prediction import Estimate, Prediction
from advisor.specs.workload import Workload
from advisor.units import show, show_count

SURE = 0.95  # a limit kept with more certainty than this needs no word


def limit_words(advice: Advice) -> tuple[str, ...]:
    """Sentences on the limits of the question; none where there is nothing to say."""
    if not advice.choices or advice.asked is None:
        return ()
    workload, first = advice.asked.workload, advice.choices[0]
    if advice.verdicts:
        return _judged(advice, workload)
    if not advice.limits_met:
        return (_missed(advice, workload),)
    if workload.mode == "capacity":
        return ()
    return tuple(text for text in (_doubt(*pair) for pair in _limits(first, workload)) if text)


def _limits(p: Prediction, workload: Workload) -> list[tuple[str, Estimate, float]]:
    pairs = (("TTFT", p.ttft_s, workload.ttft_limit_s), ("TPOT", p.tpot_s, workload.tpot_limit_s))
    return [(name, estimate, limit_s) for name, estimate, limit_s in pairs if limit_s is not None]


def _judged(advice: Advice, workload: Workload) -> tuple[str, ...]:
    """What a simulation found of the limits on percentiles, and up to which load they hold."""
    found = []
    for verdict in advice.verdicts:
        word = "kept" if verdict.sure else "kept on average, not if steps are as slow as they may be" if verdict.met else "missed"
        value, limit = show(verdict.found.value, "s"), show(verdict.limit.seconds, "s")
        found.append(f"By simulation {verdict.limit.name} is {value}, limit {limit}: {word}.")
    unit = "requests/s" if workload.mode == "open_loop" else "users"
    if advice.holds is not None:
        most = f"up to {show_count(advice.holds)} {unit}" if advice.holds else "at no load"
        found.append(f"The limits hold {most} with {in_words(advice.choices[0].plan)}.")
    return tuple(found)


def implied_words(advice: Advice) -> tuple[str, ...]:
    """The sentence on a TTFT limit that nobody gave."""
    if advice.implied_ttft_s is None:
        return ()
    return (f"No TTFT limit was given: plans are held to {show(advice.implied_ttft_s, 's')} (--ttft).",)


def _missed(advice: Advice, workload: Workload) -> str:
    """Which limits no plan keeps, and how much of the load the first plan carries within them."""
    first = advice.choices[0]
    limits = [f"{name} {show(limit_s, 's')}" for name, _, limit_s in _limits(first, workload)]
    if advice.implied_ttft_s:
        limits.append(f"TTFT {show(advice.implied_ttft_s, 's')}")
    load, kept = _load(workload), " and ".join(limits) or "the load"
    text = f"No plan keeps {kept}{f' with {load}' if load else ''}"
    carried = first.load_within_limits
    if carried is None:
        return text + "."
    if carried <= 0 or (workload.mode == "closed_loop" and carried < 1):
        return f"{text}, and {in_words(first.plan)} not even with one user at a time."
    amount = f"{show_count(carried)} requests/s" if workload.mode == "open_loop" else f"{math.floor(carried):,} users"
    carries = "carries" if first.plan.dp == 1 else "carry"
    return f"{text}; {in_words(first.plan)} {carries} {amount} within the limits, the most of all."


def _load(workload: Workload) -> str:
    return {
        "closed_loop": f"{workload.users:,} users",
        "open_loop": f"{show_count(workload.rate_per_s)} requests/s",
        "single_stream": "one user",
        "capacity": "even one user",
    }.get(workload.mode, "")


def _doubt(name: str, estimate: Estimate, limit_s: float) -> str:
    """The chance that a limit is kept, where it is not a certainty."""
    sure = chance(limit_s, estimate)
    if sure > SURE:
        return ""
    return f"{name} {show(estimate.value, 's')} stays within {show(limit_s, 's')} with a chance of {sure * 100:.0f}%."


def chance(limit_s: float, estimate: Estimate) -> float:
    """The chance that a figure stays within a limit, by its 90% interval, whose ends are the 5% and 95% quantiles."""
    if not 0 < estimate.low < estimate.value:
        return float(estimate.value <= limit_s)
    width = math.log(estimate.value / estimate.low) / NormalDist().inv_cdf(0.95)
    return NormalDist().cdf(math.log(limit_s / estimate.value) / width)
