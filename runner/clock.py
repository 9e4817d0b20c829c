"""Timing on one or many ranks: repeats of a call between barriers, the slowest rank's time counts, medians and spread.

On a GPU the device's own events tell the time, so that neither the launch of the first kernel nor the host's waiting is in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

# A measured piece lasts at least this long, or it is repeated within: clocks and launches jitter by microseconds, and a GPU's
# clocks move within milliseconds of load.
LEAST_S = {"cuda": 0.05, "cpu": 0.002}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Seconds of one call: median, and the tenth and ninetieth percentile of `repeats`."""

    median_s: float
    low_s: float
    high_s: float
    repeats: int


class Clock:
    """The clock of a group of ranks that start together. `alone` never talks to others."""

    def __init__(self, device: torch.device, *, alone: bool) -> None:
        self.device, self.alone = device, alone or not dist.is_initialized()

    def worst(self, value: float) -> float:
        """The largest value among the ranks."""
        if self.alone:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor.item())

    def mean(self, value: float) -> float:
        """The mean over the ranks."""
        if self.alone:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return float(tensor.item()) / dist.get_world_size()

    def sync(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def every(self, value: float) -> list[float]:
        """The values of all ranks, in rank order."""
        if self.alone:
            return [value]
        found = torch.zeros(dist.get_world_size(), dtype=torch.float64, device=self.device)
        found[dist.get_rank()] = value
        dist.all_reduce(found)
        return [float(x) for x in found.tolist()]

    def once(self, call: Callable[[], object], times: int = 1, *, lead: bool = False) -> float:
        """Seconds of `times` calls in a row, on the slowest rank. With `lead` one more goes before them, which is not timed: a
        collective leaves all ranks at the same moment, so that their different starts are not in the time.
        """
        return self.worst(self.own(call, times, lead=lead))

    def own(self, call: Callable[[], object], times: int = 1, *, lead: bool = False) -> float:
        """The same on this rank; all start together."""
        if not self.alone:
            dist.barrier()
        self.sync()
        if lead:
            call()
        if self.device.type != "cuda":
            start = time.perf_counter()
            for _ in range(times):
                call()
            return time.perf_counter() - start
        first, last = device_event(), device_event()
        first.record()
        for _ in range(times):
            call()
        last.record()
        self.sync()
        return float(first.elapsed_time(last)) / 1e3

    def spread(self, call: Callable[[], object], *, warmup: int, repeats: int, most_s: float) -> Spread:
        """Median and spread of one call. Fewer repeats, at least three, where all of them would take more than `most_s`."""
        first = min([self.once(call) for _ in range(max(1, warmup))])
        times = max(1, math.ceil(LEAST_S[self.device.type] / max(first, 1e-7)))
        repeats = max(3, min(repeats, int(most_s / max(first * times, 1e-9))))
        return spread_of([self.once(call, times) / times for _ in range(repeats)])


def device_event() -> torch.cuda.Event:
    """A mark in the GPU's stream that knows its time."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def spread_of(samples: list[float]) -> Spread:
    """Median and the middle 80% of some seconds."""
    ordered = sorted(samples)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

    return Spread(median_s=at(0.5), low_s=at(0.1), high_s=at(0.9), repeats=len(ordered))
