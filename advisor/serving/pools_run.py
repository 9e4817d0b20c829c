"""A prefill pool and a decode pool simulated together: one run of a load generator over all workers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from advisor.serving.load import burst_requests
from advisor.serving.pools import Pools, Tandem, carried, decode_rate
from advisor.serving.record import Record
from advisor.serving.schedulers import rules_of
from advisor.serving.schedulers.decode_pool import DecodePoolRules
from advisor.serving.simulator import Simulator
from advisor.specs.trace import Request
from advisor.specs.workload import Workload


def run_pools(pools: Pools, workload: Workload, *, users: int, requests: int) -> Tandem:
    """So many requests of a closed loop, from the first burst to the last token."""
    run = PoolsRun(pools, burst_requests(workload, requests))
    run.run(users)
    decoded = run.decoded
    count, end_s = len(decoded), max(record.end_s for record in decoded)
    decode_s = [record.end_s - record.arrival_s + pools.transfer_s for record in decoded]
    tokens = [record.output_tokens - 1 for record in decoded]
    ttft_s = math.fsum(record.ttft_s for record in run.prefilled) / count
    rate = count / end_s
    return Tandem(
        ttft_s=ttft_s,
        tpot_s=math.fsum(s / n for s, n in zip(decode_s, tokens, strict=True) if n) / count,
        latency_s=ttft_s + math.fsum(decode_s) / count,
        requests_per_s=rate,
        running=math.fsum(decode_s) / end_s / pools.decode_workers,
        waiting=0.0,
        prefill_busy=min(1.0, rate / carried(pools, workload)[0]),
        decode_busy=min(1.0, rate / (pools.decode_workers * decode_rate(pools, workload) or math.inf)),
    )


class PoolsRun:
    """All workers of both pools, each on its own clock; whoever has the next thing to do does it.

    A request goes to the prefill worker with the fewest requests. With its first token it leaves for the decode worker with the
    fewest, where its cache is `transfer_s` later.
    """

    def __init__(self, pools: Pools, upcoming: Iterator[Request]) -> None:
        self._pools, self._upcoming = pools, upcoming
        prefill, decode = pools.prefill_capacity, pools.decode_capacity
        self._prefill = [
            Simulator(pools.prefill, prefill, rules_of(pools.prefill.engine, pools.prefill.plan, prefill), jitter=True)
            for _ in range(pools.prefill_workers)
        ]
        rules = pools.decode.engine.scheduler
        self._decode = [
            Simulator(pools.decode, decode, DecodePoolRules(rules, most=decode.max_sequences)) for _ in range(pools.decode_workers)
        ]
        for at, worker in enumerate(self._prefill):
            worker.answered = partial(self._hand_over, at)
        for at, worker in enumerate(self._decode):
            worker.answered = partial(self._answered, at)
        # A prefill worker computes first what came first, so that its answers come in that order.
        self._computing = [deque[Request]() for _ in self._prefill]

    @property
    def prefilled(self) -> list[Record]:
        """What the prefill workers answered: one token each."""
        return [record for worker in self._prefill for record in worker.records]

    @property
    def decoded(self) -> list[Record]:
        """What the decode workers answered; `arrival_s` is when the cache was there."""
        return [record for worker in self._decode for record in worker.records]

    def run(self, users: int) -> None:
        """Serve everything, so many requests at a time."""
        workers = [*self._prefill, *self._decode]
        for _ in range(users):
            self._send(0.0)
        while (at_s := min(worker.next_s for worker in workers)) < math.inf:
            for worker in workers:
                if worker.next_s <= at_s:
                    worker.step(at_s)

    def _send(self, now_s: float) -> None:
        """The next request of the load to a prefill worker, which answers with one token; nothing where all are sent."""
        request = next(self._upcoming, None)
        if request is not None:
            at = min(range(len(self._prefill)), key=lambda i: self._prefill[i].outstanding)
            self._computing[at].append(request)
            self._prefill[at].send(replace(request, arrival_s=now_s, output_tokens=1))

    def _hand_over(self, prefill: int, now_s: float) -> None:
        request = self._computing[prefill].popleft()
        at = min(range(len(self._decode)), key=lambda i: self._decode[i].outstanding)
        self._decode[at].send(replace(request, arrival_s=now_s + self._pools.transfer_s, cached_tokens=request.input_tokens))

    def _answered(self, decode: int, now_s: float) -> None:
        self._send(now_s)
