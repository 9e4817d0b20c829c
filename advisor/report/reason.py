"""Why the first plan is first, in words: one to three sentences made from the search's `Cause`."""

from __future__ import annotations

import math

from advisor.specs.advice import Cause
from advisor.specs.plan import Plan
from advisor.specs.workload import Workload
from advisor.units import show, show_count

_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
_PARTS = {
    "weights": "reading weights",
    "KV read": "reading the KV cache",
    "compute": "matrix multiplication",
    "all-to-all": "the all-to-all of experts",
    "p2p": "sending between stages",
    "send": "sending between stages",
    "host": "host work of the engine",
    "launch": "launching kernels",
    "element-wise": "element-wise work",
    "attention compute": "attention",
}


def reason(cause: Cause | None, workload: Workload) -> str:
    """How the first plan and the runner-up differ in the figure of the goal, and the physics of it."""
    if cause is None:
        return "No plan fits."
    if cause.other is None:
        return f"{_capital(_name(cause.first))} {_verb(cause.first, 'is', 'are')} the only kind of plan that fits."
    lead = f"Too close to call{'; the simpler plan is preferred' if cause.simpler else ''}. " if cause.close_call else ""
    if cause.kind == "limits":
        # What the runner-up would carry is then one request at a time: no figure to compare with.
        return lead + (
            f"{_capital(_name(cause.first))} {_verb(cause.first, 'keeps', 'keep')} the limits and {_name(cause.other)} "
            f"{_verb(cause.other, 'does', 'do')} not ({_limit_miss(cause, workload)})."
        )
    physics = _physics(cause, cause.other, workload)
    return f"{lead}{_compare(cause, cause.other, workload)}{': ' if physics else ''}{'; '.join(physics)}."


def _name(plan: Plan) -> str:
    """A plan in speech: `two replicas of tp=4`."""
    axes = [f"{axis}={n}" for axis, n in (("tp", plan.tp), ("pp", plan.pp), ("ep", plan.ep), ("adp", plan.adp)) if n > 1] or [
        "tp=1"
    ]
    text = " ".join(axes)
    text = {"tp=1": "one GPU"}.get(text, text)
    if plan.dp > 1 and plan.replica_gpus == 1:
        return f"{_NUMBERS.get(plan.dp, f'{plan.dp:,}')} single GPUs"
    return text if plan.dp == 1 else f"{_NUMBERS.get(plan.dp, f'{plan.dp:,}')} replicas of {text}"


def _limit_miss(cause: Cause, workload: Workload) -> str:
    parts = []
    if workload.ttft_limit_s and cause.figure("ttft_s").other > workload.ttft_limit_s:
        parts.append(f"TTFT {show(cause.figure('ttft_s').other, 's')}")
    if workload.tpot_limit_s and cause.figure("tpot_s").other > workload.tpot_limit_s:
        parts.append(f"TPOT {show(cause.figure('tpot_s').other, 's')}")
    return ", ".join(parts) or "its load is not sustained"


def _compare(cause: Cause, other: Plan, workload: Workload) -> str:
    """The ratio of load carried and of time per token, the one that decides first, the one that speaks against it second."""
    load, each = cause.figure("output_tokens_per_s").ratio, cause.figure("output_tokens_per_s_per_gpu").ratio
    a, b = _name(cause.first), _name(other)
    if cause.goal == "latency":
        return _capital(_answers(cause, other, workload, load))
    if cause.goal == "throughput":
        text = f"{a} {_verb(cause.first, 'carries', 'carry')} {_times(load)} {b} {_verb(other, 'does', 'do')}"
    else:
        text = f"a GPU of {a} makes {_times(each)} one of {b} does"
    tpot = cause.figure("tpot_s")
    token = tpot.other / tpot.first if tpot.first else 1.0
    if token > 1.03:
        text += f" and {_verb(cause.first, 'is', 'are')} {(token - 1) * 100:.0f}% faster per token"
    elif token < 0.97:
        text += f", though {b} {_verb(other, 'is', 'are')} {(1 / token - 1) * 100:.0f}% faster per token"
    return _capital(text)


def _answers(cause: Cause, other: Plan, workload: Workload, load: float) -> str:
    a, b, latency = _name(cause.first), _name(other), cause.figure("latency_s")
    text = (
        f"{a} {_verb(cause.first, 'answers', 'answer')} a request in {show(latency.first, 's')}, {b} in {show(latency.other, 's')}"
    )
    if abs(load - 1) > 0.05 and workload.mode != "single_stream":
        less = f", though {b} {_verb(other, 'carries', 'carry')} {_times(1 / load, noun='the load')}" if load else ""
        text += f", with {_times(load, noun='the load')}" if load > 1 else less
    return text


def _verb(plan: Plan, one: str, several: str) -> str:
    return one if plan.dp == 1 else several


def _capital(text: str) -> str:
    """The text as the start of a sentence; a plan keeps its own spelling (`tp=4`)."""
    return text if "=" in text.split(" ", 1)[0] else text[0].upper() + text[1:]


def _times(ratio: float, *, noun: str = "") -> str:
    if not math.isfinite(ratio):
        return "all the load that"
    if noun:
        return f"{show_count(ratio)}x {noun}"
    if abs(ratio - 1) < 0.005:
        return "the same load as"
    return f"{show_count(ratio)}x the tokens that" if ratio >= 1 else f"{show_count(ratio * 100)}% of the tokens that"


def _physics(cause: Cause, other: Plan, workload: Workload) -> list[str]:
    """The part of a token's cost that speaks most for the first, and the cache where it limits the runner-up."""
    clauses = [clause for clause in (_cheaper(cause, workload), _full_cache(cause, other)) if clause]
    if not clauses and other.pp > cause.first.pp:
        clauses.append(f"a token passes {other.pp} stages one after the other")
    return clauses


def _full_cache(cause: Cause, other: Plan) -> str:
    cached = cause.cached_sequences
    if cached is None:
        return ""
    more = f"{_name(cause.first)} {_verb(cause.first, 'holds', 'hold')} {show_count(cached.ratio, digits=2)}x as many"
    return f"the cache of {_name(other)} is full at {show_count(cached.other)} requests, {more}"


def _cheaper(cause: Cause, workload: Workload) -> str:
    """The part that costs the first plan least against the runner-up, in words."""
    part = cause.part
    if part is None:
        return ""
    name = part.name.removeprefix("prefill ")
    what = _PARTS.get(name, name) + (" in prefill" if part.name.startswith("prefill ") else "")
    if not part.first:
        return f"{_name(cause.first)} {_verb(cause.first, 'has', 'have')} no {what.removeprefix('the ')}"
    one, two = show(part.first, "s"), show(part.other, "s")
    if workload.goal == "latency" or workload.mode == "single_stream":
        return f"{what} takes {one} of a token's way rather than {two}"
    return f"{what} costs {one} of GPU time a token rather than {two}"
