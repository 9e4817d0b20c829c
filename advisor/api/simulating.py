"""A load in words -> what a plan makes of it: `advisor simulate`, and `advisor.simulate` in Python."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from advisor.api.limits import limits_of, seconds_of
from advisor.api.options import Options
from advisor.errors import QuestionError, unknown
from advisor.specs.arrivals import ArrivalKind, Arrivals
from advisor.specs.lengths import Lengths, fixed, lognormal
from advisor.specs.trace import Request, Trace
from advisor.units import show_count

if TYPE_CHECKING:
    from advisor.api.question import Question
    from advisor.serving.record import Record
    from advisor.serving.simulate import Bounds, Offered
    from advisor.specs.plan import Plan
    from advisor.specs.simulation import Simulation

REQUESTS = 2000  # drawn where nobody says how many: the 99th percentile rests on twenty
MOST_HISTOGRAM_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadWords:
    """A load as it is said: a trace, or arrivals and lengths."""

    trace: Path | None = None
    strict: bool = False
    scale: float = 1.0
    arrivals: str = ""
    rate: float | None = None
    burstiness: float = 1.0
    users: int | None = None
    think: str = ""
    requests: int | None = None
    input_tokens: str = ""
    output_tokens: str = ""
    prefix_cached_tokens: int = 0
    seed: int = 0
    ttft: str = ""
    tpot: str = ""
    e2e: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """The answer, every request of the expected run, the question, and what has to be said before."""

    simulation: Simulation
    records: list[Record]
    asked: Question
    said: tuple[str, ...]


def simulate_plan(*, model: str, plan: str, load: LoadWords, bounds: Bounds | None = None, **options: object) -> Simulated:
    """The plan under the load; the recommended plan for its mean rate and lengths where none is named."""
    from advisor.api.answer import legal_plan
    from advisor.api.question import question
    from advisor.serving.predict import Predictor
    from advisor.serving.simulate import simulate

    limits = limits_of(ttft=load.ttft, tpot=load.tpot, e2e=load.e2e)
    offered, means, said = offered_load(load)
    given = cast(Options, {**options, **_options_of(load, means)})
    asked = question(model=model, **given)
    chosen: Plan
    if plan:
        chosen = legal_plan(asked.problem, plan)
    else:
        chosen, more = _recommended(asked)
        said += more
    simulation, records = simulate(Predictor(asked.problem, asked.calibration), chosen, offered, limits, bounds=bounds)
    simulation = replace(simulation, notes=(*simulation.notes, *_notes(simulation)))
    return Simulated(simulation=simulation, records=records, asked=asked, said=(*asked.said, *said))


def _recommended(asked: Question) -> tuple[Plan, list[str]]:
    from advisor.api.answer import answer
    from advisor.errors import NoPlanFitsError

    choices = answer(asked).choices
    if not choices:
        raise NoPlanFitsError(f"no plan fits {asked.problem.model.name}; `advisor recommend` says what would.")
    plan = replace(choices[0].plan, settings=None)
    return plan, [f"The plan is the recommended one for the mean of this load: {plan.label} (--plan for another)."]


def _notes(simulation: Simulation) -> list[str]:
    found = []
    if simulation.overloaded:
        found.append("overloaded: the queue grows as long as requests come, so that percentiles depend on how long that is")
    if simulation.unanswered:
        found.append(f"{simulation.unanswered:,} requests were still unanswered ten minutes after the last one came")
    if simulation.rejected:
        found.append(f"{simulation.rejected:,} requests are longer than the whole cache and were rejected")
    return found


def _options_of(load: LoadWords, means: tuple[float, float, float]) -> dict[str, object]:
    """The mean load as options of a question."""
    inputs, outputs, rate_per_s = means
    options: dict[str, object] = {"input_tokens": max(1, round(inputs)), "output_tokens": max(1, round(outputs))}
    options["prefix_cached_tokens"] = min(load.prefix_cached_tokens, max(0, round(inputs) - 1)) or None
    if load.users:
        options["users"] = load.users
    elif rate_per_s and math.isfinite(rate_per_s):
        options["rate"] = rate_per_s
    return options


# The load.


def offered_load(load: LoadWords) -> tuple[Offered, tuple[float, float, float], list[str]]:
    """The load, its mean prompt, answer and rate, and what has to be said about it."""
    if not 0 < load.scale <= 1000:
        raise QuestionError(f"--scale {load.scale:g} is not possible; give a factor on the rate above 0, e.g. 1.5.")
    if load.trace is not None:
        return _of_trace(load)
    return _drawn(load)


def _of_trace(load: LoadWords) -> tuple[Offered, tuple[float, float, float], list[str]]:
    from advisor.catalog.traces import read_trace
    from advisor.serving.simulate import Offered

    assert load.trace is not None
    for option, value in (("--arrivals", load.arrivals), ("--rate", load.rate), ("--users", load.users)):
        if value:
            raise QuestionError(f"--trace says when requests come; leave out {option} (--scale makes it busier).")
    trace: Trace = read_trace(load.trace, strict=load.strict)
    requests = [replace(r, arrival_s=r.arrival_s / load.scale) for r in trace.requests] if load.scale != 1 else trace.requests
    count, seconds = len(requests), trace.seconds / load.scale
    said = (
        [f"{trace.skipped:,} lines of {trace.name} were skipped ({trace.reason}); --strict refuses them."] if trace.skipped else []
    )
    words = f"{trace.name}, {count:,} requests in {seconds:,.0f} s" + (
        f" at {load.scale:g} times its rate" if load.scale != 1 else ""
    )
    means = (
        sum(r.input_tokens for r in requests) / count, sum(r.output_tokens for r in requests) / count,
        count / seconds if seconds else 0.0,
    )  # fmt: skip
    return Offered(words=words, requests=lambda: requests, last_s=requests[-1].arrival_s), means, said


def _drawn(load: LoadWords) -> tuple[Offered, tuple[float, float, float], list[str]]:
    from advisor.serving.arrivals import drawn_requests
    from advisor.serving.simulate import Offered

    inputs = lengths_of("--input-tokens", load.input_tokens or "1024")
    outputs = lengths_of("--output-tokens", load.output_tokens or "256")
    said = []
    if not load.input_tokens or not load.output_tokens:
        said.append("Lengths: 1,024 tokens in, 256 out where nothing else is said (--input-tokens, --output-tokens).")
    arrivals = _arrivals(load)
    words = f"{arrivals.requests:,} requests"
    if arrivals.users:
        follow_up = _users(arrivals, inputs, outputs)
        thinking = f" who think for {arrivals.think_s:g} s" if arrivals.think_s else ""
        offered = Offered(
            words=f"{words} of {arrivals.users:,} users{thinking}", last_s=math.inf, follow_up=follow_up,
            requests=lambda: drawn_requests(_first(arrivals), inputs, outputs),
        )  # fmt: skip
        return offered, (inputs.mean, outputs.mean, 0.0), said
    pace = "at once" if arrivals.kind == "burst" else f"at {show_count(arrivals.rate_per_s)}/s ({arrivals.kind})"
    last_s = 0.0 if arrivals.kind == "burst" else arrivals.requests / arrivals.rate_per_s
    offered = Offered(
        words=f"{words} {pace}", last_s=last_s,
        requests=lambda: drawn_requests(arrivals, inputs, outputs, cached_tokens=load.prefix_cached_tokens),
    )  # fmt: skip
    return offered, (inputs.mean, outputs.mean, arrivals.rate_per_s), said


def _arrivals(load: LoadWords) -> Arrivals:
    kind = load.arrivals or "poisson"
    if kind not in get_args(ArrivalKind):
        raise unknown("kind of arrivals", kind, get_args(ArrivalKind))
    if load.users is not None and (load.rate is not None or load.arrivals):
        raise QuestionError("--users send their next request after an answer; leave out --rate and --arrivals.")
    if load.users is None and load.rate is None and kind != "burst":
        raise QuestionError("no load was given: say --trace FILE, --rate 5 (requests per second), or --users 64.")
    think_s = seconds_of("--think", load.think) if load.think else 0.0
    try:
        return Arrivals(
            requests=load.requests or REQUESTS, kind=cast(ArrivalKind, kind), rate_per_s=(load.rate or 0.0) * load.scale,
            burstiness=load.burstiness, users=load.users or 0, think_s=think_s, seed=load.seed,
        )  # fmt: skip
    except ValueError as error:
        raise QuestionError(f"this load is not possible: {error}.") from None


def _first(arrivals: Arrivals) -> Arrivals:
    """The first request of each user; with a think time they come over that time, else at once."""
    count = min(arrivals.users, arrivals.requests)
    if not arrivals.think_s:
        return replace(arrivals, kind="burst", requests=count)
    return replace(arrivals, kind="poisson", rate_per_s=count / arrivals.think_s, requests=count)


def _users(arrivals: Arrivals, inputs: Lengths, outputs: Lengths) -> Callable[[], Callable[[float], Request | None]]:
    """What users send after an answer: the next request, when they have thought (exponential)."""
    from advisor.serving.arrivals import drawn_requests

    def begin() -> Callable[[float], Request | None]:
        left = max(0, arrivals.requests - arrivals.users)
        further = replace(arrivals, kind="burst", requests=max(1, left), seed=arrivals.seed + 2)
        upcoming = drawn_requests(further, inputs, outputs) if left else iter(())
        thinking = random.Random(arrivals.seed + 3)

        def follow_up(now_s: float) -> Request | None:
            following = next(upcoming, None)
            if following is None:
                return None
            pause_s = thinking.expovariate(1 / arrivals.think_s) if arrivals.think_s else 0.0
            return replace(following, arrival_s=now_s + pause_s)

        return follow_up

    return begin


# Words.

_LOGNORMAL = re.compile(r"lognormal\(\s*(?:mean\s*=\s*)?([\d.]+)\s*,\s*(?:p90\s*=\s*)?([\d.]+)\s*\)")


def lengths_of(option: str, text: str) -> Lengths:
    """Lengths as they are said: 1024, lognormal(1024,3000), or a CSV file with tokens and counts."""
    try:
        if found := _LOGNORMAL.fullmatch(text.strip().lower()):
            return lognormal(float(found[1]), float(found[2]))
        if re.fullmatch(r"[\d,_]+", text.strip()):
            return fixed(float(text.replace(",", "").replace("_", "")))
    except ValueError as error:
        raise QuestionError(f"{option} {text[:60]!r} is not possible: {error}.") from None
    return _histogram(option, Path(text))


def _histogram(option: str, path: Path) -> Lengths:
    from advisor.files import read_bounded, shown

    if not path.exists():
        raise QuestionError(f"{option} {str(path)[:60]!r} is no number, no lognormal(mean,p90) and no file; write it as 1024.")
    lines = read_bounded(path, most_bytes=MOST_HISTOGRAM_BYTES, what="a histogram: a line for each length, tokens,count")
    pairs: list[tuple[float, float]] = []
    for number, line in enumerate(lines.decode("utf-8", errors="replace").splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",")]
        try:
            pairs.append((float(cells[0]), float(cells[1])))
        except (ValueError, IndexError):
            if line.strip() and number > 1:  # the first line may name the columns
                raise QuestionError(f"line {number} of {shown(path)} is not tokens,count.") from None
    try:
        return Lengths(tokens=tuple(t for t, _ in pairs), weights=tuple(w for _, w in pairs))
    except ValueError as error:
        raise QuestionError(f"{shown(path)} is not a histogram of lengths: {error}.") from None


def request_rows(records: Iterable[Record]) -> str:
    """One CSV row a request, in the order in which they came."""
    lines = ["arrival_s,input_tokens,output_tokens,cached_tokens,queue_s,ttft_s,tpot_s,e2e_s,preemptions"]
    for r in records:
        tpot = "" if r.tpot_s is None else f"{r.tpot_s:.6g}"
        lines.append(
            f"{r.arrival_s:.6f},{r.input_tokens},{r.output_tokens},{r.cached_tokens},{r.queue_s:.6g},{r.ttft_s:.6g},{tpot},"
            f"{r.latency_s:.6g},{r.preemptions}"
        )
    return "\n".join(lines) + "\n"
