"""From a step to serving: TTFT, TPOT and throughput of one replica under a load.

Symbols: `C` requests in flight, `B` of them decoding, `S` mean context, `n` prefill tokens, `d` output tokens, `T_b` token budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from advisor.roofline.step import StepModel
from advisor.serving.capacity import Capacity, mean_context, sequences_at_once
from advisor.serving.front_end import frontend_stretch
from advisor.serving.served import Served
from advisor.specs.workload import Workload

OVERLOAD_HORIZON_S = 600.0  # a queue that grows without end is looked at after ten minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """A steady state by its decode batch: users in flight, those of them admitted, requests/s, seconds to the first token and of
    decoding, and the share of the prompts it can take that it does take."""

    running: float
    users: float
    admitted: float
    rate_per_s: float
    ttft_s: float
    decode_s: float
    busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prefill:
    """A prompt of the workload in the steps of a replica, in seconds.

    `own_s` from its first chunk to its first token, `added_s` what it adds to the decodes, `step_s` the step that carries it (its
    longest). A step with a full budget lasts `full_step_s` and takes `at_once` prompts (a share of one where it is cut).
    """

    own_s: float
    added_s: float
    step_s: float
    at_once: float
    full_step_s: float

    @property
    def full_s(self) -> float:
        """Seconds of the full steps that a prompt takes part in."""
        return self.full_step_s * max(1.0, 1 / self.at_once)

    @property
    def served_s(self) -> float:
        """Seconds between two prompts where steps are full."""
        return self.full_s / max(1.0, self.at_once)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Prompts that share a step: the mean over steps, and the mean that a prompt meets (itself counted)."""

    mean: float
    met: float


def new_tokens(workload: Workload) -> float:
    """Prompt tokens that are not found in the prefix cache."""
    return workload.input_tokens - workload.prefix_cached_tokens


def _prefill(model: StepModel, workload: Workload, capacity: Capacity, running: float, group: _Group) -> _Prefill:
    """One prompt beside `running` decodes, a group of prompts sharing a step as far as its budget reaches.

    The prompt is cut into chunks of the budget that the decodes leave (E3); a chunk adds what its step takes beyond a pure
    decode step, or the whole step where prefills stall the decodes.
    """
    fresh, past, context = new_tokens(workload), workload.prefix_cached_tokens, mean_context(workload)
    scheduler = model.engine.scheduler
    decodes = running if scheduler.mixed_steps and running >= 1 else 0.0
    budget = capacity.token_budget * model.plan.adp * model.plan.pp
    left = max(budget - decodes, budget / 8)
    at_once = left / fresh
    pieces = max(1, math.ceil(fresh / left)) if scheduler.chunked_prefill else 1

    def steps_s(prompts: float) -> list[float]:
        prompts = max(1.0, min(prompts, at_once)) if pieces == 1 else 1.0
        size = fresh / pieces
        return [_carrying_s(model, decodes, context, prompts, size, past + piece * size) for piece in range(pieces)]

    each_s = steps_s(group.mean)
    own_s = sum(each_s if group.met - group.mean < 0.1 or pieces > 1 else steps_s(group.met))
    alone_s = model.decode_s(decodes, context) if decodes else 0.0
    together = max(1.0, min(group.mean, at_once)) if pieces == 1 else 1.0
    added_s = max(0.0, sum(each_s) - pieces * alone_s) / together
    return _Prefill(
        own_s=own_s, added_s=added_s, step_s=max(each_s), at_once=at_once, full_step_s=alone_s + added_s * at_once
    )  # fmt: skip


def _carrying_s(model: StepModel, decodes: float, context: float, prompts: float, new: float, past: float) -> float:
    """A step with so many prompts; between two whole numbers of them the time is interpolated."""
    whole, part = int(prompts), prompts % 1
    low_s = model.mixed_s(decodes, context, [(new, past)] * whole)
    if part < 0.01:
        return low_s
    return low_s * (1 - part) + model.mixed_s(decodes, context, [(new, past)] * (whole + 1)) * part


