"""A workload served by the simulator: one run of a benchmark, or the steady state in the middle of a long one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from advisor.roofline.step import StepModel
from advisor.serving.capacity import Capacity, mean_context
from advisor.serving.load import burst_requests, steady_requests
from advisor.serving.record import Record
from advisor.serving.scaled import Scaled
from advisor.serving.schedulers import rules_of
from advisor.serving.served import Served
from advisor.serving.simulator import Simulator
from advisor.specs.trace import Request
from advisor.specs.workload import Workload

# A steady state is looked at after `WARM` requests a user, over `COUNTED` requests a user and at least `LEAST` in all.
WARM, COUNTED, LEAST = 3, 8, 300


def simulator(model: StepModel | Scaled, capacity: Capacity, *, jitter: bool) -> Simulator:
    """An idle replica with its engine's scheduler. `jitter`: requests come over a network, at times of their own."""
    return Simulator(model, capacity, rules_of(model.engine, model.plan, capacity), jitter=jitter)


def run_burst(model: StepModel, workload: Workload, capacity: Capacity, *, users: int, requests: int) -> Served:
    """A benchmark of so many requests on one replica, from the first burst to the last token. `users` 0: all at once."""
    replica = simulator(model, capacity, jitter=workload.mode in ("closed_loop", "open_loop"))
    upcoming = burst_requests(workload, requests)
    if not users:
        replica.run(upcoming)
    else:
        first = [request for _, request in zip(range(users), upcoming, strict=False)]

        def follow_up(now_s: float) -> Request | None:
            following = next(upcoming, None)
            return replace(following, arrival_s=now_s) if following else None

        replica.run(first, follow_up=follow_up)
    return _served(workload, list(replica.records), replica.now_s, replica.busy_s / replica.now_s if replica.now_s else 0.0)


def run_steady(model: StepModel, workload: Workload, capacity: Capacity, *, users: int = 0, rate_per_s: float = 0.0) -> Served:
    """The long run of so many users, or of Poisson arrivals at `rate_per_s`, without its start and its end."""
    replica = simulator(model, capacity, jitter=True)
    counted = max(LEAST, COUNTED * users) if users else 10 * LEAST
    warm = WARM * users if users else LEAST
    upcoming = steady_requests(workload, warm + counted, rate_per_s or 1.0)
    if users:
        apart_s = replica.model.decode_s(users, mean_context(workload)) * workload.output_tokens / users
        first = [replace(request, arrival_s=i * apart_s) for i, request in zip(range(users), upcoming, strict=False)]

        def follow_up(now_s: float) -> Request | None:
            following = next(upcoming, None)
            return replace(following, arrival_s=now_s) if following else None

        replica.run(first, follow_up=follow_up)
    else:
        replica.run(upcoming)
    records = list(replica.records)
    return _of_window(workload, records[warm : len(records) - users], records[warm - 1].end_s)


def _of_window(workload: Workload, records: Sequence[Record], from_s: float) -> Served:
    """The figures of the requests that ended in a window that begins with the end of the one before them."""
    span_s = records[-1].end_s - from_s
    decode_s = sum(record.end_s - record.first_s for record in records)
    return _served(workload, records, span_s, decode_s / span_s)


def _served(workload: Workload, records: Sequence[Record], span_s: float, running: float) -> Served:
    """Means over requests, and totals over the time."""
    count, span_s = max(1, len(records)), max(span_s, 1e-9)
    tpots = [record.tpot_s for record in records if record.tpot_s is not None]
    outputs = sum(record.output_tokens for record in records)
    return Served(
        ttft_s=math.fsum(record.ttft_s for record in records) / count,
        tpot_s=math.fsum(tpots) / len(tpots) if tpots else 0.0,
        latency_s=math.fsum(record.latency_s for record in records) / count,
        requests_per_s=len(records) / span_s,
        output_tokens_per_s=outputs / span_s,
        total_tokens_per_s=(outputs + sum(record.input_tokens for record in records)) / span_s,
        running=running,
        context=mean_context(workload),
    )
