"""The page of `advisor estimate`: every figure of one plan with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.report.screen import PLAIN, Screen
from advisor.report.words import asked_for, assumed_lines
from advisor.specs.advice import Asked
from advisor.specs.prediction import Estimate, Prediction
from advisor.units import show, show_count


def page(prediction: Prediction, *, asked: Asked, said: Sequence[str] = (), screen: Screen = PLAIN) -> str:
    """The figures as text."""
    p = prediction
    rows = [
        _time("TTFT", p.ttft_s),
        _time("TPOT", p.tpot_s),
        _time("time of a request", p.latency_s),
        _rate("output tokens/s", p.output_tokens_per_s),
        _rate("input + output tokens/s", p.total_tokens_per_s),
        _rate("decode tokens/s", p.decode_tokens_per_s),
        _rate("requests/s", p.requests_per_s),
    ]
    lines = [screen.wrap(f"Asked: {asked_for(asked)}", indent="  ", first="")]
    lines += ["", screen.bold(f"{p.plan.label} on {p.plan.world:,} of {asked.gpus:,} GPUs")]
    lines += ["  " + line for line in screen.table(("", "expected", "90% low", "90% high"), rows, right=(1, 2, 3))]
    usd = "" if p.usd_per_million_tokens is None else f", {show_count(p.usd_per_million_tokens)} $ per million output tokens"
    cache = f"the cache holds {p.kv_tokens:,} tokens, {p.max_sequences:,} requests"
    lines += [
        f"  {show_count(p.sequences)} answers are written at once; {cache}",
        f"  bottleneck {p.bottleneck}{usd}; calibration {p.calibration}",
    ]
    lines += [screen.wrap(note[0].upper() + note[1:] + ("" if note.endswith(".") else "."), indent="  ") for note in p.notes]
    limits = asked.workload.ttft_limit_s or asked.workload.tpot_limit_s
    if limits:
        lines.append("  The limits are met." if p.within_limits else "  The limits are not met.")
    lines += assumed_lines(said, screen)
    return "\n".join(lines)


def _time(name: str, figure: Estimate) -> tuple[str, str, str, str]:
    return name, show(figure.value, "s"), show(figure.low, "s"), show(figure.high, "s")


def _rate(name: str, figure: Estimate) -> tuple[str, str, str, str]:
    return name, show_count(figure.value), show_count(figure.low), show_count(figure.high)
