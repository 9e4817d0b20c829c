"""Figures and plans as people read them: three digits, a unit, the interval beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from advisor.report.screen import Screen
from advisor.specs.advice import Advice, Asked
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, Prediction
from advisor.units import show, show_count

_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
_FORMAT_WORDS = {"bf16": "bf16", "int4": "int4", "fp8-block": "fp8 (blocks of 128)"}


def short(plan: Plan) -> str:
    """The degrees that are not 1: `tp=4,dp=2`; one GPU is `tp=1`."""
    degrees = (("tp", plan.tp), ("pp", plan.pp), ("dp", plan.dp), ("ep", plan.ep), ("adp", plan.adp))
    return ",".join(f"{axis}={degree}" for axis, degree in degrees if degree > 1) or "tp=1"


def in_words(plan: Plan) -> str:
    """A plan in speech: `two replicas of tp=4`, `8 single GPUs`."""
    degrees = (("tp", plan.tp), ("pp", plan.pp), ("ep", plan.ep), ("adp", plan.adp))
    replica = ",".join(f"{axis}={n}" for axis, n in degrees if n > 1) or "one GPU"
    if plan.dp == 1:
        return replica
    number = _NUMBERS.get(plan.dp, f"{plan.dp:,}")
    return f"{number} single GPUs" if plan.replica_gpus == 1 else f"{number} replicas of {replica}"


def served(advice: Advice) -> str:
    """How much of the load the first plan serves: users, or requests in flight, those that wait apart."""
    p, load = advice.choices[0], advice.asked.workload if advice.asked else None
    running = max(1, round(p.sequences))
    if load is None or load.mode in ("static_batch", "offline"):
        return f"{count(running, 'request')} at once"
    if load.mode == "single_stream":
        return "one user"
    if load.mode == "open_loop":
        asked = f"{show_count(load.rate_per_s)} requests/s"
        if p.overloaded:
            return f"{show_count(p.requests_per_s.value)} of {asked}, {running:,} at once, and the queue grows"
        return f"{asked}, {running:,} at once"
    if load.mode == "closed_loop":
        limit_s = load.ttft_limit_s or advice.implied_ttft_s
        if limit_s is not None and p.ttft_s.value > limit_s and running < load.users:
            return f"{running:,} of {load.users:,} users at once, {load.users - running:,} wait"
        return count(load.users, "user")
    users = count(max(1, math.floor(in_flight(p))), "user")
    if advice.expected is None or not advice.limits_met:
        return users
    expected = math.floor(in_flight(advice.expected))
    return f"{users} with {load.confidence * 100:.0f}% certainty within the limits ({expected:,} expected)"


def assumed_lines(said: Sequence[str], screen: Screen) -> list[str]:
    """What was assumed, below an answer; nothing where nothing was."""
    return ["", screen.bold("Assumed"), *(screen.wrap(text, indent="    ", first="  ") for text in said)] if said else []


def in_flight(p: Prediction) -> float:
    """Users in flight by Little's law: requests/s times the time of a request."""
    return p.requests_per_s.value * p.latency_s.value


def seconds(estimate: Estimate) -> str:
    """A time with its interval: `42.1 ms (38.0 ms to 47.2 ms)`."""
    return f"{show(estimate.value, 's')}{_interval(estimate, 's')}"


def rate(estimate: Estimate, unit: str) -> str:
    """A rate with its interval: `1,230 tokens/s (1,100 to 1,400)`."""
    if estimate.low == estimate.value == estimate.high:
        return f"{show_count(estimate.value)} {unit}"
    return f"{show_count(estimate.value)} {unit} ({show_count(estimate.low)} to {show_count(estimate.high)})"


def _interval(estimate: Estimate, unit: str) -> str:
    if estimate.low == estimate.value == estimate.high:
        return ""
    return f" ({show(estimate.low, unit)} to {show(estimate.high, unit)})"


def count(number: int, noun: str) -> str:
    """`1 GPU`, `8 GPUs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def asked_for(asked: Asked, *, machine: bool = True) -> str:
    """The question in one sentence, with the machine or for any."""
    load = asked.workload
    formats = f"{_FORMAT_WORDS.get(asked.weight_format, asked.weight_format)} weights, {asked.kv_format} cache"
    goal = {"latency": "the shortest answer", "throughput": "the most tokens/s", "cost": "the cheapest tokens"}[load.goal]
    cached = f" ({load.prefix_cached_tokens:,.0f} of them cached)" if load.prefix_cached_tokens else ""
    lengths = f"{load.input_tokens:,.0f} tokens in{cached}, {load.output_tokens:,.0f} out"
    on = f" on {asked.machine}" if machine else ""
    return (
        f"{asked.model} ({show_count(asked.params / 1e9)} B, {formats}){on}, {asked.engine} {asked.engine_version}: "
        f"{lengths}, {_load(asked)}, {goal}{_limits(asked)}."
    )


def _load(asked: Asked) -> str:
    load = asked.workload
    return {
        "capacity": "as many users as fit",
        "offline": "everything queued at once",
        "single_stream": "one user at a time",
        "closed_loop": f"{load.users:,} users in flight",
        "static_batch": f"one batch of {load.users:,}",
        "open_loop": f"{show_count(load.rate_per_s)} requests/s",
    }[load.mode]


def _limits(asked: Asked) -> str:
    load = asked.workload
    parts = [f"TTFT up to {show(load.ttft_limit_s, 's')}"] if load.ttft_limit_s else []
    parts += [f"TPOT up to {show(load.tpot_limit_s, 's')}"] if load.tpot_limit_s else []
    return ", " + " and ".join(parts) if parts else ""
