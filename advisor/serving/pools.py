"""A prefill pool and a decode pool in tandem, in the steady state.

Symbols: `C` requests in flight, `N_p`, `N_d` workers, `B` decoding sequences of a decode worker, `n`, `d` prompt and output tokens,
`X` seconds of the KV transfer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from advisor.roofline.step import StepModel
from advisor.serving.capacity import Capacity, mean_context, sequences_at_once
from advisor.serving.steady import new_tokens
from advisor.specs.workload import Workload

FULL = 0.995  # of what the tandem carries: closer to it the queue of the formula has no end


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Both pools as the formulas see them: a worker of each, how many there are, and the transfer between them."""

    prefill: StepModel
    decode: StepModel
    prefill_capacity: Capacity
    decode_capacity: Capacity
    prefill_workers: int
    decode_workers: int
    transfer_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tandem:
    """The steady state of both pools: request figures in seconds, the rate of the whole deployment, and how busy each pool is.

    `running` counts decoding sequences of one decode worker; `waiting` requests of the deployment that have no place yet. A decode
    pool is fully busy at the largest batch that keeps the limit of TPOT.
    """

    ttft_s: float
    tpot_s: float
    latency_s: float
    requests_per_s: float
    running: float
    waiting: float
    prefill_busy: float
    decode_busy: float


def prefill_s(pools: Pools, workload: Workload, together: int) -> float:
    """Seconds of a prefill step that carries `together` prompts, cut into chunks of the token budget."""
    model, fresh, past = pools.prefill, new_tokens(workload), workload.prefix_cached_tokens
    budget = pools.prefill_capacity.token_budget * model.plan.adp
    pieces = max(1, math.ceil(together * fresh / budget))
    each = max(1, math.ceil(together / pieces))
    share = min(1.0, together / pieces)
    chunks = [[(fresh * share, past + piece * share * fresh)] * each for piece in range(pieces)]
    return sum(model.mixed_s(0.0, 0.0, chunk) for chunk in chunks)


def prompts_together(pools: Pools, workload: Workload) -> int:
    """Prompts that a full prefill step carries, one at least on each attention-DP rank."""
    adp = pools.prefill.plan.adp
    return adp * max(1, int(pools.prefill_capacity.token_budget / new_tokens(workload)))


def decode_s(pools: Pools, workload: Workload, running: float) -> float:
    """Seconds from the second token to the last with `running` sequences on the worker: (d - 1) / length steps of t(B)."""
    steps = max(0.0, workload.output_tokens - 1) / pools.decode.tokens_per_step
    return steps * pools.decode.decode_s(max(1.0, running), mean_context(workload))


def most_running(pools: Pools, workload: Workload) -> float:
    """Sequences that the cache and the batch ceiling of a decode worker hold; room is kept for the whole output."""
    return sequences_at_once(workload, pools.decode_capacity, reserve=True)


def decode_rate(pools: Pools, workload: Workload) -> float:
    """Requests/s of one worker with the largest batch that keeps the limit of TPOT; 0 where a single sequence misses it."""
    most, outputs = most_running(pools, workload), max(1.0, workload.output_tokens - 1)
    limit_s = math.inf if workload.tpot_limit_s is None else workload.tpot_limit_s * outputs - pools.transfer_s

    def rate(running: float) -> float:
        whole_s = decode_s(pools, workload, running)
        return running / whole_s if whole_s > 0 else math.inf

    if decode_s(pools, workload, 1.0) > limit_s:
        return 0.0
    if decode_s(pools, workload, most) <= limit_s:
        return rate(most)
    low, high = 1.0, most
    while high > low * 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if decode_s(pools, workload, middle) <= limit_s else (low, middle)
    return rate(low)


def carried(pools: Pools, workload: Workload) -> tuple[float, float]:
    """(D6) Requests/s that each pool carries alone: N_p g / t_p(g) with g prompts a step, and N_d B / D(B) with a full worker."""
    group, most = prompts_together(pools, workload), most_running(pools, workload)
    by_prefill = pools.prefill_workers * group / prefill_s(pools, workload, group)
    whole = decode_s(pools, workload, most)
    return by_prefill, pools.decode_workers * most / whole if whole else math.inf


def tandem(pools: Pools, workload: Workload, rate_per_s: float) -> Tandem:
    """(D7) Both pools at a rate below what they carry.

    Prefill: TTFT = entry + t_p(g) + W, with g = max(1, rate t_p / N_p) prompts that meet in a step and
    W = busy / (2 (1 - busy)) t_p, the wait for a server of fixed service time. Decode: B = rate D(B) / N_d. A request is in
    flight for TTFT + X + D; its first token comes from the prefill worker, so X is part of the time per output token.
    """
    by_prefill, _ = carried(pools, workload)
    host = pools.prefill.engine.host
    busy = min(FULL, rate_per_s / by_prefill)
    single = prefill_s(pools, workload, 1)
    ttft_s = host.request_s + single + busy / (2 * (1 - busy)) * single
    most = most_running(pools, workload)
    running = _root(lambda b: b / max(decode_s(pools, workload, b), 1e-12) - rate_per_s / pools.decode_workers, 1e-3, most)
    whole = decode_s(pools, workload, running)
    outputs = max(1.0, workload.output_tokens - 1)
    return Tandem(
        ttft_s=ttft_s,
        tpot_s=(pools.transfer_s + whole) / outputs,
        latency_s=ttft_s + pools.transfer_s + whole,
        requests_per_s=rate_per_s,
        running=running,
        waiting=0.0,
        prefill_busy=busy,
        decode_busy=min(1.0, rate_per_s / (pools.decode_workers * decode_rate(pools, workload) or math.inf)),
    )


def closed_loop(pools: Pools, workload: Workload, users: float) -> Tandem:
    """(D8) `users` requests in flight: the rate at which C = rate (TTFT + X + D). Users beyond what a pool carries wait."""
    top = FULL * min(carried(pools, workload))
    full = tandem(pools, workload, top)
    inside = full.requests_per_s * full.latency_s
    if inside <= users:
        waiting_s = (users - inside) / top
        return Tandem(
            ttft_s=full.ttft_s + waiting_s,
            tpot_s=full.tpot_s,
            latency_s=full.latency_s + waiting_s,
            requests_per_s=top,
            running=full.running,
            waiting=users - inside,
            prefill_busy=full.prefill_busy,
            decode_busy=full.decode_busy,
        )

    def over(rate: float) -> float:
        return rate * tandem(pools, workload, rate).latency_s - users

    return tandem(pools, workload, _root(over, top * 1e-6, top))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses zero, to 0.1%; an end where it does not."""
    if rising(low) >= 0:
        return low
    if rising(high) <= 0:
        return high
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return math.sqrt(low * high)
