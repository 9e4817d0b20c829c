"""The page of `advisor recommend --compare`: the best plan on each GPU in one table."""

from __future__ import annotations

from advisor.report.screen import PLAIN, Screen
from advisor.report.words import asked_for, short
from advisor.specs.advice import Advice, Compared, Comparison
from advisor.units import show, show_count

_HEAD = ("", "GPUs", "plan", "TTFT", "TPOT", "tok/s", "/GPU", "users", "$/h", "$/Mtok", "price of")
_RIGHT = (3, 4, 5, 6, 7, 8, 9)


def page(comparison: Comparison, *, screen: Screen = PLAIN) -> str:
    """The table, best first, and below it what fits nowhere and why."""
    answered = [each for each in comparison.machines if each.advice and each.advice.choices]
    asked = next(each.advice.asked for each in comparison.machines if each.advice)
    lines = []
    if asked is not None:
        lines.append(screen.wrap(f"Asked: {asked_for(asked, machine=False)}", indent="  ", first=""))
    cheapest = min((usd for each in answered if (usd := _usd(each)) is not None), default=None)
    rows = [_row(each, best=index == 0, cheapest=cheapest) for index, each in enumerate(answered)]
    lines += ["", *screen.table(_HEAD, rows, right=_RIGHT)] if rows else ["", screen.bold("No plan fits on any of them.")]
    if any("!" in row[0] for row in rows):
        lines.append("! misses a limit")
    for each in comparison.machines:
        if each not in answered:
            lines.append(screen.wrap(each.refused or f"{each.gpu}: no plan fits.", indent="  ", first=""))
    lines += ["", screen.wrap("Ask with one --gpu for the reason, the other plans and the launch line.", indent="  ", first="")]
    return "\n".join(lines)


def _usd(each: Compared) -> float | None:
    return each.advice.choices[0].usd_per_million_tokens if each.advice and each.advice.choices else None


def _row(each: Compared, *, best: bool, cheapest: float | None) -> tuple[str, ...]:
    assert each.advice is not None
    first, usd = each.advice.choices[0], _usd(each)
    mark = "!" if not each.advice.limits_met else ("*" if best else " ")
    return (
        mark,
        f"{first.plan.world:,} x {each.gpu}",
        short(first.plan),
        show(first.ttft_s.value, "s"),
        show(first.tpot_s.value, "s"),
        show_count(first.output_tokens_per_s.value),
        show_count(first.output_tokens_per_s.value / first.plan.world),
        _users(each.advice),
        "-" if each.usd_per_hour is None else show_count(each.usd_per_hour * first.plan.world),
        "-" if usd is None else show_count(usd) + ("  least" if usd == cheapest else ""),
        each.price_date or "-",
    )


def _users(advice: Advice) -> str:
    load, first = advice.asked.workload if advice.asked else None, advice.choices[0]
    if load is not None and load.users:
        return show_count(load.users)
    return show_count(round(first.requests_per_s.value * first.latency_s.value))
