"""Why the first plan comes before the runner-up, as figures: `report.reason` makes the sentence."""

from __future__ import annotations

from advisor.search.front import per_gpu
from advisor.specs.advice import Cause, CauseKind, Contrast
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload

TELLING = 0.03  # of what a token costs is the least difference of a part that explains anything
FULL = 0.7  # of the sequences that a cache holds: from here on it is what limits the load
MORE = 1.15  # times the sequences: from here on a cache is larger


def cause(first: Prediction, runner: Prediction | None, workload: Workload) -> Cause:
    """What speaks for `first` against the best plan of another shape: the figures, and the physics behind them."""
    if runner is None:
        return Cause(kind="only_plan", first=first.plan, goal=workload.goal)
    kept = first.within_limits and not runner.within_limits
    kind: CauseKind = "limits" if kept else ("figures" if first.within_limits else "nearest")
    return Cause(
        kind=kind,
        first=first.plan,
        other=runner.plan,
        goal=workload.goal,
        figures=_figures(first, runner),
        token_cost=_token_cost(first, runner, workload),
        part=None if kept else _part(first, runner, workload),
        cached_sequences=None if kept else _cache(first, runner),
    )


def _figures(first: Prediction, runner: Prediction) -> tuple[Contrast, ...]:
    return (
        Contrast(name="ttft_s", first=first.ttft_s.value, other=runner.ttft_s.value),
        Contrast(name="tpot_s", first=first.tpot_s.value, other=runner.tpot_s.value),
        Contrast(name="latency_s", first=first.latency_s.value, other=runner.latency_s.value),
        Contrast(name="output_tokens_per_s", first=first.output_tokens_per_s.value, other=runner.output_tokens_per_s.value),
        Contrast(name="output_tokens_per_s_per_gpu", first=per_gpu(first), other=per_gpu(runner)),
    )


def _cache(first: Prediction, runner: Prediction) -> Contrast | None:
    """Sequences that the caches hold, where the runner-up's is full and the first's is larger."""
    held = runner.max_sequences
    if held and runner.sequences > FULL * held and first.max_sequences > MORE * held:
        return Contrast(name="cached_sequences", first=first.max_sequences, other=held)
    return None


def _token_cost(first: Prediction, runner: Prediction, workload: Workload) -> Contrast:
    """What an output token costs in all, in the seconds that `part` counts."""
    mine, other = costs(first, workload), costs(runner, workload)
    return Contrast(name="token_s", first=sum(mine.values()), other=sum(other.values()))


def _part(first: Prediction, runner: Prediction, workload: Workload) -> Contrast | None:
    """The part of a token's cost that speaks most for the first plan; None where none does."""
    mine, other = costs(first, workload), costs(runner, workload)
    if not mine or not other:
        return None
    name = max(sorted(mine.keys() | other.keys()), key=lambda part: other.get(part, 0.0) - mine.get(part, 0.0))
    if other.get(name, 0.0) - mine.get(name, 0.0) < TELLING * sum(other.values()):
        return None
    return Contrast(name=name, first=mine.get(name, 0.0), other=other.get(name, 0.0))


def costs(p: Prediction, workload: Workload) -> dict[str, float]:
    """What an output token costs, part by part.

    latency: seconds on its way, a decode step. throughput, cost: GPU-seconds, the step of a whole replica shared by the sequences
    in it, and the request's prefill, which keeps a tp group of one stage at a time busy, shared by its output tokens.
    """
    plan = p.plan
    if is_single(workload):
        return {part.name: part.amount for part in p.decode.parts}
    running = max(1.0, p.sequences / plan.dp)
    found = {part.name: part.amount * plan.replica_gpus / running for part in p.decode.parts}
    for part in p.prefill.parts:
        found[f"prefill {part.name}"] = part.amount * plan.tp / workload.output_tokens
    return found


def is_single(workload: Workload) -> bool:
    """Whether what counts is the way of one token, not what GPUs make together."""
    return workload.goal == "latency" or workload.mode == "single_stream"
