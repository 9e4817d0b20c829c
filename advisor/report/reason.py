"""Why the first plan is first, in words: made from the search's `Cause`, in figures per output token and per user."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.report.words import in_words, short
from advisor.specs.advice import Advice, Cause
from advisor.specs.plan import Plan
from advisor.specs.workload import Workload
from advisor.units import show, show_count

SAME = 0.03  # figures nearer than this are called the same
_NAMED = 3  # plans of a tie that are named
_PARTS = {
    "weights": "reading weights",
    "KV read": "reading the KV cache",
    "compute": "matrix multiplication",
    "all-to-all": "sending tokens to their experts",
    "p2p": "sending between stages",
    "send": "sending between stages",
    "host": "the engine's own CPU work",
    "launch": "launching kernels",
    "element-wise": "element-wise work",
    "attention compute": "attention",
}


def reason(cause: Cause | None, workload: Workload) -> str:
    """How the first plan and the runner-up differ in the figure of the goal, and the physics of it."""
    if cause is None:
        return "No plan fits."
    a = in_words(cause.first)
    if cause.other is None:
        return f"{_capital(a)} {_verb(cause.first, 'is', 'are')} the only kind of plan that fits."
    if cause.kind == "limits":
        b, does = in_words(cause.other), _verb(cause.other, "does", "do")
        keeps = _verb(cause.first, "keeps", "keep")
        return f"{_capital(a)} {keeps} the limits and {b} {does} not ({_miss(cause, workload)})."
    if cause.kind == "nearest":
        nearest = f"{a} {_verb(cause.first, 'comes', 'come')} nearest to the limits, before {in_words(cause.other)}"
        return f"{_capital(nearest)} ({_miss(cause, workload)})."
    clauses = [_compared(cause, cause.other, workload), *_physics(cause, cause.other, workload)]
    return _capital("; ".join(clause for clause in clauses if clause)) + "."


def tie_words(advice: Advice) -> str:
    """The plans that cannot be told apart, and why this one is taken; "" where there is no tie."""
    if not advice.ties:
        return ""
    others = [plan for plan in advice.ties if plan != advice.choices[0].plan]
    names = [short(plan) for plan in others[:_NAMED]]
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    why = {
        "fewest_gpus": "it uses the fewest GPUs",
        "simplest": "it is the simplest",
        "best_figure": "it has the better figures or the larger cache",
    }
    plans = f"{len(advice.ties)} plans are" if len(advice.ties) > 2 else "Two plans are"
    return (
        f"{plans} within the error of each other, this one and {_listed(names)}{more}: any is fine; "
        f"this one is taken because {why[advice.tie_reason or 'best_figure']}."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _miss(cause: Cause, workload: Workload) -> str:
    parts = []
    ttft_s, tpot_s = cause.figure("ttft_s").other, cause.figure("tpot_s").other
    if workload.tpot_limit_s and tpot_s > workload.tpot_limit_s:
        parts.append(f"TPOT {show(tpot_s, 's')}")
    if (workload.ttft_limit_s and ttft_s > workload.ttft_limit_s) or not parts:
        parts.append(f"TTFT {show(ttft_s, 's')}")
    return ", ".join(parts)


def _compared(cause: Cause, other: Plan, workload: Workload) -> str:
    """The figure of the goal, then TPOT where it speaks against the first or as clearly for it."""
    a, b = in_words(cause.first), in_words(other)
    if workload.mode == "single_stream" or cause.goal == "latency":
        figure = cause.figure("tpot_s" if workload.mode == "single_stream" else "latency_s")
        what = "an output token" if workload.mode == "single_stream" else "an answer"
        if abs(figure.ratio - 1) < SAME:
            return f"{a} and {b} take the same time for {what}, {show(figure.first, 's')}"
        return f"{what} takes {show(figure.first, 's')} with {a} and {show(figure.other, 's')} with {b}"
    name = "output_tokens_per_s_per_gpu" if cause.goal == "cost" else "output_tokens_per_s"
    unit = "output tokens/s per GPU" if cause.goal == "cost" else "output tokens/s"
    figure, tpot = cause.figure(name), cause.figure("tpot_s")
    text = f"{a} {_verb(cause.first, 'makes', 'make')} {show_count(figure.first)} {unit}, {b} {show_count(figure.other)}"
    if abs(figure.ratio - 1) < SAME / 3:
        text = f"{a} and {b} make the same {show_count(figure.first)} {unit}"
    if tpot.first > tpot.other * (1 + SAME):
        text += f", though a user of {b} gets a token every {show(tpot.other, 's')} rather than {show(tpot.first, 's')}"
    elif tpot.first * (1 + SAME) < tpot.other and abs(figure.ratio - 1) < SAME:
        text += f", and a user gets a token every {show(tpot.first, 's')} rather than {show(tpot.other, 's')}"
    return text


def _verb(plan: Plan, one: str, several: str) -> str:
    return one if plan.dp == 1 else several


def _capital(text: str) -> str:
    """The text as the start of a sentence; a plan keeps its own spelling (`tp=4`)."""
    return text if "=" in text.split(" ", 1)[0] else text[0].upper() + text[1:]


def _physics(cause: Cause, other: Plan, workload: Workload) -> list[str]:
    """The part of a token's cost that speaks most for the first, and what holds the runner-up's batch back."""
    clauses = [clause for clause in (_cheaper(cause, other, workload), _held_back(cause, other)) if clause]
    if not clauses and other.pp > cause.first.pp:
        clauses.append(f"with {in_words(other)} a token passes {other.pp} stages one after the other")
    return clauses


def _held_back(cause: Cause, other: Plan) -> str:
    if cached := cause.cached_sequences:
        return f"the cache of {in_words(other)} holds {show_count(cached.other)} requests, that of {in_words(cause.first)} " + (
            show_count(cached.first)
        )
    return ""


def _cheaper(cause: Cause, other: Plan, workload: Workload) -> str:
    """The part that costs the first plan least against the runner-up."""
    part, total = cause.part, cause.token_cost
    if part is None or total is None:
        return ""
    name = part.name.removeprefix("prefill ")
    what = _PARTS.get(name, name) + (" in prefill" if part.name.startswith("prefill ") else "")
    if workload.mode == "single_stream" or cause.goal == "latency":
        return f"{what} takes {show(part.first, 's')} of each token rather than {show(part.other, 's')}"
    verb = "wait" if name in ("host", "launch") else "spend"
    on = "for" if verb == "wait" else "on"
    share = part.other / total.other if total.other else 0.0
    if part.other > 10 * part.first:
        return f"the GPUs of {in_words(other)} {verb} {share * 100:.0f}% of their time {on} {what}"
    times = f"{show_count(part.other / part.first, digits=2)} times as long {on} {what}"
    of = f" ({share * 100:.0f}% of their time)" if share >= 0.05 else ""
    return f"for each output token the GPUs of {in_words(other)} {verb} {times}{of}"
