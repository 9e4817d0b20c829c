"""From a step to serving: TTFT, TPOT and throughput of one replica under a load.

Symbols: `C` requests in flight, `B` of them decoding, `S` mean context, `n` prefill tokens, `d` output tokens, `T_b` token budget.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from advisor.roofline.simulate import Outcome, Request, Room, frontend_stretch, simulate
from advisor.roofline.step import StepModel
from advisor.specs.workload import Workload

SEED = 0
MOST_BUSY = 1000.0  # where nothing decodes: a prefill that is 99.9% busy
OVERLOAD_HORIZON_S = 600.0  # a queue that grows without end is looked at after ten minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One replica in its steady state (or over one benchmark run). Times in seconds, rates of this replica."""

    ttft_s: float
    tpot_s: float
    latency_s: float
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    running: float
    context: float
    overloaded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mix:
    """What a request costs when `B` others decode: its own prefill, what it adds to their steps, and a pure decode step."""

    prefill_s: float
    added_s: float
    decode_s: float


def mean_context(workload: Workload) -> float:
    """Cached tokens of a decoding sequence, averaged over its output: n + d / 2."""
    return workload.input_tokens + workload.output_tokens / 2


def new_tokens(workload: Workload) -> float:
    """Prompt tokens that are not found in the prefix cache."""
    return workload.input_tokens - workload.prefix_cached_tokens


def capacity(workload: Workload, room: Room, *, reserve: bool) -> float:
    """Sequences the cache holds at once: whole ones where the output is reserved, ones at mean length where it is not."""
    held = workload.context_tokens if reserve else mean_context(workload)
    return max(1.0, min(float(room.max_sequences), room.kv_tokens / held))


def _mix(model: StepModel, workload: Workload, room: Room, running: float) -> _Mix:
    """Costs at a decode batch of `running`: the prefill is cut into chunks of the budget that the decodes leave (E3)."""
    running = max(0.0, running)
    context = mean_context(workload)
    decode_s = model.decode_s(max(1.0, running), context)
    fresh, past = new_tokens(workload), workload.prefix_cached_tokens
    mixed = model.engine.mixed_steps
    budget = room.token_budget * model.plan.adp
    left = max(budget - (running if mixed else 0.0), budget / 8)
    pieces = max(1, math.ceil(fresh / left)) if model.engine.chunked_prefill else 1
    prefill_s = added_s = 0.0
    for piece in range(pieces):
        chunk = [(fresh / pieces, past + piece * fresh / pieces)]
        step_s = model.mixed_s(running if mixed else 0.0, context, chunk)
        prefill_s += step_s
        added_s += step_s - (decode_s if mixed and running >= 1 else 0.0)
    return _Mix(prefill_s=prefill_s, added_s=max(added_s, 0.0), decode_s=decode_s)


def _at_running(model: StepModel, workload: Workload, room: Room, running: float) -> tuple[float, float, float]:
    """(rate, TTFT, decode time of a request) of a replica in which `running` = B sequences decode.

    D = (d - 1) t / (1 - rate * added) (E4): every prefill that passes stretches the steps of those that decode. With B = rate * D
    this is rate = B / ((d - 1) t + B * added): closed, so that a load is found by one search over B.
    TTFT = request + half a step + prefill + queue, the queue of an M/D/1 server of utilisation rate * added (E5).
    """
    mix = _mix(model, workload, room, running)
    outputs, added_s = max(0.0, workload.output_tokens - 1), max(mix.added_s, 1e-9)
    if outputs > 0:
        rate_per_s = running / (outputs * mix.decode_s + running * added_s)
        decode_s = running / rate_per_s
    else:  # nothing decodes: `running` only says how busy the prefill is
        rate_per_s, decode_s = running / (1 + running) / added_s, 0.0
    busy = min(0.999, rate_per_s * added_s)
    queue_s = busy / (2 * (1 - busy)) * added_s
    in_flight_s = min(1.0, running) * mix.decode_s * (0.5 + model.engine.host.wait_steps)
    entry_s = model.engine.host.request_s * frontend_stretch(model.engine.host.token_s, rate_per_s * workload.output_tokens)
    return rate_per_s, entry_s + in_flight_s + mix.prefill_s + queue_s, decode_s


def _root(excess: Callable[[float], float], high: float) -> float:
    """Where a rising function of 0..`high` is zero, to a thousandth: regula falsi (Illinois); `high` where it stays below."""
    above = excess(high)
    if above <= 0:
        return high
    low = high * 1e-6
    below = excess(low)
    if below >= 0:
        return low
    side, at = 0, high
    for _ in range(40):
        at = (low * above - high * below) / (above - below)
        value = excess(at)
        if abs(value) <= 0.001 or high - low <= 0.001 * high:
            break
        if value > 0:
            high, above = at, value
            below = below / 2 if side == 1 else below
            side = 1
        else:
            low, below = at, value
            above = above / 2 if side == -1 else above
            side = -1
    return at


