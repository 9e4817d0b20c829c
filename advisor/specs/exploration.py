"""What the interactive explorer shows: the advice, and figures on grids that a reader can move through without Python."""

from __future__ import annotations

from dataclasses import dataclass, field

from advisor.specs.advice import Advice, Asked
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction, RankMemory, StepTime
from advisor.specs.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The 90% interval of a figure as factors of its value."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCurve:
    """Figures by users in flight (the formula of a steady closed loop), linear between neighbours; of `replicas` replicas.

    The first load gives every replica one user. Rates are of all the replicas; `running` are the sequences that decode. Plans that
    differ in the number of replicas alone can share a curve: a replica serves its share of the users, wherever the others are.
    """

    replicas: int
    users: tuple[int, ...]
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    output_tokens_per_s: tuple[float, ...]
    running: tuple[float, ...]
    ttft_band: Band
    tpot_band: Band
    latency_band: Band
    rate_band: Band


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """A plan that can be looked at in full: its figures at the question's load, its curve, and who is which rank.

    `tied`: it cannot be told from the best plan.
    """

    prediction: Prediction
    curve: LoadCurve
    tied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderRung:
    """One replica shape without regard to load: a decode step at each batch size, one prefill, and the memory of a rank.

    `decode` has one entry a batch of `Ladder.batches`; `sequence_bytes` what one sequence of each of `Ladder.contexts` holds on a
    rank. `fits` says whether one sequence of the question fits; the times hold either way.
    """

    plan: Plan
    fits: bool
    decode: tuple[StepTime, ...]
    prefill: StepTime
    memory: RankMemory
    sequence_bytes: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Where a step goes as the model is split further. Batches are sequences of a replica."""

    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    context_tokens: float
    prefill_tokens: float
    peak_flop_per_s: float
    memory_bytes_per_s: float
    rungs: tuple[LadderRung, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPlan:
    """A plan of a changed question: its curve, or why it cannot run; the memory of its fullest rank where it is legal."""

    plan: Plan
    curve: LoadCurve | None
    memory: RankMemory | None
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The question with another GPU, number format or prompt length; the first of an exploration is the question itself.

    `gpus` is how many the machine then has. `refused` says why the whole variant cannot be asked.
    """

    gpu: str
    weight_format: str
    input_tokens: float
    gpus: int
    price_usd_per_hour: float | None
    plans: tuple[VariantPlan, ...]
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """All that one page shows: `explored` plans in full, best first, of those in `advice.choices`.

    `most_users` is where the axis of the load ends. `ttft_margin` and `tpot_margin` are the shares of the limits that a prediction
    has to keep for the limits to be kept with the certainty that is asked for, where the question is how much fits.
    """

    advice: Advice
    asked: Asked
    problem: Problem
    explored: tuple[Explored, ...]
    most_users: int
    ttft_margin: float
    tpot_margin: float
    ladder: Ladder
    variants: tuple[Variant, ...] = field(default=())
