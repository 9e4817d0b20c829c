"""A prefill pool and a decode pool simulated together: one run of a load generator over all workers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from advisor.serving.load import burst_requests
from advisor.serving.pools import Pools, Tandem, carried, decode_rate
from advisor.serving.request import Record, Request
from advisor.serving.schedulers import rules_of
from advisor.serving.schedulers.decode_pool import DecodePoolRules
from advisor.serving.simulator import Simulator
from advisor.specs.workload import Workload


def run_pools(pools: Pools, workload: Workload, *, users: int, requests: int) -> Tandem:
    """So many requests of a closed loop, from the first burst to the last token."""
    run = PoolsRun(pools, burst_requests(workload, requests))
    run.run(users)
    count, end_s = len(run.decoded), max(record.end_s for record in run.decoded)
    decode_s = [record.end_s - record.arrival_s + pools.transfer_s for record in run.decoded]
    tokens = [record.output_tokens - 1 for record in run.decoded]
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
    """All workers of both pools, each on its own clock; the one that is furthest behind takes the next step.

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
        # What each worker holds; a prefill worker computes first what came first, so that its answers come in that order.
        self._computing = [deque[Request]() for _ in self._prefill]
        self._decoding = [0] * len(self._decode)
        self.prefilled: list[Record] = []
        self.decoded: list[Record] = []

    def run(self, users: int) -> None:
        """Serve everything, so many requests at a time."""
        active = {*self._prefill, *self._decode}
        for _ in range(users):
            self._send(0.0)
        while active:
            worker = min(active, key=lambda w: w.now_s)
            others_s = min((w.now_s for w in active if w is not worker), default=math.inf)
            known = len(worker.records)
            if not worker.step(others_s + self._pools.transfer_s):
                active.discard(worker)
            for record in worker.records[known:]:
                if worker in self._prefill:
                    active.add(self._hand_over(self._prefill.index(worker), record))
                else:
                    active |= self._answered(self._decode.index(worker), record)

    def _send(self, now_s: float) -> set[Simulator]:
        """The next request of the load to a prefill worker, which answers with one token; nothing where all are sent."""
        request = next(self._upcoming, None)
        if request is None:
            return set()
        at = min(range(len(self._prefill)), key=lambda i: len(self._computing[i]))
        self._computing[at].append(request)
        self._prefill[at].send(replace(request, arrival_s=now_s, output_tokens=1))
        return {self._prefill[at]}

    def _hand_over(self, prefill: int, record: Record) -> Simulator:
        self.prefilled.append(record)
        request = self._computing[prefill].popleft()
        at = min(range(len(self._decode)), key=lambda i: self._decoding[i])
        self._decoding[at] += 1
        arrival_s = record.end_s + self._pools.transfer_s
        self._decode[at].send(replace(request, arrival_s=arrival_s, cached_tokens=request.input_tokens))
        return self._decode[at]

    def _answered(self, decode: int, record: Record) -> set[Simulator]:
        self._decoding[decode] -= 1
        self.decoded.append(record)
        return self._send(record.end_s)