def steady(model: StepModel, workload: Workload, room: Room, users: float) -> Served:
    """Closed loop of `users` in the steady state: the rate at which C = rate * (TTFT + D) holds (E6).

    Users beyond what the cache or the batch ceiling holds wait: Little's law gives their queueing time.
    """
    reserve = model.engine.admission == "reserve"
    inside = min(users, capacity(workload, room, reserve=reserve))

    def excess(running: float) -> float:
        rate, ttft_s, decode_s = _at_running(model, workload, room, running)
        return rate * (ttft_s + decode_s) / inside - 1

    running = _root(excess, inside if workload.output_tokens > 1 else MOST_BUSY * inside)
    rate, ttft_s, decode_s = _at_running(model, workload, room, running)
    waiting_s = max(0.0, (users - inside) / rate)
    return _served(workload, rate, ttft_s + waiting_s, decode_s, running, overloaded=False)


def _served(workload: Workload, rate_per_s: float, ttft_s: float, decode_s: float, running: float, *, overloaded: bool) -> Served:
    outputs = max(1.0, workload.output_tokens - 1)
    return Served(
        ttft_s=ttft_s,
        tpot_s=decode_s / outputs,
        latency_s=ttft_s + decode_s,
        requests_per_s=rate_per_s,
        output_tokens_per_s=rate_per_s * workload.output_tokens,
        total_tokens_per_s=rate_per_s * workload.context_tokens,
        running=running,
        context=mean_context(workload),
        overloaded=overloaded,
    )


def open_loop(model: StepModel, workload: Workload, room: Room, rate_per_s: float) -> Served:
    """Poisson arrivals at `rate_per_s`. Beyond what the replica carries it runs full and the queue grows (said, not hidden)."""
    reserve = model.engine.admission == "reserve"
    most = capacity(workload, room, reserve=reserve)

    def excess(running: float) -> float:
        return _at_running(model, workload, room, running)[0] / rate_per_s - 1

    running = _root(excess, most)
    rate, ttft_s, decode_s = _at_running(model, workload, room, running)
    if rate >= 0.99 * rate_per_s and running + rate * ttft_s <= most:
        return _served(workload, rate_per_s, ttft_s, decode_s, running, overloaded=False)
    full = steady(model, workload, room, most)
    if full.requests_per_s >= rate_per_s:
        return full
    wait_s = (1 - full.requests_per_s / rate_per_s) * OVERLOAD_HORIZON_S / 2
    return _served(workload, full.requests_per_s, full.ttft_s + wait_s, full.latency_s - full.ttft_s, full.running, overloaded=True)


def saturated(model: StepModel, workload: Workload, room: Room) -> Served:
    """Everything queued: the batch is always as full as cache and ceiling allow."""
    return steady(model, workload, room, capacity(workload, room, reserve=model.engine.admission == "reserve"))


def _lengths(workload: Workload, count: int) -> list[tuple[float, float]]:
    """Lengths uniform between spread and 1 of the nominal ones, stratified and shuffled with a fixed seed."""
    inputs, outputs = new_tokens(workload), workload.output_tokens
    if workload.length_spread >= 1.0:
        return [(inputs, outputs)] * count
    draw = random.Random(SEED)
    low = workload.length_spread
    shares = [low + (1 - low) * (i + 0.5) / count for i in range(count)]
    first, second = shares[:], shares[:]
    draw.shuffle(first)
    draw.shuffle(second)
    return [(max(1.0, round(inputs * a)), max(1.0, round(outputs * b))) for a, b in zip(first, second, strict=True)]


def run(model: StepModel, workload: Workload, room: Room, *, users: int, requests: int) -> Served:
    """A benchmark of so many requests on one replica, from the first burst to the last token, by simulation."""
    lengths = _lengths(workload, requests)
    if workload.mode == "open_loop":
        draw, at, sent = random.Random(SEED), 0.0, []
        for n, d in lengths:
            sent.append(Request(arrival_s=at, input_tokens=n, output_tokens=d))
            at += draw.expovariate(workload.rate_per_s)
        outcome = simulate(model, sent, room)
    else:
        sent = [Request(arrival_s=0.0, input_tokens=n, output_tokens=d) for n, d in lengths]
        outcome = simulate(model, sent, room, users=users if workload.mode == "closed_loop" else 0)
    return _measured(workload, outcome)


def _measured(workload: Workload, outcome: Outcome) -> Served:
    span = max(outcome.makespan_s, 1e-9)
    return Served(
        ttft_s=outcome.ttft_s,
        tpot_s=outcome.tpot_s,
        latency_s=outcome.latency_s,
        requests_per_s=outcome.requests / span,
        output_tokens_per_s=outcome.output_tokens / span,
        total_tokens_per_s=(outcome.output_tokens + outcome.input_tokens) / span,
        running=outcome.mean_running,
        context=mean_context(workload),
    )
