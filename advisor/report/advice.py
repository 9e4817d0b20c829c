"""The page of `advisor recommend`: what was assumed, the recommendation, the table, the front, and the rejected plans."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.report.plot import Dot, scatter
from advisor.report.pools import pools_lines, speculation_words
from advisor.report.reason import SAME, tie_words
from advisor.report.screen import PLAIN, Screen
from advisor.report.words import asked_for, assumed_lines, count, rate, seconds, served, short
from advisor.search.front import fills, front, per_gpu
from advisor.specs.advice import Advice
from advisor.specs.prediction import Prediction, Rejected
from advisor.units import show, show_bytes, show_count

_HEAD = ("", "plan", "GPUs", "TTFT", "TPOT", "tok/s", "/GPU", "KV tok", "batch", "$/Mtok", "bottleneck")
_RIGHT = (2, 3, 4, 5, 6, 7, 8, 9)


def page(advice: Advice, *, top: int = 8, everything: bool = False, screen: Screen = PLAIN) -> str:
    """The whole answer as text: the question, the answer with its reason, the table, the front, and below what was assumed."""
    machine = [sentence for sentence in advice.said if "are assumed" in sentence][:1]  # the answer is of no use without it
    lines = [screen.wrap(sentence, indent="  ", first="") for sentence in machine]
    lines += [screen.wrap(f"Asked: {asked_for(advice.asked)}", indent="  ", first="")] if advice.asked else []
    if not advice.choices:
        lines += [*_nothing_fits(advice, everything=everything, screen=screen), *_assumed(advice, screen)]
        return "\n".join(lines)
    lines += ["", *_recommendation(advice, screen), "", *_table(advice, screen, top=top, everything=everything)]
    pools = pools_lines(advice, screen)
    lines += ["", *pools] if pools else []
    plot = _plot(advice, screen)
    lines += ["", *plot] if plot else []
    lines += _assumed(advice, screen)
    if everything:
        lines += ["", *_rejected(advice.rejected, screen)]
    elif advice.rejected:
        lines += ["", screen.wrap(_rejected_in_short(advice.rejected), indent="  ", first="")]
    return "\n".join(lines)


def _assumed(advice: Advice, screen: Screen) -> list[str]:
    rest = [sentence for sentence in advice.said if "are assumed" not in sentence]
    return assumed_lines(rest, screen)


def _recommendation(advice: Advice, screen: Screen) -> list[str]:
    first = advice.choices[0]
    gpus = advice.asked.gpus if advice.asked else first.plan.world
    idle = gpus - first.plan.world
    used = f"{first.plan.world:,} of {count(gpus, 'GPU')}" + (f", {idle:,} idle" if idle else "")
    word = "Recommended" if advice.limits_met else "Closest to the limits"
    lines = [screen.bold(f"{word}: {advice.choices[0].plan.label}") + f"   ({used})"]
    lines.append(f"  TTFT {seconds(first.ttft_s)}, TPOT {seconds(first.tpot_s)}")
    lines.append(screen.wrap(f"{rate(first.output_tokens_per_s, 'output tokens/s')}, {served(advice)}", indent="    ", first="  "))
    # The limits come first, for they qualify the recommendation; then why this plan, and how sure that is.
    said = (
        *advice.limits,
        advice.reason,
        tie_words(advice),
        _certainty(advice),
        _network(advice),
        speculation_words(advice.speculation),
        *first.notes,
        *advice.notes,
    )
    for text in (*said, _idle(advice, idle)):
        if text:
            lines.append(screen.wrap(_sentence(text), indent="  "))
    lines += [screen.wrap(_what_ifs(advice), indent="  ")] if advice.what_ifs else []
    lines += _helps(advice)
    if advice.launch:
        lines += ["", *screen.shell(advice.launch)]
    return lines


def _what_ifs(advice: Advice) -> str:
    """What changes would bring, in the figure of the goal."""
    load = advice.asked.workload if advice.asked else None
    faster = load is not None and (load.goal == "latency" or load.mode in ("single_stream", "open_loop"))
    what = "the speed of an answer" if faster else ("the tokens for the money" if load and load.goal == "cost" else "the tokens/s")
    gains = [
        f"{x.change} {show_count(x.times, digits=2)} times {what} ({short(x.plan)})" for x in advice.what_ifs if x.times > 1 + SAME
    ]
    others = [x.change for x in advice.what_ifs if x.times <= 1 + SAME]
    nothing = f"no more with {' or '.join(others)}" if others else ""
    return f"What would bring more: {'; '.join([*gains, *([nothing] if nothing else [])])}."


def _helps(advice: Advice) -> list[str]:
    """The changes after which the limits are kept."""
    if not advice.remedies:
        return []
    widest = max(len(r.change) for r in advice.remedies)
    return [
        "  What would help:",
        *(f"    {r.change.ljust(widest)}  then {short(r.plan)} keeps the limits" for r in advice.remedies),
    ]


def _sentence(text: str) -> str:
    start = text[0] if "=" in text.split(" ", 1)[0] else text[0].upper()  # a plan keeps its own spelling
    return start + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _certainty(advice: Advice) -> str:
    calibration = advice.choices[0].calibration
    if advice.first_share is None or advice.ties:
        return f"Intervals are 90%, calibration {calibration}."
    share = advice.first_share
    odds = "more than 99%" if share > 0.99 else ("less than 1%" if share < 0.01 else f"{share * 100:.0f}%")
    return f"It is the best in {odds} of draws from the error bars; intervals are 90%, calibration {calibration}."


def _network(advice: Advice) -> str:
    """What the network must give, where the first plan's tp crosses it."""
    need = advice.network_need
    if need is None:
        return ""
    crosses = f"tp={advice.choices[0].plan.tp} crosses nodes"
    other, kind = short(need.other), "RDMA" if need.rdma else "TCP"
    if not need.bytes_per_s:
        return f"{crosses} and stays ahead of {other} at any bandwidth of the network."
    return f"{crosses}: below {show(need.bytes_per_s, 'B/s')} of {kind} for each GPU between nodes, {other} is better."


