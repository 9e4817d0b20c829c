"""What the search answers: the plans in order, why the first is first, and the rejected ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction, Rejected
from advisor.specs.workload import Goal, Workload


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


CauseKind = Literal["only_plan", "limits", "figures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One figure of the first plan and of the runner-up, by name; the unit is at the end of the name."""

    name: str
    first: float
    other: float

    @property
    def ratio(self) -> float:
        """How many times the runner-up's figure the first's is."""
        return self.first / self.other if self.other else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why the first plan is before the best plan of another replica shape (`other`; None where there is none).

    `kind`: "only_plan", nothing else fits; "limits", only the first keeps them; "figures", the figure of the goal decides.
    `figures` are ttft_s, tpot_s, latency_s, output_tokens_per_s and output_tokens_per_s_per_gpu of both. `part` is the part of an
    output token's cost that speaks most for the first: seconds on its way where the goal is latency or one user is served,
    GPU-seconds otherwise. `cached_sequences` is set where the other's cache limits its load. `close_call`: the two cannot be told
    apart, and the first may be the `simpler` one.
    """

    kind: CauseKind
    goal: Goal
    first: Plan
    other: Plan | None = None
    figures: tuple[Contrast, ...] = ()
    part: Contrast | None = None
    cached_sequences: Contrast | None = None
    close_call: bool = False
    simpler: bool = False

    def figure(self, name: str) -> Contrast:
        """A figure by name."""
        return next(figure for figure in self.figures if figure.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkNeed:
    """What the network between nodes must give for the first plan, whose tp crosses it, to stay ahead of `other`, whose tp does
    not: bytes/s of each GPU in one direction (0: any bandwidth will do), with RDMA or not."""

    bytes_per_s: float
    rdma: bool
    other: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """`choices` best first. `front` holds the plans that no other beats in both latency and tokens/s per GPU.

    `cause` compares the first with the `runner_up`, the best plan of another replica shape, and `reason` is the same in words;
    None and empty where nothing fits. `first_share` is in what share of draws from the error bars the first choice has the best
    figure (None: only one plan). `close_call` says that the two cannot be told apart.
    `curve` has the best plans under lighter loads, where the load was left open. `said` is what has to be known before the
    answer; `remedies` what would help where nothing fits.
    """

    choices: tuple[Prediction, ...]
    front: tuple[Plan, ...]
    cause: Cause | None
    rejected: tuple[Rejected, ...]
    reason: str = ""
    curve: tuple[Prediction, ...] = field(default=())
    runner_up: Plan | None = None
    first_share: float | None = None
    close_call: bool = False
    limits_met: bool = True
    said: tuple[str, ...] = field(default=())
    asked: Asked | None = None
    launch: str = ""
    remedies: tuple[Remedy, ...] = field(default=())
    network_need: NetworkNeed | None = None
    notes: tuple[str, ...] = field(default=())
