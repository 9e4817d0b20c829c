"""The front: the plans that no other beats in both latency and tokens/s per GPU."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.search.order import simplicity
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction


def front(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The plans that no other beats in both: seconds of a request, and output tokens/s per GPU; by rising latency.

    A plan is dominated when another is at least as good in both and better in one; of equals the
    simplest stays, with the most replicas.
    """
    found: list[Prediction] = []
    for candidate in sorted(predictions, key=lambda p: (p.latency_s.value, -per_gpu(p), simplicity(p.plan), -p.plan.world)):
        if not found or per_gpu(candidate) > per_gpu(found[-1]):
            found.append(candidate)
    return found


def fills(plan: Plan, gpus: int) -> bool:
    """Whether replicas of this shape can fill a machine of so many GPUs (0: any), or are of a size that machines come in."""
    size = plan.replica_gpus
    return not gpus or gpus % size == 0 or size & (size - 1) == 0


def per_gpu(prediction: Prediction) -> float:
    """Output tokens/s per GPU that the plan uses."""
    return prediction.output_tokens_per_s.value / prediction.plan.world
