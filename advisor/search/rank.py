"""From predictions to advice: the order by the goal under the limits, the front, how sure the first place is, and why.

The error that all plans of one question share (same box, same engine) cancels between them; only `Estimate.own` is drawn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist

from advisor.specs.advice import Advice
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, Prediction, Rejected
from advisor.specs.workload import Workload
from advisor.units import show, show_count

DRAWS = 400  # the standard error of a share of draws is then at most 2.5%
CLOSE = 0.65  # below this chance of being better, two plans cannot be told apart
GIVEN_AWAY = 0.05  # of the goal's figure is the most that simplicity may cost: about what two runs of one benchmark differ by
CONTENDERS = 12  # plans further down never come first in practice; the draw looks at so many


def rank(predictions: Sequence[Prediction], workload: Workload, rejected: Sequence[Rejected]) -> Advice:
    """The advice: `predictions` best first, with the front, the reason and the certainty of the first place.

    Plans within the limits come first, by the goal; the others follow by how far they miss. Where the best cannot be told
    from a simpler plan, the simpler one is chosen.
    """
    if not predictions:
        return Advice(choices=(), front=(), reason="No plan fits.", rejected=tuple(rejected), limits_met=False)
    order = sorted(predictions, key=lambda p: _order(p, workload))
    order, close = _prefer_simple(order, workload)
    first = order[0]
    runner = next((p for p in order[1:] if shape(p.plan) != shape(first.plan)), None)
    return Advice(
        choices=tuple(order),
        front=tuple(p.plan for p in front(order)),
        reason=_reason(first, runner, workload, close=close),
        rejected=tuple(rejected),
        runner_up=runner.plan if runner else None,
        first_share=_first_share(order, workload),
        close_call=close,
        limits_met=first.within_limits,
        notes=tuple(_limit_notes(order, workload)),
    )


def objective(prediction: Prediction, workload: Workload) -> Estimate:
    """The figure that the goal makes best, as an estimate in which less is better.

    latency: seconds of a request. throughput: seconds per output token of the deployment. cost: GPU-seconds per output token
    (dollars follow in proportion, the GPUs being equal). Plans that carry a given rate of requests all make the same tokens:
    for throughput the shorter answer is then the better one.
    """
    carried = workload.mode == "open_loop" and workload.goal == "throughput" and prediction.within_limits
    if workload.goal == "latency" or carried:
        return prediction.latency_s
    rate = prediction.output_tokens_per_s
    gpus = prediction.plan.world if workload.goal == "cost" else 1
    if rate.value <= 0:
        return Estimate(value=math.inf, low=math.inf, high=math.inf)
    return Estimate(value=gpus / rate.value, low=gpus / rate.high, high=gpus / max(rate.low, 1e-300), own=rate.own)


def shape(plan: Plan) -> tuple[int, ...]:
    """What one replica is, whatever the number of replicas."""
    return (plan.tp, plan.pp, plan.ep, plan.adp)


def simplicity(plan: Plan) -> tuple[int, int, int, int]:
    """Simpler sorts first: fewer kinds of parallelism that couple GPUs, none that spreads experts or sequences, fewer stages."""
    coupled = sum(degree > 1 for degree in (plan.tp, plan.pp, plan.ep, plan.adp))
    return (coupled, (plan.ep > 1) + (plan.adp > 1), plan.pp, plan.replica_gpus)


def front(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The plans that no other beats in both: seconds of a request, and output tokens/s per GPU; by rising latency.

    A plan is dominated when another is at least as good in both and better in one; of equals the
    simplest stays, with the most replicas.
    """
    found: list[Prediction] = []
    for candidate in sorted(predictions, key=lambda p: (p.latency_s.value, -per_gpu(p), simplicity(p.plan), -p.plan.world)):
        if not found or per_gpu(candidate) > per_gpu(found[-1]):
            found.append(candidate)
    return found


def per_gpu(prediction: Prediction) -> float:
    """Output tokens/s per GPU that the plan uses."""
    return prediction.output_tokens_per_s.value / prediction.plan.world


