"""What the search answers: the plans in order, why the first is first, and the rejected ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from advisor.specs.deployment import DeploymentPrediction
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction, Rejected
from advisor.specs.simulation import Verdict
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
    """A change of the question after which a plan fits, or keeps the limits: what to change, and that plan."""

    change: str
    plan: Plan


TieReason = Literal["fewest_gpus", "simplest", "best_figure"]
CauseKind = Literal["only_plan", "limits", "nearest", "figures"]


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

    `kind`: "only_plan", nothing else fits; "limits", only the first keeps them; "nearest", none
    does and the first comes nearest; "figures", the figure of the goal decides.
    `figures` are ttft_s, tpot_s, latency_s, output_tokens_per_s and output_tokens_per_s_per_gpu of both. `part` is the part of an
    output token's cost that speaks most for the first: seconds on its way where the goal is latency or one user is served,
    GPU-seconds otherwise; `token_cost` is the sum of all parts. `cached_sequences` is set where the other's cache limits its load.
    """

    kind: CauseKind
    goal: Goal
    first: Plan
    other: Plan | None = None
    figures: tuple[Contrast, ...] = ()
    token_cost: Contrast | None = None
    part: Contrast | None = None
    cached_sequences: Contrast | None = None

    def figure(self, name: str) -> Contrast:
        """A figure by name."""
        return next(figure for figure in self.figures if figure.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A change of the question after which the goal's figure is `times` better (below 1: worse), with the plan that then has it."""

    change: str
    plan: Plan
    times: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkNeed:
    """What the network between nodes must give for the first plan, whose tp crosses it, to stay ahead of `other`, whose tp does
    not: bytes/s of each GPU in one direction (0: any bandwidth will do), with RDMA or not."""

    bytes_per_s: float
    rdma: bool
    other: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolsAdvice:
    """Prefill and decode apart, beside the best plan of one kind of replica: `choices` are deployments of pools, best first.

    `gain` is by what factor the first is better in the goal's figure (below 1: worse), `sigma` the standard deviation of its
    logarithm; None where no plan of one kind fits. `ahead` says that it is better by more than that, or alone keeps the limits.
    """

    choices: tuple[DeploymentPrediction, ...]
    ahead: bool
    gain: float | None
    sigma: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculationAdvice:
    """Whether drafting pays for the first plan: TPOT with and without it under the load asked for, and the users of the deployment
    from which on it no longer does (None: it pays as far as the cache reaches; 0: it never pays)."""

    tpot_s: float
    plain_tpot_s: float
    pays_below_users: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """`choices` best first. `front` holds the plans that no other beats in both latency and tokens/s per GPU.

    `cause` compares the first with the `runner_up`, the best plan of another replica shape, and `reason` is the same in words;
    None and empty where nothing fits. `first_share` is in what share of draws from the error bars the first choice has the best
    figure (None: only one plan). `ties` are the plans that cannot be told from the best, the first among them, and `tie_reason`
    says why it is the one taken. `implied_ttft_s` is a TTFT limit that holds though nobody gave one. `expected` is the first plan
    with as many users as keep the limits on average, where the answer has those that keep them with more certainty. `curve` has
    the best plans under lighter loads, where the load was left open. `said` is what was assumed; `limits` has sentences on limits
    that are missed or doubtful; `verdicts` are the first plan's on limits that a simulation judged, and `holds` is the load, in
    users or requests/s, up to which it keeps them all; `remedies` what would help where nothing fits or a limit is missed;
    `what_ifs` what changes of the machine or the model would bring. `pools` has deployments with prefill and decode apart, where
    they were looked at; `speculation` whether drafting pays, where it was asked for.
    """

    choices: tuple[Prediction, ...]
    front: tuple[Plan, ...]
    cause: Cause | None
    rejected: tuple[Rejected, ...]
    reason: str = ""
    curve: tuple[Prediction, ...] = field(default=())
    runner_up: Plan | None = None
    first_share: float | None = None
    ties: tuple[Plan, ...] = ()
    tie_reason: TieReason | None = None
    implied_ttft_s: float | None = None
    limits_met: bool = True
    said: tuple[str, ...] = field(default=())
    asked: Asked | None = None
    launch: str = ""
    remedies: tuple[Remedy, ...] = field(default=())
    limits: tuple[str, ...] = field(default=())
    verdicts: tuple[Verdict, ...] = field(default=())
    holds: float | None = None
    what_ifs: tuple[WhatIf, ...] = field(default=())
    network_need: NetworkNeed | None = None
    expected: Prediction | None = None
    pools: PoolsAdvice | None = None
    speculation: SpeculationAdvice | None = None
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One GPU of a comparison: its advice, or `refused`, why the question cannot be asked of it. Prices are of one GPU."""

    gpu: str
    advice: Advice | None = None
    refused: str = ""
    usd_per_hour: float | None = None
    price_date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The same question on several machines, best first."""

    machines: tuple[Compared, ...]
