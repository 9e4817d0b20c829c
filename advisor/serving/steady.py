"""From a step to serving: TTFT, TPOT and throughput of one replica under a load.

Symbols: `C` requests in flight, `B` of them decoding, `S` mean context, `n` prefill tokens, `d` output tokens, `T_b` token budget.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from advisor.roofline.step import StepModel
from advisor.serving.simulator import Outcome, Request, Room, frontend_stretch, simulate
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
class _State:
    """A steady state by its decode batch: users in flight, requests/s, seconds to the first token and of decoding."""

    running: float
    users: float
    rate_per_s: float
    ttft_s: float
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


def _prefill(model: StepModel, workload: Workload, room: Room, running: float, together: int) -> tuple[float, float]:
    """(seconds of one prefill, seconds it adds to the steps of `running` decodes), `together` prefills sharing a step.

    The prompt is cut into chunks of the budget that the decodes leave (E3); a chunk adds what its step takes beyond a pure
    decode step, or the whole step where prefills stall the decodes.
    """
    fresh, past, context = new_tokens(workload), workload.prefix_cached_tokens, mean_context(workload)
    mixed = model.engine.mixed_steps and running >= 1
    decodes = running if mixed else 0.0
    budget = room.token_budget * model.plan.adp
    left = max(budget - decodes, budget / 8)
    pieces = max(1, math.ceil(fresh / left)) if model.engine.chunked_prefill else 1
    group = max(1, min(together, int(left / fresh))) if pieces == 1 else 1
    prefill_s = 0.0
    for piece in range(pieces):
        chunk = (fresh / pieces, past + piece * fresh / pieces)
        prefill_s += model.mixed_s(decodes, context, [chunk] * group)
    stalled_s = pieces * model.decode_s(running, context) if mixed else 0.0
    return prefill_s, max(0.0, prefill_s - stalled_s) / group


def _state(model: StepModel, workload: Workload, room: Room, running: float) -> _State:
    """The steady state in which B = `running` sequences decode.

    While one request decodes, each of the others is replaced once, so its decode takes (E4)

        D = (d - 1) t(B) + o B a(B),    rate = B / D,    C = rate (TTFT + D),    o = 1 - 1 / C

    with a(B) what one prefill adds and o the share of the work that is others' (arrival theorem: a request of a closed loop meets
    C - 1 others; alone it meets none). TTFT = entry + o (poll/2 + wait) t + prefill + o queue (E5), the queue that of an M/D/1
    server of utilisation rate * a.
    """
    host, outputs = model.engine.host, max(0.0, workload.output_tokens - 1)
    unseen_steps = host.wait_steps + model.engine.polling_steps / 2
    step_s = model.decode_s(max(1.0, running), mean_context(workload))
    together, users = 1, max(1.0, running)
    for _ in range(4):
        others = 1 - 1 / max(1.0, users)
        prefill_s, added_s = _prefill(model, workload, room, running, together)
        decode_s = outputs * step_s + others * running * added_s if outputs else 0.0
        rate = running / decode_s if decode_s > 0 else min(running / prefill_s, 0.98 / max(added_s, 1e-9))
        busy = min(0.98, rate * added_s)
        queue_s = busy / (2 * (1 - busy)) * added_s
        entry_s = host.request_s * frontend_stretch(host.token_s, rate * workload.output_tokens)
        ttft_s = entry_s + others * (min(1.0, running) * step_s * unseen_steps + queue_s) + prefill_s
        found = rate * (ttft_s + decode_s)
        crowd = max(1, round(rate * prefill_s))
        if crowd == together and abs(found - users) <= 0.01 * users:
            break
        together, users = crowd, found
    return _State(running=running, users=found, rate_per_s=rate, ttft_s=ttft_s, decode_s=decode_s)


NEAR = 0.002  # of a load or a limit, from below, is on it, unless a batch CLOSE times as large might be too
CLOSE, SAME = 1.5, 1.004  # batches SAME times each other are one


def _where(model: StepModel, workload: Workload, room: Room, most: float, over: Callable[[_State], float]) -> _State:
    """The state with the largest decode batch up to `most` that is not over; the smallest one if all are.

    `over` says by how much a state is: the logarithm of what it has against what it may have. Regula falsi on the logarithm of
    the batch (Illinois: an end that stays counts half), kept off the ends, where jumps of `over` would hold it; halving while even
    the smallest batch is over.
    """
    found, low, high = _state(model, workload, room, most), min(0.02, most / 2), most
    above = over(found)
    if above <= 0:
        return found
    found = _state(model, workload, room, low)
    below = left = over(found)
    stayed = ""
    while high > low * (CLOSE if -NEAR <= left <= 0 else SAME):
        share = min(0.9, max(0.1, below / (below - above))) if left < 0 else 0.5
        middle = low * (high / low) ** share
        state = _state(model, workload, room, middle)
        beyond = over(state)
        if beyond > 0:
            high, above, below = middle, beyond, below / 2 if stayed == "low" else below
            stayed = "low"
        else:
            low, below, left, found, above = middle, beyond, beyond, state, above / 2 if stayed == "high" else above
            stayed = "high"
    return found


def _over(*pairs: tuple[float, float | None]) -> float:
    """The logarithm of the worst of (what there is, what may be); nothing counts against None."""
    return max(math.log(max(is_, 1e-12) / may) for is_, may in pairs if may is not None)


def steady(model: StepModel, workload: Workload, room: Room, users: float) -> Served:
    """Closed loop of `users` in the steady state: the decode batch at which C of (E4) is `users`.

    Users beyond what the cache or the batch ceiling holds wait: Little's law gives their queueing time.
    """
    inside = min(users, capacity(workload, room, reserve=model.engine.admission == "reserve"))
    state = _where(model, workload, room, inside, lambda found: _over((found.users, inside)))
    waiting_s = max(0.0, users - inside) / state.rate_per_s
    return _served(workload, state, waiting_s=waiting_s)


def open_loop(model: StepModel, workload: Workload, room: Room, rate_per_s: float) -> Served:
    """Poisson arrivals at `rate_per_s`. Beyond what the replica carries it runs full and the queue grows (said, not hidden)."""
    most = capacity(workload, room, reserve=model.engine.admission == "reserve")
    full = _where(model, workload, room, most, lambda found: _over((found.users, most)))
    if full.rate_per_s <= rate_per_s:
        wait_s = (1 - full.rate_per_s / rate_per_s) * OVERLOAD_HORIZON_S / 2
        return _served(workload, full, waiting_s=wait_s, overloaded=True)
    state = _where(model, workload, room, most, lambda found: _over((found.rate_per_s, rate_per_s)))
    return _served(workload, replace(state, rate_per_s=rate_per_s))


def saturated(model: StepModel, workload: Workload, room: Room, ceiling: float) -> Served:
    """Everything queued: the batch is always as full as the cache and the batch ceilings allow (`ceiling` 0: the engine's)."""
    most = capacity(workload, room, reserve=model.engine.admission == "reserve")
    return steady(model, workload, room, min(most, ceiling) if ceiling else most)


def as_much_as_fits(model: StepModel, workload: Workload, room: Room) -> Served:
    """The largest load within the workload's limits of TTFT and TPOT; the lightest one where none is."""
    most = capacity(workload, room, reserve=model.engine.admission == "reserve")
    outputs = max(1.0, workload.output_tokens - 1)

    def over(found: _State) -> float:
        tpot_s = found.decode_s / outputs
        return _over((found.users, most), (found.ttft_s, workload.ttft_limit_s), (tpot_s, workload.tpot_limit_s))

    state = _where(model, workload, room, most, over)
    return _served(workload, state) if state.users >= 1 else steady(model, workload, room, 1.0)


def _served(workload: Workload, state: _State, *, waiting_s: float = 0.0, overloaded: bool = False) -> Served:
    ttft_s = state.ttft_s + waiting_s
    return Served(
        ttft_s=ttft_s,
        tpot_s=state.decode_s / max(1.0, workload.output_tokens - 1),
        latency_s=ttft_s + state.decode_s,
        requests_per_s=state.rate_per_s,
        output_tokens_per_s=state.rate_per_s * workload.output_tokens,
        total_tokens_per_s=state.rate_per_s * workload.context_tokens,
        running=state.running,
        context=mean_context(workload),
        overloaded=overloaded,
    )


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
