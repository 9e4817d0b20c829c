"""The order of stages: pipelines whose slowest hop is as fast as it can be, then with the least sum of hops.

`hop[a][b]` is the time from stage group a to b, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import combinations, pairwise, permutations

Hops = Sequence[Sequence[float]]
_Way = tuple[float, float, tuple[int, ...]]  # worst hop, sum of hops, and the order

_STAGES_EXACT = 8  # stages in a pipeline whose order is found exactly
_ALL_ORDERS = 4  # of so few stages every order is looked at
_MATCHED_GROUPS, _MATCHED_STAGES, _MATCHED_CHOICES = 16, 4, 500  # several pipelines are matched exactly up to here


def chains(count: int, *, dp: int, pp: int, hop: Hops) -> list[list[int]]:
    """Groups 0..`count` - 1 as `dp` pipelines of `pp` stages: the least worst hop, then the least sum."""
    if pp == 1:
        return [[group] for group in range(count)]
    if len({h for i, row in enumerate(hop) for j, h in enumerate(row) if i != j}) <= 1:
        return [list(range(i * pp, (i + 1) * pp)) for i in range(dp)]
    if dp > 1 and count <= _MATCHED_GROUPS and math.comb(count - 1, pp - 1) <= _MATCHED_CHOICES and pp <= _MATCHED_STAGES:
        return sorted(_matched(count, pp, hop))
    left, found = list(range(count)), list[list[int]]()
    while left:
        chain = shortest_chain(left, pp, hop)
        found.append(chain)
        left = [g for g in left if g not in chain]
    return sorted(found)


def shortest_chain(groups: list[int], pp: int, hop: Hops) -> list[int]:
    """A chain of `pp` of the groups: exact where it takes them all and they are few, else from neighbour to neighbour."""
    return _path(groups, hop) if len(groups) == pp and pp <= _STAGES_EXACT else _nearest(groups, pp, hop)


def _costs(chain: Sequence[int], hop: Hops) -> tuple[float, float]:
    """The worst hop and the sum of hops of a chain."""
    hops = [hop[a][b] for a, b in pairwise(chain)]
    return max(hops), sum(hops)


def _matched(count: int, pp: int, hop: Hops) -> list[list[int]]:
    """Chains that together have the least worst hop, then the least sum, by dynamic programming over sets of groups."""
    full = (1 << count) - 1
    paths: dict[int, tuple[tuple[float, float], list[int]]] = {}
    for part in combinations(range(count), pp):
        chain = _path(list(part), hop)
        paths[sum(1 << g for g in part)] = _costs(chain, hop), chain
    by_first: list[list[int]] = [[m for m in paths if m & -m == 1 << first] for first in range(count)]

    @cache
    def best(mask: int) -> _Way:
        if mask == full:
            return 0.0, 0.0, ()
        options: list[_Way] = []
        for part in by_first[lowest(~mask & full)]:
            if not part & mask:
                (worst, total), _ = paths[part]
                rest = best(mask | part)
                options.append((max(worst, rest[0]), total + rest[1], (part, *rest[2])))
        return min(options)

    return [paths[part][1] for part in best(0)[2]]


def _path(groups: list[int], hop: Hops) -> list[int]:
    """The order of few groups with the least worst hop, then the least sum (dynamic programming over sets, Held and Karp 1962)."""
    if len(groups) == 1:
        return groups
    if len(groups) <= _ALL_ORDERS:
        return list(min((*_costs(order, hop), order) for order in permutations(groups))[2])
    best: dict[tuple[int, int], _Way] = {(1 << i, i): (0.0, 0.0, (g,)) for i, g in enumerate(groups)}
    for _ in range(len(groups) - 1):
        best = _one_longer(best, groups, hop)
    return list(min(best.values())[2])


def _one_longer(best: dict[tuple[int, int], _Way], groups: list[int], hop: Hops) -> dict[tuple[int, int], _Way]:
    """By (set of groups, last group): the best way through every set with one group more."""
    longer: dict[tuple[int, int], _Way] = {}
    for (mask, last), (worst, total, path) in best.items():
        for i, g in enumerate(groups):
            if mask >> i & 1:
                continue
            step = hop[groups[last]][g]
            option = (max(worst, step), total + step, (*path, g))
            key = (mask | 1 << i, i)
            if key not in longer or option < longer[key]:
                longer[key] = option
    return longer


def _nearest(groups: list[int], pp: int, hop: Hops) -> list[int]:
    """A chain that goes on to the nearest group each time, from the start that ends best."""
    ways: list[tuple[float, float, list[int]]] = []
    for start in groups:
        chain, worst, total = [start], 0.0, 0.0
        while len(chain) < pp:
            after = min((g for g in groups if g not in chain), key=lambda g: (hop[chain[-1]][g], g))
            worst, total = max(worst, hop[chain[-1]][after]), total + hop[chain[-1]][after]
            chain.append(after)
        ways.append((worst, total, chain))
    return min(ways)[2]


def lowest(bits: int) -> int:
    """The index of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1
