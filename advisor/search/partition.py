"""The best groups exactly: the least worst cost, then the least sum, by dynamic programming over sets of GPUs.

Groups that differ only by interchangeable GPUs are looked at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations

from advisor.search.chains import lowest
from advisor.search.groups import Groups

EXACT_GPUS = 16
_KINDS = 600  # kinds of groups that are all looked at; a node with more is searched by swaps

_Group = tuple[float, int, tuple[int, ...]]  # cost, bits, GPUs


class Partitions:
    """Partitions of one node into disjoint groups."""

    def __init__(self, groups: Groups) -> None:
        self._groups, self._gpus, self._full = groups, groups.gpus, (1 << groups.gpus) - 1
        self._members = self._classes()
        self._known: list[list[_Group]] = []

    @property
    def is_small(self) -> bool:
        """Whether all groups can be looked at: few GPUs, or few kinds of groups."""
        if self._gpus > EXACT_GPUS:
            return False
        twin, size = self._groups.twin, self._groups.size
        return len({tuple(sorted(twin[g] for g in group)) for group in combinations(range(self._gpus), size)}) <= _KINDS

    def best(self, wanted: int) -> Iterator[list[tuple[int, ...]]]:
        """`wanted` disjoint groups, equally good partitions one after the other."""
        by_first = self._by_first()
        limit = self._least_limit(by_first, wanted)
        allowed = [[group for group in groups if group[0] <= limit] for groups in by_first]
        sums = self._sums(allowed, wanted)

        def walk(mask: int, left: int) -> Iterator[list[tuple[int, ...]]]:
            if left == 0:
                yield []
                return
            first = lowest(~mask & self._full)
            target = sums(mask, left) * (1 + 1e-12)
            for cost, bits, group in allowed[first]:
                if not bits & mask and cost + sums(mask | bits, left - 1) <= target:
                    yield from ([group, *rest] for rest in walk(mask | bits, left - 1))
            if sums(mask | 1 << first, left) <= target:
                yield from walk(mask | 1 << first, left)

        yield from walk(0, wanted)

    def _least_limit(self, by_first: list[list[_Group]], wanted: int) -> float:
        """The least worst cost with which there are enough groups, by bisection."""
        limits = sorted({cost for groups in by_first for cost, _, _ in groups})
        low, high = 0, len(limits) - 1
        while low < high:
            middle = (low + high) // 2
            allowed = [[group for group in groups if group[0] <= limits[middle]] for groups in by_first]
            if self._sums(allowed, wanted)(0, wanted) < math.inf:
                high = middle
            else:
                low = middle + 1
        return limits[low]

    def _by_first(self) -> list[list[_Group]]:
        """By lowest GPU: every group, best first."""
        if not self._known:
            for first in range(self._gpus):
                groups = [(first, *rest) for rest in combinations(range(first + 1, self._gpus), self._groups.size - 1)]
                found = [(self._groups.cost(group), sum(1 << g for g in group), group) for group in groups]
                self._known.append(sorted(found, key=lambda item: (item[0], item[2])))
        return self._known

    def _classes(self) -> list[int]:
        """The bits of each class of interchangeable GPUs."""
        twin = self._groups.twin
        return [sum(1 << g for g in range(self._gpus) if twin[g] == c) for c in dict.fromkeys(twin)]

    def _sums(self, allowed: list[list[_Group]], wanted: int) -> Callable[[int, int], float]:
        """Least sum of costs of `left` allowed groups from the GPUs not in `mask`; infinity where there are not enough."""
        kinds: dict[tuple[int, ...], float] = {}

        def sums(mask: int, left: int) -> float:
            if left == 0:
                return 0.0
            free = (self._full & ~mask).bit_count()
            if free < left * self._groups.size:
                return math.inf
            key = (left, *((mask & bits).bit_count() for bits in self._members))
            if key in kinds:
                return kinds[key]
            first, best = lowest(~mask & self._full), math.inf
            for cost, bits, _ in allowed[first]:
                if cost >= best:
                    break
                if not bits & mask:
                    best = min(best, cost + sums(mask | bits, left - 1))
            if free > left * self._groups.size:
                best = min(best, sums(mask | 1 << first, left))
            kinds[key] = best
            return best

        return sums
