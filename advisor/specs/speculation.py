"""Speculative decoding: which drafter proposes how many tokens, and how many of them a step accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Method = Literal["mtp", "eagle3", "ngram"]


def accepted_length(rates: tuple[float, ...]) -> float:
    """(D1) Tokens a verify step yields: 1 + sum over j of prod over i <= j of a_i.

    `rates`: a_i, the chance that the i-th draft is accepted when all before it were. The target's own token counts, so the length
    is 1 where nothing is accepted and K + 1 where everything is. Source: Leviathan et al. 2023 (arXiv 2211.17192), equation 1.
    """
    length = reached = 1.0
    for rate in rates:
        reached *= rate
        length += reached
    return length


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """`drafts` tokens are proposed a step (K) and `length` tokens come out of it on average (1 to K + 1).

    `length_low` and `length_high` bound the 90% interval of the length. `method`: "mtp" drafts with the checkpoint's own
    multi-token-prediction layer, "eagle3" with one dense decoder layer and a reduced vocabulary, "ngram" by a look-up in the text.
    `source` says where the length is from.
    """

    method: Method
    drafts: int
    length: float
    length_low: float
    length_high: float
    source: str

    def __post_init__(self) -> None:
        if self.drafts < 1:
            raise ValueError("at least one token is drafted")
        if not 1.0 <= self.length_low <= self.length <= self.length_high <= self.drafts + 1:
            raise ValueError("the accepted length lies between 1 and drafts + 1, inside its own interval")

    @property
    def verified(self) -> int:
        """Tokens a sequence brings to a verify step: its last one and the drafts, K + 1."""
        return self.drafts + 1

    @property
    def log_width(self) -> float:
        """Half the width of the interval of the length, as a logarithm: what it adds to those of TPOT and of rates."""
        return math.log(self.length_high / self.length_low) / 2

    @property
    def label(self) -> str:
        """As people write it: `mtp:3`."""
        return f"{self.method}:{self.drafts}"