def _state(model: StepModel, workload: Workload, capacity: Capacity, running: float, *, closed: bool = True) -> _State:
    """The steady state in which B = `running` sequences decode.

    While one request decodes, each of the others is replaced once, so its decode takes (E4)

        D = (d - 1) / l t(1 + o B) + o B a / (1 - q),    rate = B / D,    C = rate (TTFT + D),    o = 1 - 1 / C

    (at most d - 1 steps with a full budget, where prompts and decodes share steps)
    with l the tokens that a step yields (1 without speculative decoding), a what one prefill adds, o the share of the work that is
    others' (arrival theorem: a request of a closed loop meets C - 1 others, alone it meets none; with open arrivals, `closed`
    False, it meets them all and o = 1), and q the share of its time in which its own prompt keeps the prompts of others out. See
    `_wait_s` for TTFT.
    """
    host, outputs = model.engine.host, max(0.0, workload.output_tokens - 1) / model.tokens_per_step
    users, group, alone = max(1.0, running), _Group(mean=1.0, met=1.0), 0.0
    for _ in range(8):
        others = 1 - 1 / max(1.0, users) if closed else 1.0
        step_s = model.decode_s(1 + others * running, mean_context(workload))
        stalled = others * running / (1 - alone)
        prefill = _prefill(model, workload, capacity, stalled, group)
        decode_s = outputs * step_s + stalled * prefill.added_s if outputs else 0.0
        if model.engine.scheduler.mixed_steps:
            decode_s = min(decode_s, outputs * prefill.full_step_s)
        rate = running / decode_s if decode_s > 0 else min(running / prefill.own_s, 0.98 / max(prefill.added_s, 1e-9))
        meets = 1 - (1 - min(1.0, running / users)) ** (users - 1) if closed else 1 - math.exp(-rate * (prefill.own_s + decode_s))
        wait_s = _wait_s(model, prefill, step_s, others * rate, group.mean, meets, users if closed else math.inf)
        entry_s = host.request_s * frontend_stretch(host.token_s, rate * workload.output_tokens)
        ttft_s = entry_s + wait_s + prefill.own_s
        found = rate * (ttft_s + decode_s)
        crowd = _group(others * rate * prefill.step_s, others * rate * step_s)
        settled = abs(crowd.mean - group.mean) <= 0.01 * group.mean and abs(found - users) <= 0.005 * users
        group, users = crowd, max(1.0, found) if closed else found
        alone = min(0.5, rate * prefill.own_s / found / group.mean)
        if settled:
            break
    admitted = rate * (prefill.own_s + decode_s)
    return _State(
        running=running,
        users=found,
        admitted=admitted,
        rate_per_s=rate,
        ttft_s=ttft_s,
        decode_s=decode_s,
        busy=rate * prefill.served_s,
    )


def _group(in_prefill: float, in_decode: float) -> _Group:
    """How many prompts begin in one step, with m = `in_prefill` of them coming during a step with prompts (E6).

    Those that came during a step with prompts begin together in the next; where nobody did, exp(-m) of the time, decode steps
    follow until somebody does: then x / (1 - exp(-x)) begin together, x = `in_decode` those of a decode step. A prompt meets
    E[k^2] / E[k] of them, k the number that begin together.
    """
    m, first = in_prefill, in_decode / -math.expm1(-in_decode) if in_decode > 1e-6 else 1.0
    mean = m + math.exp(-m) * first
    return _Group(mean=mean, met=(m * m + m + math.exp(-m) * first * (1 + in_decode)) / mean)


def _wait_s(
    model: StepModel, prefill: _Prefill, step_s: float, rate_per_s: float, together: float, meets: float, users: float
) -> float:
    """Seconds until the prompt of a request is begun (E5).

        W = (w + 1/2) T + queue,    T = v p + (b - v) t

    Steps of length t carry no prompt, steps of length p do; v is the share of time in the latter, b (`meets`) the probability that
    anything runs. A request comes in the middle of a step and waits for its end; asynchronous scheduling and polling add w steps
    (of decode steps, where the engine does not schedule ahead of a prefill). Where more prompts wait than a step carries, it
    waits for those before it (`_queue_s`).
    """
    share = min(1.0, rate_per_s * prefill.step_s / together)
    decoding_s = max(0.0, meets - share) * step_s
    met_s = decoding_s + share * prefill.step_s
    ahead_s = met_s if model.engine.scheduler.mixed_steps else meets * step_s
    unseen_steps = model.engine.host.wait_steps + (model.engine.polling_steps - 1) / 2
    queue_s = _queue_s(min(0.98, rate_per_s * prefill.served_s), prefill.at_once, prefill.full_s, users)
    return unseen_steps * ahead_s + met_s / 2 + queue_s


def _queue_s(busy: float, at_once: float, service_s: float, users: float) -> float:
    """Mean wait of a prompt for those before it: an M/D/c queue of utilisation u with c servers of `service_s` each (E7).

        W = u^sqrt(2 (c + 1)) / (2 c (1 - u)) service_s * sqrt(pi) z exp(z^2) erfc(z),    z = (1 - u) sqrt(C / (2 c))

    Sakasegawa's formula for M/M/c (1977), halved for service of fixed length, without the rest of the service in progress, which
    the step in flight stands for: c = 1 gives u^2 / (2 (1 - u)), the M/D/1 wait less u / 2. The factor with z is that of C
    users who come once a round each (sum of periodic streams, Brownian bridge: Hajek 1994); it is 1 for open arrivals.
    """
    servers = max(1.0, at_once)
    open_s = busy ** math.sqrt(2 * (servers + 1)) / (2 * servers * (1 - busy)) * service_s
    z = (1 - busy) * math.sqrt(users / (2 * servers))
    return float(open_s * (math.sqrt(math.pi) * z * math.exp(z * z) * math.erfc(z) if z < 5 else 1.0))


