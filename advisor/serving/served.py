"""What one replica does under a load."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One replica in its steady state, or over one benchmark run: means of its requests in seconds, rates of this replica.

    `busy`: how much of the prompts it could take in it does take; near 1 requests queue (of the formula alone).
    """

    ttft_s: float
    tpot_s: float
    latency_s: float
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    running: float
    context: float
    overloaded: bool = False
    busy: float = 0.0


def mixed(one: Served, other: Served, share: float) -> Served:
    """The mean replica where a `share` of them is like `other`: rates by replicas, times by requests."""
    requests = (1 - share) * one.requests_per_s + share * other.requests_per_s
    weight = share * other.requests_per_s / requests if requests else share

    def by_requests(first: float, second: float) -> float:
        return (1 - weight) * first + weight * second

    def by_replicas(first: float, second: float) -> float:
        return (1 - share) * first + share * second

    return replace(
        one,
        ttft_s=by_requests(one.ttft_s, other.ttft_s),
        tpot_s=by_requests(one.tpot_s, other.tpot_s),
        latency_s=by_requests(one.latency_s, other.latency_s),
        requests_per_s=requests,
        output_tokens_per_s=by_replicas(one.output_tokens_per_s, other.output_tokens_per_s),
        total_tokens_per_s=by_replicas(one.total_tokens_per_s, other.total_tokens_per_s),
        running=by_replicas(one.running, other.running),
    )
