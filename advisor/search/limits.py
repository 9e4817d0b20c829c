"""Whether a plan keeps the limits of a stated load: those that were given, and a wait that nobody would accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload

# A wait for the first token that a service accepts where nobody says one: MLPerf Inference v5.0, Llama-2-70B server.
WAIT_S = 2.0
# Long prompts take longer than that by themselves: three times the prefill leaves room for one ahead and for the running batch.
PREFILLS = 3.0


def implied_ttft_s(predictions: Sequence[Prediction], workload: Workload) -> float | None:
    """The TTFT limit that holds where a load is stated and none of TTFT: `WAIT_S`, or `PREFILLS` times the fastest prefill."""
    if (
        workload.ttft_limit_s is not None
        or workload.mode not in ("closed_loop", "open_loop")
        or workload.requests
        or not predictions
    ):
        return None
    fastest_s = min(p.prefill.total_s for p in predictions)
    return max(WAIT_S, PREFILLS * fastest_s)


def held_to(predictions: Sequence[Prediction], workload: Workload) -> tuple[list[Prediction], Workload]:
    """The predictions, judged by the implied limit too where it holds, and the workload with it."""
    ttft_s = implied_ttft_s(predictions, workload)
    if ttft_s is None:
        return list(predictions), workload
    judged = [replace(p, within_limits=False) if p.ttft_s.value > ttft_s else p for p in predictions]
    return judged, replace(workload, ttft_limit_s=ttft_s)


def miss(prediction: Prediction, workload: Workload) -> float:
    """By what factor the worst limit is missed; 1.0 or less when all are met."""
    pairs = ((prediction.ttft_s, workload.ttft_limit_s), (prediction.tpot_s, workload.tpot_limit_s))
    return max((estimate.value / limit for estimate, limit in pairs if limit), default=1.0)