def miss(prediction: Prediction, workload: Workload) -> float:
    """By what factor the worst limit is missed; 1.0 or less when all are met."""
    pairs = ((prediction.ttft_s, workload.ttft_limit_s), (prediction.tpot_s, workload.tpot_limit_s))
    return max((estimate.value / limit for estimate, limit in pairs if limit), default=1.0)


def _order(p: Prediction, workload: Workload) -> tuple[object, ...]:
    """Sort key: limits, then the goal, then what else one would like. Figures equal to 0.1% count as equal."""
    value = objective(p, workload).value
    level = round(math.log(value) * 1000) if 0 < value < math.inf else math.inf
    second = round(math.log(max(p.latency_s.value, 1e-12)) * 1000)
    missed = 0.0 if p.within_limits else round(math.log(max(miss(p, workload), 1.0)) * 20)
    return (not p.within_limits, missed, level, second, simplicity(p.plan), p.plan.world, p.plan.label)


def better_chance(a: Prediction, b: Prediction, workload: Workload) -> float:
    """The chance that plan `a` really has the better figure: P(ln a < ln b) with independent normal errors of width `own`."""
    x, y = objective(a, workload), objective(b, workload)
    if not (math.isfinite(x.value) and math.isfinite(y.value) and x.value > 0 and y.value > 0):
        return 1.0 if x.value <= y.value else 0.0
    width = math.hypot(x.own, y.own)
    gap = math.log(y.value / x.value)
    if width == 0:
        return 0.5 if gap == 0 else float(gap > 0)
    return NormalDist().cdf(gap / width)


def _prefer_simple(order: list[Prediction], workload: Workload) -> tuple[list[Prediction], bool]:
    """The order with the simplest of the plans that cannot be told from the best in front; whether it was a close call."""
    best = order[0]
    if not best.within_limits:  # the nearest miss is nearest, however close the figures of the goal are
        return order, False
    rivals = [
        p
        for p in order[1:]
        if p.within_limits == best.within_limits and shape(p.plan) != shape(best.plan) and better_chance(best, p, workload) < CLOSE
    ]
    if not rivals:
        return order, False
    most = objective(best, workload).value * (1 + GIVEN_AWAY)
    near = [p for p in rivals if objective(p, workload).value <= most]
    chosen = min([best, *near], key=lambda p: (simplicity(p.plan)[:3], _order(p, workload)))
    if chosen is not best:
        order = [chosen, *(p for p in order if p is not chosen)]
    return order, True


def _first_share(order: Sequence[Prediction], workload: Workload) -> float | None:
    """In what share of draws the first choice has the best figure of the plans in its class. Deterministic."""
    first = order[0]
    if not first.within_limits:
        return None
    rivals: list[Prediction] = [first]
    for p in order[1:]:
        if len(rivals) < CONTENDERS and p.within_limits == first.within_limits and shape(p.plan) not in map(shape, _plans(rivals)):
            rivals.append(p)
    if len(rivals) == 1:
        return None
    figures = [objective(p, workload) for p in rivals]
    if not all(0 < f.value < math.inf for f in figures):
        return None
    logs = [(math.log(f.value), f.own) for f in figures]
    draw = random.Random(0)
    wins = 0.0
    for _ in range(DRAWS):
        mine = logs[0][0] + draw.gauss(0.0, logs[0][1])
        wins += all(mine <= mean + draw.gauss(0.0, own) for mean, own in logs[1:])
    return wins / DRAWS


def _plans(predictions: Sequence[Prediction]) -> list[Plan]:
    return [p.plan for p in predictions]


def _limit_notes(order: Sequence[Prediction], workload: Workload) -> list[str]:
    """What to know about the limits: not met by any plan, not at once, or closer than the error bar."""
    notes: list[str] = []
    first = order[0]
    if workload.ttft_limit_s is not None:
        notes += _limit_note("TTFT", workload.ttft_limit_s, [p.ttft_s for p in order], first, workload)
    if workload.tpot_limit_s is not None:
        notes += _limit_note("TPOT", workload.tpot_limit_s, [p.tpot_s for p in order], first, workload)
    if not first.within_limits and not notes:
        notes.append("No plan carries this load within the limits.")
    return notes