def _idle(advice: Advice, idle: int) -> str:
    """Why GPUs stay idle, where they do."""
    if not idle or not advice.asked:
        return ""
    first, load = advice.choices[0].plan, advice.asked.workload
    stays = f"{count(idle, 'GPU')} {'stays' if idle == 1 else 'stay'} idle"
    if idle < first.replica_gpus:
        return f"{stays}: a further replica needs {first.replica_gpus}."
    if load.mode == "single_stream":
        return f"{stays}: one user at a time keeps one replica busy, and splitting it further makes the answer no faster."
    if load.mode in ("closed_loop", "static_batch") and first.dp >= load.users:
        return f"{stays}: there are no more users than replicas."
    return f"{stays}: more replicas do not serve the goal better."


def shown(advice: Advice, *, everything: bool) -> list[Prediction]:
    """The rows of the table: the best number of replicas of each replica shape, or all.

    Shapes whose replicas cannot fill the machine stand only where they are first.
    """
    if everything:
        return list(advice.choices)
    gpus = advice.asked.gpus if advice.asked else 0
    rows: dict[tuple[int, ...], Prediction] = {}
    for p in advice.choices:
        if p is advice.choices[0] or fills(p.plan, gpus):
            rows.setdefault((p.plan.tp, p.plan.pp, p.plan.ep, p.plan.adp), p)
    return list(rows.values())


def _table(advice: Advice, screen: Screen, *, top: int, everything: bool) -> list[str]:
    rows = shown(advice, everything=everything)
    cut = rows if everything else rows[:top]
    # Of the rows here: the whole front may hold another number of replicas of the same shape.
    best = {p.plan for p in front([p for p in rows if p.within_limits == rows[0].within_limits])}
    lines = screen.table(_HEAD, [_row(p, advice, on_front=p.plan in best) for p in cut], right=_RIGHT)
    if len(cut) < len(rows):
        lines.append(f"... and {count(len(rows) - len(cut), 'more plan')} (--top {len(rows)}, --all)")
    legend = "* on the front of latency against tokens/s per GPU"
    lines.append(legend + ("; ! misses a limit" if any(not p.within_limits for p in cut) else ""))
    return lines


