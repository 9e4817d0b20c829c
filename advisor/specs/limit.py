"""A limit on a time of a request, of all of them on average or of a percentile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Timed = Literal["ttft", "tpot", "e2e"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`figure` of the share `share` of requests is at most `seconds`; share 0 means their mean."""

    figure: Timed
    seconds: float
    share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1 or not self.seconds > 0:
            raise ValueError("a limit is above 0, of a share of requests below 1")

    @property
    def name(self) -> str:
        """As it is written: "p90 TTFT", "mean TPOT"."""
        names = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end to end"}
        return f"{f'p{self.share * 100:g}' if self.share else 'mean'} {names[self.figure]}"