def _limit_note(name: str, limit_s: float, found: Sequence[Estimate], first: Prediction, workload: Workload) -> list[str]:
    best = min(e.value for e in found)
    if best > limit_s:
        return [f"No plan meets the {name} limit of {show(limit_s, 's')}: the closest has {show(best, 's')}."]
    mine = found[0]
    if mine.value > limit_s:
        return [
            f"The {name} limit of {show(limit_s, 's')} is met only by plans that miss the other: this one has "
            f"{show(mine.value, 's')}."
        ]
    if first.within_limits and mine.high > limit_s and workload.mode != "capacity":
        return [
            f"{name} {show(mine.value, 's')} is within the limit of {show(limit_s, 's')}, but its 90% interval reaches "
            f"{show(mine.high, 's')}."
        ]
    return []


# The reason.


def _reason(first: Prediction, runner: Prediction | None, workload: Workload, *, close: bool) -> str:
    """One to three sentences: how the two differ in the figure of the goal, and the physics of it."""
    if runner is None:
        return f"{_capital(_name(first.plan))} {_verb(first, 'is', 'are')} the only kind of plan that fits."
    simpler = simplicity(first.plan)[:3] < simplicity(runner.plan)[:3]
    lead = f"Too close to call{'; the simpler plan is preferred' if simpler else ''}. " if close else ""
    if first.within_limits and not runner.within_limits:
        # What the runner-up would carry is then one request at a time: no figure to compare with.
        return lead + (
            f"{_capital(_name(first.plan))} {_verb(first, 'keeps', 'keep')} the limits and {_name(runner.plan)} "
            f"{_verb(runner, 'does', 'do')} not ({_limit_miss(runner, workload)})."
        )
    return lead + _compare(first, runner, workload) + _cause(first, runner, workload)


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


_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def _limit_miss(p: Prediction, workload: Workload) -> str:
    parts = []
    if workload.ttft_limit_s and p.ttft_s.value > workload.ttft_limit_s:
        parts.append(f"TTFT {show(p.ttft_s.value, 's')}")
    if workload.tpot_limit_s and p.tpot_s.value > workload.tpot_limit_s:
        parts.append(f"TPOT {show(p.tpot_s.value, 's')}")
    return ", ".join(parts) or "its load is not sustained"


def _compare(first: Prediction, runner: Prediction, workload: Workload) -> str:
    """The ratio of load carried and of time per token, the one that decides first, the one that speaks against it second."""
    load = first.output_tokens_per_s.value / runner.output_tokens_per_s.value if runner.output_tokens_per_s.value else math.inf
    each = per_gpu(first) / per_gpu(runner) if per_gpu(runner) else math.inf
    token = runner.tpot_s.value / first.tpot_s.value if first.tpot_s.value else 1.0
    a, b = _name(first.plan), _name(runner.plan)
    if workload.goal == "latency":
        text = f"{a} {_verb(first, 'answers', 'answer')} a request in {show(first.latency_s.value, 's')}, {b} in "
        text += show(runner.latency_s.value, "s")
        if abs(load - 1) > 0.05 and workload.mode != "single_stream":
            other = f", though {b} {_verb(runner, 'carries', 'carry')} {_times(1 / load, noun='the load')}" if load else ""
            text += f", with {_times(load, noun='the load')}" if load > 1 else other
        return _capital(text)
    if workload.goal == "throughput":
        text = f"{a} {_verb(first, 'carries', 'carry')} {_times(load)} {b} {_verb(runner, 'does', 'do')}"
    else:
        text = f"a GPU of {a} makes {_times(each)} one of {b} does"
    if token > 1.03:
        text += f" and {_verb(first, 'is', 'are')} {(token - 1) * 100:.0f}% faster per token"
    elif token < 0.97:
        text += f", though {b} {_verb(runner, 'is', 'are')} {(1 / token - 1) * 100:.0f}% faster per token"
    return _capital(text)