def _row(p: Prediction, advice: Advice, *, on_front: bool) -> tuple[str, ...]:
    ttft, tpot = show(p.ttft_s.value, "s"), show(p.tpot_s.value, "s")
    workload = advice.asked.workload if advice.asked else None
    if not p.within_limits and workload:
        ttft += _flag(p.ttft_s.value, workload.ttft_limit_s or advice.implied_ttft_s)
        tpot += _flag(p.tpot_s.value, workload.tpot_limit_s)
    usd = "-" if p.usd_per_million_tokens is None else show_count(p.usd_per_million_tokens)
    return (
        "*" if on_front else " ",
        short(p.plan),
        f"{p.plan.world:,}",
        ttft,
        tpot,
        show_large(p.output_tokens_per_s.value, above=1e6),
        show_count(p.output_tokens_per_s.value / p.plan.world),
        show_large(p.kv_tokens),
        show_large(p.max_sequences),
        usd,
        p.bottleneck,
    )


def _flag(value_s: float, limit_s: float | None) -> str:
    return "!" if limit_s and show(value_s, "s") != show(limit_s, "s") and value_s > limit_s else ""


def show_large(value: float, *, above: float = 1e4) -> str:
    """A count in a narrow column, with a letter from `above` on: `812`, `44.5k`, `1.23M`."""
    if value < above:
        return show_count(value)
    scale, letter = next((scale, letter) for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= scale)
    return show_count(value / scale) + letter


def _plot(advice: Advice, screen: Screen) -> list[str]:
    """The front in the terminal, with the lighter loads of the best plans; nothing where all plans fall on one point."""
    points = [*shown(advice, everything=False), *advice.curve]
    best = front([p for p in points if p.within_limits == advice.choices[0].within_limits])
    dots = [
        Dot(x=p.latency_s.value, y=per_gpu(p), label=short(p.plan), on_front=p in best) for p in points if p.latency_s.value > 0
    ]
    if len({(d.x, d.y) for d in dots}) < 2:
        return []
    xs = [d.x for d in dots]
    loads = ", also under lighter loads" if advice.curve else ""
    return scatter(
        dots, title=f"Output tokens/s per GPU against the time of a request; the front by name{loads}",
        x_name="time of a request", x_ticks=(show(min(xs), "s"), show(max(xs), "s")), screen=screen,
    )  # fmt: skip


def _rejected_in_short(rejected: Sequence[Rejected]) -> str:
    memory = [r for r in rejected if r.short_bytes > 0]
    text = f"{count(len(rejected), 'kind')} of replica cannot run"
    if memory:
        nearest = memory[0]
        text += f", the nearest miss {short(nearest.plan)}: {nearest.reason}"
    return text + " (--all lists them)."


def _rejected(rejected: Sequence[Rejected], screen: Screen) -> list[str]:
    if not rejected:
        return ["No kind of replica was rejected."]
    widest = max(len(short(r.plan)) for r in rejected)
    lines = [screen.bold("Rejected, nearest misses first")]
    return lines + [screen.wrap(r.reason, first=f"  {short(r.plan).ljust(widest)}  ", indent=" " * (widest + 4)) for r in rejected]


def _nothing_fits(advice: Advice, *, everything: bool, screen: Screen) -> list[str]:
    asked = advice.asked
    lines = ["", screen.bold("No plan fits.")]
    misses = [r for r in advice.rejected if r.short_bytes > 0]
    if misses:
        lines.append("Nearest misses:")
        widest = max(len(short(r.plan)) for r in misses[:3])
        for r in misses[:3]:
            lines.append(f"  {short(r.plan).ljust(widest)}  {r.reason}: {show_bytes(r.short_bytes)} short on a GPU")
    elif advice.rejected:
        lines += [screen.wrap(r.reason, first=f"  {short(r.plan)}  ", indent="    ") for r in advice.rejected[:3]]
    if advice.remedies:
        lines.append("What would help:")
        widest = max(len(r.change) for r in advice.remedies)
        lines += [f"  {r.change.ljust(widest)}  then {short(r.plan)} fits" for r in advice.remedies]
    elif asked:
        lines.append(f"No change that was tried helps: {asked.model} needs GPUs with more memory.")
    if everything:
        lines += ["", *_rejected(advice.rejected, screen)]
    return lines