FULL = 0.98  # a state with fewer of the users than this share is bounded by the cache, not by the load
NEAR = 0.002  # of a load or a limit, from below, is on it, unless a batch CLOSE times as large might be too
CLOSE, SAME = 1.5, 1.004  # batches SAME times each other are one


def _where(state: Callable[[float], _State], most: float, over: Callable[[_State], float]) -> _State:
    """The state with the largest decode batch up to `most` that is not over; the smallest one if all are.

    `over` says by how much a state is: the logarithm of what it has against what it may have. Regula falsi on the logarithm of
    the batch (Illinois: an end that stays counts half), kept off the ends, where jumps of `over` would hold it; halving while even
    the smallest batch is over.
    """
    found, low, high = state(most), min(0.02, most / 2), most
    above = over(found)
    if above <= 0:
        return found
    found = state(low)
    below = left = over(found)
    stayed = ""
    while high > low * (CLOSE if -NEAR <= left <= 0 else SAME):
        share = min(0.9, max(0.1, below / (below - above))) if left < 0 else 0.5
        middle = low * (high / low) ** share
        at_middle = state(middle)
        beyond = over(at_middle)
        if beyond > 0:
            high, above, below = middle, beyond, below / 2 if stayed == "low" else below
            stayed = "low"
        else:
            low, below, left, found, above = middle, beyond, beyond, at_middle, above / 2 if stayed == "high" else above
            stayed = "high"
    return found


def _over(*pairs: tuple[float, float | None]) -> float:
    """The logarithm of the worst of (what there is, what may be); nothing counts against None."""
    return max(math.log(max(is_, 1e-12) / may) for is_, may in pairs if may is not None)


def steady(model: StepModel, workload: Workload, capacity: Capacity, users: float) -> Served:
    """Closed loop of `users` in the steady state: the decode batch at which C of (E4) is `users`.

    Users beyond what the cache or the batch ceiling holds wait: Little's law gives their queueing time.
    """
    most = _most(model, workload, capacity)
    state = _where(
        lambda running: _state(model, workload, capacity, running), min(users, most),
        lambda found: _over((found.users, users), (found.admitted, most), (found.busy, 1.0)),
    )  # fmt: skip
    in_time_s = users / state.rate_per_s - state.ttft_s - state.decode_s
    return _served(workload, state, waiting_s=in_time_s if state.users < FULL * users else 0.0)


def open_loop(model: StepModel, workload: Workload, capacity: Capacity, rate_per_s: float) -> Served:
    """Poisson arrivals at `rate_per_s`. Beyond what the replica carries it runs full and the queue grows (said, not hidden)."""
    most = _most(model, workload, capacity)

    def state(running: float) -> _State:
        return _state(model, workload, capacity, running, closed=False)

    full = _where(state, most, lambda found: _over((found.admitted, most), (found.busy, 1.0)))
    if full.rate_per_s <= rate_per_s:
        wait_s = (1 - full.rate_per_s / rate_per_s) * OVERLOAD_HORIZON_S / 2
        return _served(workload, full, waiting_s=wait_s, overloaded=True)
    found = _where(state, most, lambda found: _over((found.rate_per_s, rate_per_s)))
    return _served(workload, replace(found, rate_per_s=rate_per_s))


def _most(model: StepModel, workload: Workload, capacity: Capacity) -> float:
    return sequences_at_once(workload, capacity, reserve=model.engine.scheduler.reserves_output)


def saturated(model: StepModel, workload: Workload, capacity: Capacity, ceiling: float) -> Served:
    """Everything queued: the batch is always as full as the cache and the batch ceilings allow (`ceiling` 0: the engine's)."""
    most = _most(model, workload, capacity)
    return steady(model, workload, capacity, min(most, ceiling) if ceiling else most)


def as_much_as_fits(model: StepModel, workload: Workload, capacity: Capacity) -> Served:
    """The largest load within the workload's limits of TTFT and TPOT; the lightest one where none is."""
    most = _most(model, workload, capacity)
    outputs = max(1.0, workload.output_tokens - 1)

    def over(found: _State) -> float:
        tpot_s = found.decode_s / outputs
        return _over(
            (found.admitted, most), (found.busy, 1.0), (found.ttft_s, workload.ttft_limit_s), (tpot_s, workload.tpot_limit_s)
        )

    state = _where(lambda running: _state(model, workload, capacity, running), most, over)
    return _served(workload, state) if state.users >= 1 else steady(model, workload, capacity, 1.0)


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
        busy=min(1.0, state.busy),
    )
