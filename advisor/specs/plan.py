"""A plan: the degrees of parallelism, the engine settings that go with them, and which rank sits where.

Rank order is replica, stage, attention-DP group, tp rank, with the tp rank fastest: the order of vLLM, SGLang and TensorRT-LLM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

_AXES = ("tp", "pp", "dp", "ep", "adp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Engine settings that belong to the plan that was ranked; the launch script carries them.

    `max_sequences` and `token_budget` are per engine instance (per attention-DP rank where there are several);
    `memory_fraction` means what the engine's own option of that purpose means.
    """

    max_sequences: int
    token_budget: int
    max_context_tokens: int
    memory_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinates:
    """Where one rank stands in the plan."""

    rank: int
    replica: int
    stage: int
    adp_rank: int
    tp_rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`tp` tensor, `pp` pipeline, `dp` replicas that share nothing, `ep` expert, `adp` attention-data parallel.

    A replica has `tp * adp * pp` GPUs. With `adp` > 1 the attention of a stage runs as `adp` groups of `tp` ranks on separate
    sequences, and its experts are spread over all `tp * adp` ranks: `ep` expert groups, each split `tp * adp / ep` ways.
    `layer_split` has the layers of each stage (empty: even, as the engine splits them). `gpus` has the GPU index of each rank
    over the cluster (empty: 0, 1, 2, ...).
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    adp: int = 1
    layer_split: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    settings: Settings | None = field(default=None)

    def __post_init__(self) -> None:
        if min(self.tp, self.pp, self.dp, self.ep, self.adp) < 1:
            raise ValueError("degrees are positive")
        if (self.tp * self.adp) % self.ep:
            raise ValueError(f"ep={self.ep} does not divide tp*adp={self.tp * self.adp}")
        if self.layer_split and len(self.layer_split) != self.pp:
            raise ValueError(f"{len(self.layer_split)} stage sizes for pp={self.pp}")
        if self.gpus and len(self.gpus) != self.world:
            raise ValueError(f"{len(self.gpus)} GPUs for {self.world} ranks")

    @property
    def stage_gpus(self) -> int:
        """GPUs of one pipeline stage of one replica."""
        return self.tp * self.adp

    @property
    def replica_gpus(self) -> int:
        """GPUs of one replica."""
        return self.tp * self.adp * self.pp

    @property
    def world(self) -> int:
        """GPUs the plan uses."""
        return self.replica_gpus * self.dp

    @property
    def expert_tp(self) -> int:
        """How many ways each expert's matrices are split."""
        return self.tp * self.adp // self.ep

    @property
    def sends_tokens(self) -> bool:
        """Whether tokens can go by all-to-all to the ranks of their experts: each of several attention groups has equally many
        ranks in the ep group of each part, at least one, which is so where `expert_tp` divides `tp`."""
        return self.adp > 1 and self.ep % self.adp == 0

    def coordinates(self, rank: int) -> Coordinates:
        """Where `rank` stands."""
        rest, tp_rank = divmod(rank, self.tp)
        rest, adp_rank = divmod(rest, self.adp)
        replica, stage = divmod(rest, self.pp)
        return Coordinates(rank=rank, replica=replica, stage=stage, adp_rank=adp_rank, tp_rank=tp_rank)

    def groups(self, axis: str) -> tuple[tuple[int, ...], ...]:
        """The rank groups that communicate along `axis` ("tp", "pp", "ep" or "adp"), each in rank order.

        Within blocks of equal size, ranks that are a fixed step apart: tp ranks are neighbours, the stages of a replica one stage's
        GPUs apart, and so on.
        """
        block, step = {
            "tp": (self.tp, 1),
            "adp": (self.stage_gpus, self.tp),
            "ep": (self.stage_gpus, self.expert_tp),
            "pp": (self.replica_gpus, self.stage_gpus),
        }[axis]
        starts = range(0, self.world, block)
        return tuple(tuple(range(start + first, start + block, step)) for start in starts for first in range(step))

    def gpu(self, rank: int) -> int:
        """The GPU index of a rank over the cluster."""
        return self.gpus[rank] if self.gpus else rank

    def replica(self) -> Plan:
        """One replica of this plan, unplaced."""
        return replace(self, dp=1, gpus=())

    @property
    def label(self) -> str:
        """The plan as people write it: `tp=4,pp=2,dp=1`, with ep and adp where they are not 1."""
        text = f"tp={self.tp},pp={self.pp},dp={self.dp}"
        text += f",ep={self.ep}" if self.ep > 1 else ""
        return text + (f",adp={self.adp}" if self.adp > 1 else "")

    @classmethod
    def parse(cls, text: str) -> Plan:
        """The plan of `tp=4,pp=2` (order free, missing axes 1). Raises ValueError with a sentence."""
        degrees: dict[str, int] = {}
        for part in re.split(r",|\s+", re.sub(r"\s*([,=])\s*", r"\1", text.strip())):
            match = re.fullmatch(r"([a-z]+)=(\d{1,6})", part)
            if not match or match[1] not in _AXES:
                raise ValueError(f"cannot read {part!r} in plan {text!r}: write axes as tp=4,pp=2,dp=1 (axes: {', '.join(_AXES)})")
            if match[1] in degrees:
                raise ValueError(f"{match[1]} stands twice in plan {text!r}: give each axis once")
            if int(match[2]) < 1:
                raise ValueError(f"{part} in plan {text!r} is not possible: a degree is 1 or more")
            degrees[match[1]] = int(match[2])
        return cls(**degrees)  # type: ignore[arg-type]


SplitRule = Literal["last_spared", "last_extra", "first_extra"]


def layer_bounds(layers: int, plan: Plan, rule: SplitRule) -> tuple[tuple[int, int], ...]:
    """First and past-the-end layer of each stage.

    `plan.layer_split` where given, else even with the remainder r placed by the engine's rule: `last_spared` gives one more to
    the r stages before the last (vLLM: 32 / 3 = 11, 11, 10), `last_extra` to the last r (SGLang), `first_extra` to the first r
    (TensorRT-LLM). Raises ValueError when there are fewer layers than stages or the split does not add up.
    """
    if plan.pp > layers:
        raise ValueError(f"pp={plan.pp} has more stages than the model's {layers} layers")
    sizes = list(plan.layer_split)
    if not sizes:
        each, rest = divmod(layers, plan.pp)
        start = {"last_spared": plan.pp - 1 - rest, "last_extra": plan.pp - rest, "first_extra": 0}[rule]
        sizes = [each + (1 if start <= stage < start + rest else 0) for stage in range(plan.pp)]
    if sum(sizes) != layers or min(sizes) < 1:
        raise ValueError(f"stages of {sizes} layers do not make {layers}")
    bounds, first = [], 0
    for size in sizes:
        bounds.append((first, first + size))
        first += size
    return tuple(bounds)
