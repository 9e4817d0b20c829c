"""The replicas of a deployment behind one balancer: each request goes to the one with the fewest unanswered.

vLLM's own balancer (v1/engine/core_client.py, `get_core_engine_for_request`) counts waiting and running requests alike while the
cache is less than half full, which is this rule; it sees them 0.1 s late, which is left out.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from advisor.serving.simulator import FollowUp, Simulator
from advisor.specs.simulation import Moment
from advisor.specs.trace import Request

MOMENTS = 120  # looks at the queues over a run
GROWTH, CROWD = 1.5, 0.02  # a queue that is so much longer at the end, and holds such a share of all requests, grows
DRAIN_S = 600.0  # after the last arrival, before what is left counts as unanswered


class Fleet:
    """`replicas` that serve one stream of requests."""

    def __init__(self, replicas: list[Simulator]) -> None:
        self.replicas = replicas
        self.moments: list[Moment] = []
        self.unanswered = 0
        self._waited_halfway = self._waited_at_end = 0

    def run(self, arrivals: Iterable[Request], *, last_s: float, follow_up: FollowUp | None = None) -> None:
        """Serve `arrivals` (in order of time, the last at about `last_s`), and what `follow_up` sends after an answer."""
        pending: list[tuple[float, int, Request]] = []  # follow-ups on their way, by time
        count = 0

        def answered(now_s: float) -> None:
            nonlocal count
            following = follow_up(now_s) if follow_up else None
            if following is not None:
                count += 1
                heapq.heappush(pending, (following.arrival_s, count, following))

        for replica in self.replicas:
            replica.answered = answered if follow_up else None
        due = _Due(self.replicas)
        upcoming = iter(arrivals)
        following = next(upcoming, None)
        look_s = step_s = last_s / MOMENTS
        while True:
            sent_s = min(following.arrival_s if following else math.inf, pending[0][0] if pending else math.inf)
            next_s = due.next_s()
            now_s = min(sent_s, next_s)
            if now_s == math.inf or (not math.isinf(last_s) and now_s > last_s + DRAIN_S):
                break
            while look_s <= now_s and len(self.moments) < 4 * MOMENTS:
                self._look(look_s)
                look_s += step_s
            if sent_s > next_s:
                due.step()
                continue
            if following is not None and following.arrival_s <= sent_s:
                request, following = following, next(upcoming, None)
                if following is None:
                    self._waited_at_end = self._waiting()
            else:
                request = heapq.heappop(pending)[2]
            index = min(range(len(self.replicas)), key=lambda i: self.replicas[i].outstanding)
            self.replicas[index].send(request)
            due.changed(index)
        self.unanswered = sum(replica.outstanding for replica in self.replicas) + len(pending)

    @property
    def overloaded(self) -> bool:
        """Whether the queue grew all the time: longer at the last arrival than halfway, and more than a moment's crowd."""
        sent = sum(replica.sent for replica in self.replicas)
        return self._waited_at_end > max(10, GROWTH * self._waited_halfway, CROWD * sent)

    def _waiting(self) -> int:
        return sum(replica.outstanding - replica.running for replica in self.replicas)

    def _look(self, at_s: float) -> None:
        running = sum(replica.running for replica in self.replicas)
        self.moments.append(Moment(at_s=at_s, running=running, waiting=self._waiting()))
        if len(self.moments) == MOMENTS // 2:
            self._waited_halfway = self._waiting()


class _Due:
    """Which replica has something to do next. An entry holds as long as its time is the replica's last known one."""

    def __init__(self, replicas: list[Simulator]) -> None:
        self._replicas = replicas
        self._times = [math.inf] * len(replicas)
        self._heap: list[tuple[float, int]] = []

    def next_s(self) -> float:
        """When that is."""
        while self._heap and self._heap[0][0] != self._times[self._heap[0][1]]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def step(self) -> None:
        """Let it do what is due."""
        at_s, index = heapq.heappop(self._heap)
        self._times[index] = math.inf
        self._replicas[index].step(at_s)
        self.changed(index)

    def changed(self, index: int) -> None:
        """A replica has been given something, or has done something."""
        at_s = self._replicas[index].next_s
        if at_s != self._times[index]:
            self._times[index] = at_s
            if at_s < math.inf:
                heapq.heappush(self._heap, (at_s, index))
