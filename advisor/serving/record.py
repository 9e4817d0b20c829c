"""What is recorded about each answered request, in columns: a million requests take 50 MB."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from advisor.serving.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One answered request. Times are seconds since the start of the run.

    `admitted_s` is when its first prompt token was scheduled, `first_s` when its first output token was sent, `end_s` the last.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    admitted_s: float
    first_s: float
    end_s: float
    preemptions: int

    @property
    def queue_s(self) -> float:
        """From sending until its prompt is first scheduled."""
        return self.admitted_s - self.arrival_s

    @property
    def ttft_s(self) -> float:
        """From sending to the first token."""
        return self.first_s - self.arrival_s

    @property
    def latency_s(self) -> float:
        """From sending to the last token."""
        return self.end_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """(latency - TTFT) / (output tokens - 1), as vLLM's and aiperf's clients count it; None for a single token."""
        return (self.end_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else None


class Records:
    """The answered requests of a run in the order of their ends."""

    def __init__(self) -> None:
        self._times = array("d")  # arrival, admitted, first, end of each
        self._counts = array("i")  # input, output, cached, preemptions of each

    def add(self, sequence: Sequence, end_s: float) -> None:
        """A request whose last token is sent."""
        request = sequence.request
        self._times.extend((request.arrival_s, sequence.admitted_s, sequence.first_s, end_s))
        self._counts.extend((request.input_tokens, request.output_tokens, sequence.cached_tokens, sequence.preemptions))

    def __len__(self) -> int:
        return len(self._times) // 4

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Record:
        arrival_s, admitted_s, first_s, end_s = self._times[4 * index : 4 * index + 4]
        inputs, outputs, cached, preemptions = self._counts[4 * index : 4 * index + 4]
        return Record(
            arrival_s=arrival_s, input_tokens=inputs, output_tokens=outputs, cached_tokens=cached, admitted_s=admitted_s,
            first_s=first_s, end_s=end_s, preemptions=preemptions,
        )  # fmt: skip


GAP_BINS = 100  # a natural logarithm: gaps are kept to 1%


class Gaps:
    """Times between two tokens of a request, pooled over all requests, as a histogram of logarithms."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, gap_s: float, count: int) -> None:
        """So many gaps of this length."""
        index = math.floor(math.log(gap_s) * GAP_BINS) if gap_s > 0 else -(10**6)
        self._counts[index] = self._counts.get(index, 0) + count

    def merge(self, other: Gaps) -> None:
        """The gaps of another replica beside these."""
        for index, count in other._counts.items():
            self._counts[index] = self._counts.get(index, 0) + count

    def mean(self) -> float:
        """The mean gap; 0 where there is none."""
        total = sum(self._counts.values())
        return math.fsum(math.exp((i + 0.5) / GAP_BINS) * n for i, n in self._counts.items()) / total if total else 0.0

    def quantile(self, share: float) -> float:
        """The gap that so large a share of all does not exceed; 0 where there is none."""
        left = share * sum(self._counts.values())
        for index in sorted(self._counts):
            left -= self._counts[index]
            if left <= 0:
                return math.exp((index + 0.5) / GAP_BINS)
        return 0.0
