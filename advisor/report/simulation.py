"""The page of `advisor simulate`: percentiles with their intervals, limits, queues over time."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.report.screen import PLAIN, Screen
from advisor.specs.prediction import Estimate
from advisor.specs.simulation import Moment, Simulation
from advisor.units import show, show_count

NAMES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "between tokens", "e2e": "whole request", "queue": "in the queue"}
HEIGHT, WIDTH = 8, 72


def page(found: Simulation, *, said: Sequence[str] = (), screen: Screen = PLAIN) -> str:
    """The simulation as text."""
    lines = [screen.wrap(sentence, indent="  ", first="") for sentence in said]
    lines += ["", screen.bold(f"{found.plan.label} on {found.plan.world:,} GPU{'s' if found.plan.world > 1 else ''}: {found.load}")]
    rows = [
        (NAMES[t.name], _plain(t.p50), _with_interval(t.p90), _plain(t.p95), _with_interval(t.p99), _plain(t.mean))
        for t in found.times
    ]
    lines += ["  " + line for line in screen.table(("", "p50", "p90", "p95", "p99", "mean"), rows, right=(1, 2, 3, 4, 5))]
    lines += [
        f"  {show_count(found.requests_per_s.value)} requests/s, {show_count(found.output_tokens_per_s.value)} output tokens/s, "
        f"{show_count(found.total_tokens_per_s.value)} with the prompts; {show_count(found.running)} running on average",
        f"  {found.preemptions:,} preemptions; {found.hit_share:.0%} of prompt tokens found in the prefix cache",
    ]
    if found.usd_per_million_tokens is not None:
        lines.append(f"  {show_count(found.usd_per_million_tokens)} $ per million output tokens")
    for verdict in found.verdicts:
        word = "kept" if verdict.sure else "kept by the expected run, not by the slow one" if verdict.met else "not kept"
        limit = show(verdict.limit.seconds, "s")
        lines.append(f"  {verdict.limit.name} {_with_interval(verdict.found)}, limit {limit}: {word}")
    if found.verdicts:
        share, each_s = found.goodput.value, show_count(found.goodput_per_s.value)
        lines.append(f"  goodput {share:.1%} of the requests, {each_s} a second keep every limit")
    lines += [screen.wrap(note[0].upper() + note[1:] + ".", indent="  ") for note in found.notes]
    if len(found.moments) > 2:
        lines += ["", *_queues(found.moments, screen)]
    return "\n".join(lines)


def _plain(figure: Estimate) -> str:
    return show(figure.value, "s")


def _with_interval(figure: Estimate) -> str:
    return f"{show(figure.value, 's')} ({show(figure.low, 's')}-{show(figure.high, 's')})"


def _queues(moments: Sequence[Moment], screen: Screen) -> list[str]:
    """Running and waiting requests over time, as columns: waiting on top of running."""
    most = max(m.running + m.waiting for m in moments) or 1
    runs, waits = ("█", "░") if screen.blocks else ("#", ":")
    columns = [moments[i * len(moments) // WIDTH] for i in range(min(WIDTH, len(moments)))]
    lines = [f"Requests over {show(moments[-1].at_s, 's')}: {runs} running, {waits} waiting"]
    for row in range(HEIGHT, 0, -1):
        edge = (row - 0.5) / HEIGHT * most
        cells = [runs if m.running >= edge else waits if m.running + m.waiting >= edge else " " for m in columns]
        tick = f"{most:,}" if row == HEIGHT else ""
        lines.append(f"{tick:>8} {'│' if screen.blocks else '|'}{''.join(cells).rstrip()}")
    lines.append(f"{0:>8} {'└' if screen.blocks else '+'}{('─' if screen.blocks else '-') * len(columns)}")
    return lines
