"""What the search answers: the plans in order, why the first is first, and what fell."""

from __future__ import annotations

from dataclasses import dataclass, field

from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction, Rejected
from advisor.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The question in short, so that an answer read later says what it answers."""

    model: str
    params: int
    weight_format: str
    kv_format: str
    machine: str
    gpus: int
    nodes: int
    engine: str
    engine_version: str
    workload: Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A change of the question after which a plan fits: what to change, and the plan with the fewest GPUs that then fits."""

    change: str
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """`choices` best first. `front` holds the plans that no other beats in both latency and tokens/s per GPU.

    `reason` compares the first with the `runner_up`, the best plan of another replica shape. `first_share` is in what share of
    draws from the error bars the first choice has the best figure (None: only one plan). `close_call` says that the two
    cannot be told apart.
    `curve` has the best plans under lighter loads, where the load was left open. `said` is what has to be known before the
    answer; `remedies` what would help where nothing fits.
    """

    choices: tuple[Prediction, ...]
    front: tuple[Plan, ...]
    reason: str
    rejected: tuple[Rejected, ...]
    curve: tuple[Prediction, ...] = field(default=())
    runner_up: Plan | None = None
    first_share: float | None = None
    close_call: bool = False
    limits_met: bool = True
    said: tuple[str, ...] = field(default=())
    asked: Asked | None = None
    launch: str = ""
    remedies: tuple[Remedy, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