def _verb(p: Prediction, one: str, several: str) -> str:
    return one if p.plan.dp == 1 else several


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


def _cause(first: Prediction, runner: Prediction, workload: Workload) -> str:
    """The physics: the part of a token's cost that speaks most for the first, and the cache where it holds the runner-up back."""
    clauses = [clause for clause in (_cheaper(first, runner, workload), _full_cache(first, runner)) if clause]
    if not clauses and runner.plan.pp > first.plan.pp:
        clauses.append(f"a token passes {runner.plan.pp} stages one after the other")
    return (": " if clauses else "") + "; ".join(clauses) + "."


def _full_cache(first: Prediction, runner: Prediction) -> str:
    held = runner.max_sequences
    if held and runner.sequences > 0.7 * held and first.max_sequences > 1.15 * held:
        times = show_count(first.max_sequences / held, digits=2)
        more = f"{_name(first.plan)} {_verb(first, 'holds', 'hold')} {times}x as many"
        return f"the cache of {_name(runner.plan)} is full at {show_count(held)} requests, {more}"
    return ""


def costs(p: Prediction, workload: Workload) -> dict[str, float]:
    """What an output token costs, part by part.

    latency: seconds on its way, a decode step of every stage. throughput, cost: GPU-seconds, the step of a whole replica shared by
    the sequences in it, and the request's prefill shared by its output tokens. Steps are those of the slowest stage.
    """
    plan = p.plan
    found: dict[str, float] = {}
    if workload.goal == "latency" or workload.mode == "single_stream":
        for part in p.decode.parts:
            found[part.name] = part.amount * plan.pp
        return found
    running = max(1.0, p.sequences / plan.dp)
    together = running / min(plan.pp, running)
    for part in p.decode.parts:
        found[part.name] = part.amount * plan.replica_gpus / together
    new = workload.input_tokens - workload.prefix_cached_tokens
    chunks = max(1.0, new / plan.settings.token_budget) if plan.settings else 1.0
    for part in p.prefill.parts:
        name = f"prefill {part.name}"
        found[name] = part.amount * chunks * plan.pp * plan.tp / workload.output_tokens
    return found


def _cheaper(first: Prediction, runner: Prediction, workload: Workload) -> str:
    """The part that costs the first plan least against the runner-up, in words."""
    mine, other = costs(first, workload), costs(runner, workload)
    if not mine or not other:
        return ""
    name = max(sorted(mine.keys() | other.keys()), key=lambda part: other.get(part, 0.0) - mine.get(part, 0.0))
    gain = other.get(name, 0.0) - mine.get(name, 0.0)
    if gain < 0.03 * sum(other.values()):
        return ""
    what = _WORDS.get(name.removeprefix("prefill "), name.removeprefix("prefill "))
    what += " in prefill" if name.startswith("prefill ") else ""
    if not mine.get(name):
        return f"{_name(first.plan)} {_verb(first, 'has', 'have')} no {what.removeprefix('the ')}"
    one, two = show(mine.get(name, 0.0), "s"), show(other.get(name, 0.0), "s")
    if workload.goal == "latency" or workload.mode == "single_stream":
        return f"{what} takes {one} of a token's way rather than {two}"
    return f"{what} costs {one} of GPU time a token rather than {two}"


_WORDS = {
    "weights": "reading weights",
    "KV read": "reading the KV cache",
    "compute": "matrix multiplication",
    "all-reduce": "all-reduce",
    "all-gather": "all-gather",
    "all-to-all": "the all-to-all of experts",
    "reduce-scatter": "reduce-scatter",
    "p2p": "sending between stages",
    "send": "sending between stages",
    "host": "host work of the engine",
    "launch": "launching kernels",
    "element-wise": "element-wise work",
    "attention compute": "attention",
}
