"""Fewer points in a picture: plans are left out by dominance, the worst layers first, and how many is said."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.search.front import front
from advisor.specs.prediction import Prediction


def thinned(predictions: Sequence[Prediction], most: int) -> list[Prediction]:
    """At most `most` plans: the front of latency against tokens/s per GPU, then the front of the rest, and so on.

    The last layer is cut from its slow end. The order of the input stays.
    """
    rest = list(predictions)
    kept: set[int] = set()
    while rest and len(kept) < most:
        layer = front(rest)[: most - len(kept)]
        kept |= {id(p) for p in layer}
        rest = [p for p in rest if id(p) not in kept]
    return [p for p in predictions if id(p) in kept]
