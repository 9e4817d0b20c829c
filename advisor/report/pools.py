"""Prefill and decode apart in words and as a table: the deployment, where it wins, and why it does not."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.report.screen import PLAIN, Screen
from advisor.report.words import asked_for
from advisor.specs.advice import Advice, Asked, PoolsAdvice, SpeculationAdvice
from advisor.specs.deployment import DeploymentPrediction
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate
from advisor.units import show, show_count

SHOWN = 3
IDLE = 0.7  # a pool that is used less than this stands idle for want of the other
LONG_TRANSFER = 0.05  # of TTFT: the transfer is worth a word
_HEAD = ("pools", "GPUs", "TTFT", "TPOT", "tok/s", "/GPU", "prefill", "decode", "transfer")
_RIGHT = (1, 2, 3, 4, 5, 6, 7, 8)


def pools_lines(advice: Advice, screen: Screen = PLAIN) -> list[str]:
    """What the advice says of pools; nothing where they were not looked at."""
    found = advice.pools
    if found is None:
        return []
    head = "Prefill and decode apart" + (": better here" if found.ahead else ": not better here")
    lines = [screen.bold(head), screen.wrap(verdict(found), indent="  ")]
    shown = found.choices[:SHOWN] if found.ahead else found.choices[:1]
    return [*lines, *("  " + line for line in screen.table(_HEAD, [_row(p) for p in shown], right=_RIGHT))]


def verdict(found: PoolsAdvice) -> str:
    """Whether pools win, by how much, how sure that is, and why."""
    first = found.choices[0]
    label = first.deployment.label
    if found.gain is None or found.sigma is None:
        return f"No plan of one kind of replica fits; {label} does."
    percent, side = abs(found.gain - 1) * 100, "better" if found.gain >= 1 else "worse"
    size = f"{percent:.0f}% {side} than the recommended plan, give or take {found.sigma * 100:.0f}%"
    if found.ahead:
        text = f"{label} is {size}: prompts do not hold up decodes, and each pool has the plan that suits it."
    elif found.gain >= 1:
        text = f"The best pools, {label}, are {size}: within the error, for two kinds of servers and a transfer."
    else:
        text = f"The best pools, {label}, are {size}."
    return f"{text} {_why(first)}".strip()


def _why(p: DeploymentPrediction) -> str:
    """What limits the pools: one of them stands idle, or the cache travels for long."""
    said = []
    if p.prefill_busy < IDLE <= p.decode_busy:
        said.append(f"the prefill workers are used to {p.prefill_busy:.0%}, for workers are whole")
    elif p.decode_busy < IDLE <= p.prefill_busy:
        said.append(f"the decode workers are used to {p.decode_busy:.0%}, for workers are whole")
    if p.transfer_s > LONG_TRANSFER * p.ttft_s.value:
        said.append(f"the cache of a prompt travels for {show(p.transfer_s, 's')}")
    text = " and ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _row(p: DeploymentPrediction) -> tuple[str, ...]:
    rate_per_s = p.output_tokens_per_s.value
    return (
        _short(p), f"{p.deployment.world:,}", show(p.ttft_s.value, "s"), show(p.tpot_s.value, "s"), show_count(rate_per_s),
        show_count(rate_per_s / p.deployment.world), f"{p.prefill_busy:.0%}", f"{p.decode_busy:.0%}", show(p.transfer_s, "s"),
    )  # fmt: skip


def _short(p: DeploymentPrediction) -> str:
    """`2 x tp=4 + 1 x adp=8,ep=8`: workers of prefill, then of decode."""

    def worker(plan: Plan) -> str:
        axes = [f"{axis}={n}" for axis, n in (("tp", plan.tp), ("pp", plan.pp), ("ep", plan.ep), ("adp", plan.adp)) if n > 1]
        return f"{plan.dp} x {','.join(axes) or 'tp=1'}"

    return f"{worker(p.deployment.prefill)} + {worker(p.deployment.decode)}"


def speculation_words(found: SpeculationAdvice | None) -> str:
    """Whether drafting pays under this load, and until when."""
    if found is None:
        return ""
    ratio = found.plain_tpot_s / found.tpot_s
    now = f"TPOT is {show(found.tpot_s, 's')} with drafts and {show(found.plain_tpot_s, 's')} without ({ratio:.2f} x)"
    if ratio <= 1:
        return f"Leave speculation off under this load, or let the engine switch it off by itself: {now}."
    if found.pays_below_users is None:
        return f"Speculation pays: {now}, at every load that the cache holds."
    until = show_count(found.pays_below_users)
    return f"Speculation pays: {now}; from {until} users on it no longer does, where the engine should switch it off."


def page(p: DeploymentPrediction, *, asked: Asked, said: Sequence[str] = (), screen: Screen = PLAIN) -> str:
    """The page of `advisor estimate` for one deployment of pools."""
    rows = [
        ("TTFT", *_interval(p.ttft_s, "s")), ("TPOT", *_interval(p.tpot_s, "s")),
        ("time of a request", *_interval(p.latency_s, "s")),
        ("output tokens/s", *_interval(p.output_tokens_per_s)), ("input + output tokens/s", *_interval(p.total_tokens_per_s)),
        ("requests/s", *_interval(p.requests_per_s)),
    ]  # fmt: skip
    lines = [screen.wrap(sentence, indent="  ", first="") for sentence in (*said, f"Asked: {asked_for(asked)}")]
    lines += ["", screen.bold(f"{p.deployment.label} on {p.deployment.world:,} of {asked.gpus:,} GPUs")]
    lines += ["  " + line for line in screen.table(("", "expected", "90% low", "90% high"), rows, right=(1, 2, 3))]
    lines += [
        f"  The prefill pool carries {show_count(p.prefill_carries_per_s)} requests/s and is used to {p.prefill_busy:.0%},",
        f"  the decode pool carries {show_count(p.decode_carries_per_s)} and is used to {p.decode_busy:.0%}.",
        f"  {show_count(p.running)} sequences on a decode worker; {show_count(p.waiting)} requests wait for a place.",
        f"  The cache of a prompt travels for {show(p.transfer_s, 's')}; the decode pool holds {p.kv_tokens:,} tokens.",
    ]
    lines += [screen.wrap(note[0].upper() + note[1:] + ".", indent="  ") for note in p.notes]
    if asked.workload.ttft_limit_s or asked.workload.tpot_limit_s:
        lines.append("  The limits are met." if p.within_limits else "  The limits are not met.")
    return "\n".join(lines)


def _interval(figure: Estimate, unit: str = "") -> tuple[str, str, str]:
    low, value, high = (show(v, unit) if unit else show_count(v) for v in (figure.low, figure.value, figure.high))
    return value, low, high
