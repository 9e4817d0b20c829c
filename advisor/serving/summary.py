"""From the records of a run to percentiles, goodput and rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from advisor.serving.fleet import Fleet
from advisor.serving.record import Gaps, Record
from advisor.specs.limit import Limit

SHARES = (0.5, 0.9, 0.95, 0.99)
FIGURES = ("ttft", "tpot", "itl", "e2e", "queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run: by figure its mean and percentiles in seconds, and totals."""

    times: Mapping[str, tuple[float, ...]]  # the mean, then `SHARES`
    limited: tuple[float, ...]  # what each limit asks about
    seconds: float
    requests: int
    kept: int  # requests within every limit
    output_tokens: int
    total_tokens: int
    running: float


def summarise(fleet: Fleet, limits: Sequence[Limit]) -> Summary:
    """The figures of a run."""
    columns: dict[str, list[float]] = {"ttft": [], "tpot": [], "e2e": [], "queue": []}
    kept = outputs = total = 0
    end_s = 0.0
    for record in _records(fleet):
        columns["ttft"].append(record.ttft_s)
        columns["e2e"].append(record.latency_s)
        columns["queue"].append(record.queue_s)
        if record.tpot_s is not None:
            columns["tpot"].append(record.tpot_s)
        kept += all(_of(record, limit) <= limit.seconds for limit in limits)
        outputs += record.output_tokens
        total += record.output_tokens + record.input_tokens
        end_s = max(end_s, record.end_s)
    for column in columns.values():
        column.sort()
    gaps = Gaps()
    for replica in fleet.replicas:
        gaps.merge(replica.gaps)
    times = {name: (_mean(column), *(quantile(column, share) for share in SHARES)) for name, column in columns.items()}
    times["itl"] = (gaps.mean(), *(gaps.quantile(share) for share in SHARES))
    limited = tuple(
        quantile(columns[limit.figure], limit.share) if limit.share else _mean(columns[limit.figure]) for limit in limits
    )
    busy_s = sum(replica.busy_s for replica in fleet.replicas)
    return Summary(
        times=times, limited=limited, seconds=end_s, requests=len(columns["ttft"]), kept=kept, output_tokens=outputs,
        total_tokens=total, running=busy_s / end_s if end_s else 0.0,
    )  # fmt: skip


def _records(fleet: Fleet) -> Iterable[Record]:
    return (record for replica in fleet.replicas for record in replica.records)


def _of(record: Record, limit: Limit) -> float:
    """The time of one request that a limit bounds; a single token has no time between tokens."""
    if limit.figure == "ttft":
        return record.ttft_s
    return record.latency_s if limit.figure == "e2e" else record.tpot_s or 0.0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed, linear between neighbours (numpy's default); 0 of nothing."""
    if not ordered:
        return 0.0
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
