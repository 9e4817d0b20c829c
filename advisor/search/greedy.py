"""Groups of a large node: filled from the tightest links out, then bettered by swaps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from advisor.roofline.fabric import is_direct, typical_bytes_per_s
from advisor.search.groups import Groups
from advisor.search.partition import EXACT_GPUS
from advisor.specs.cluster import LINK_ORDER, Link

_Parts = list[tuple[int, ...]]


def filled(groups: Groups, wanted: int) -> _Parts:
    """Groups from the tightest links out: within each component of the best links first, then of wider ones."""
    found: _Parts = []
    free = sorted(range(groups.gpus), key=lambda g: (-groups.usable[g] if groups.node.is_uniform else 0.0, g))
    tiers = sorted({_rank(groups.links[a][b]) for a in range(groups.gpus) for b in range(a)})
    for equal in (True, False):
        for tier in [*tiers, (math.inf, 0)]:
            for part in _components(groups, free, tier, equal=equal):
                while len(part) >= groups.size and len(found) < wanted:
                    found.append(tuple(sorted(part[: groups.size])))
                    part = part[groups.size :]
            free = [g for g in free if not any(g in group for group in found)]
    return sorted(found)


def improved(groups: Groups, found: _Parts) -> _Parts:
    """Swap GPUs between groups, and with idle ones, while that lessens the worst cost or the sum. Huge nodes stay as filled."""
    if groups.gpus > EXACT_GPUS:
        return found
    idle = tuple(g for g in range(groups.gpus) if not any(g in group for group in found))
    parts = [*found, idle]
    best = _total(groups, parts)
    for _ in range(groups.gpus):
        before = best
        for i, j in combinations(range(len(parts)), 2):
            for option in _swaps(groups, parts, i, j):
                cost = _total(groups, option)
                if cost < best:
                    best, parts = cost, option
        if best == before:
            break
    return sorted(parts[:-1])


def _total(groups: Groups, parts: Sequence[tuple[int, ...]]) -> tuple[float, float]:
    """Worst cost and sum of all but the idle GPUs, which are last."""
    costs = [groups.cost(part) for part in parts[:-1]]
    return max(costs), sum(costs)


def _swaps(groups: Groups, parts: _Parts, i: int, j: int) -> Iterator[_Parts]:
    """The parts with one GPU of part i and one of part j exchanged, for all pairs that are not interchangeable."""
    for a in parts[i]:
        for b in parts[j]:
            if groups.twin[a] != groups.twin[b]:
                one = tuple(sorted((*(g for g in parts[i] if g != a), b)))
                two = tuple(sorted((*(g for g in parts[j] if g != b), a)))
                yield [*parts[:i], one, *parts[i + 1 : j], two, *parts[j + 1 :]]


def _components(groups: Groups, gpus: list[int], tier: tuple[float, float], *, equal: bool) -> list[list[int]]:
    """The GPUs that links of this tier or better join, one list a component; with `equal` only equal GPUs join."""
    home = {g: g for g in gpus}
    for a, b in combinations(gpus, 2):
        if home[a] != home[b] and _rank(groups.links[a][b]) <= tier:
            if equal and groups.node.devices[a].name != groups.node.devices[b].name:
                continue
            low, high = home[a], home[b]
            home = {g: low if h == high else h for g, h in home.items()}
    return [[g for g in gpus if home[g] == h] for h in dict.fromkeys(home.values())]


def _rank(link: Link) -> tuple[float, float]:
    staged = 0.0 if is_direct(link) else 1.0
    return staged - 1e-15 * typical_bytes_per_s(link), LINK_ORDER.index(link.kind)
