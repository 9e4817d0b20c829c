"""Answers as JSON: the dataclasses through `wire`, with the units in their keys."""

from __future__ import annotations

from dataclasses import replace

from advisor.specs import wire
from advisor.specs.advice import Advice, Asked
from advisor.specs.plan import Plan, layer_bounds
from advisor.specs.prediction import Prediction
from advisor.specs.problem import Problem


def advice_json(advice: Advice, *, top: int | None) -> str:
    """The advice; `top` keeps so many choices (the front and the rejected plans stay whole)."""
    return wire.to_json(advice if top is None else replace(advice, choices=advice.choices[:top]))


def prediction_json(prediction: Prediction) -> str:
    """One plan's figures."""
    return wire.to_json(prediction)


def explanation_json(problem: Problem, prediction: Prediction, *, asked: Asked, said: tuple[str, ...]) -> str:
    """What `explain` shows: the prediction with its steps and memory, the assignment of ranks and the groups."""
    import json

    data = {
        "said": list(said),
        "asked": wire.to_data(asked),
        "prediction": wire.to_data(prediction),
        "assignment": assignment(problem, prediction.plan),
        "groups": {
            axis: gpu_groups(prediction.plan, axis) for axis in ("tp", "pp", "ep", "adp") if getattr(prediction.plan, axis) > 1
        },
    }
    return json.dumps(data, indent=2)


def assignment(problem: Problem, plan: Plan) -> list[dict[str, int]]:
    """One entry a rank: its GPU over the cluster, coordinates, and layers from first to last."""
    bounds = layer_bounds(len(problem.model.layers), plan, problem.engine.layer_split)
    rows = []
    for rank in range(plan.world):
        at = plan.coordinates(rank)
        first, last = bounds[at.stage]
        rows.append({
            "rank": rank, "gpu": plan.gpu(rank), "replica": at.replica, "stage": at.stage, "tp_rank": at.tp_rank,
            "adp_rank": at.adp_rank, "first_layer": first, "last_layer": last - 1,
        })  # fmt: skip
    return rows


def gpu_groups(plan: Plan, axis: str) -> list[list[int]]:
    """The groups of an axis as GPU indices."""
    return [[plan.gpu(rank) for rank in group] for group in plan.groups(axis)]
