"""An exploration as the data of the page: short keys, few digits, each curve once. `data.js` has the same as types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from advisor.report.data import assignment, gpu_groups
from advisor.report.explorer.formulas import formulas
from advisor.report.explorer.thin import thinned
from advisor.report.reason import tie_words
from advisor.report.words import asked_for, short
from advisor.search.front import front
from advisor.specs.exploration import Band, Exploration, Explored, Ladder, LoadCurve, Variant
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, Prediction, RankMemory, StepTime
from advisor.specs.problem import Problem

MOST_OTHERS = 250  # points beside the plans that are shown in full
MOST_REJECTED = 120
MOST_SEATS = 64  # ranks of a plan that are drawn
DIGITS = 5  # a figure is shown with three


def pack(exploration: Exploration) -> dict[str, Any]:
    """The data of the page."""
    advice, problem = exploration.advice, exploration.problem
    curves = _Curves()
    plans = [_plan(problem, explored, curves) for explored in exploration.explored]
    best = {id(p) for p in front([e.prediction for e in exploration.explored])}
    for plan, explored in zip(plans, exploration.explored, strict=True):
        plan["front"] = id(explored.prediction) in best
    full = {e.prediction.plan for e in exploration.explored}
    rest = [p for p in advice.choices if p.plan not in full]
    others = thinned(rest, MOST_OTHERS)
    variants = [_variant(v, curves) for v in exploration.variants]
    return {
        "asked": _asked(exploration),
        "said": list(advice.said),
        "reason": " ".join(text for text in (*advice.limits, advice.reason, tie_words(advice)) if text),
        "notes": list(advice.notes),
        "first_share": None if advice.first_share is None else _round(advice.first_share),
        "limits_met": advice.limits_met,
        "launch": advice.launch,
        "remedies": [{"change": r.change, "plan": r.plan.label} for r in advice.remedies],
        "most_users": exploration.most_users,
        "plans": plans,
        "others": [_other(p) for p in others],
        "others_hidden": len(rest) - len(others),
        "rejected": [[short(r.plan), r.reason] for r in advice.rejected[:MOST_REJECTED]],
        "rejected_hidden": max(0, len(advice.rejected) - MOST_REJECTED),
        "ladder": _ladder(exploration.ladder),
        "variants": variants,
        "machine": _machine(problem),
        "curves": curves.packed,
    }


class _Curves:
    """Each curve once, by its place in `packed`."""

    def __init__(self) -> None:
        self.packed: list[dict[str, Any]] = []
        self._places: dict[LoadCurve, int] = {}

    def place(self, curve: LoadCurve) -> int:
        if curve not in self._places:
            self._places[curve] = len(self.packed)
            self.packed.append({
                "replicas": curve.replicas, "users": list(curve.users), "ttft": _rounds(curve.ttft_s),
                "tpot": _rounds(curve.tpot_s), "rate": _rounds(curve.output_tokens_per_s), "running": _rounds(curve.running),
                "bands": [_rounds((b.low, b.high)) for b in _bands(curve)],
            })  # fmt: skip
        return self._places[curve]


def _bands(curve: LoadCurve) -> tuple[Band, ...]:
    return (curve.ttft_band, curve.tpot_band, curve.latency_band, curve.rate_band)


def _asked(exploration: Exploration) -> dict[str, Any]:
    asked, load, device = exploration.asked, exploration.asked.workload, exploration.problem.cluster.device
    return {
        "model": asked.model, "sentence": asked_for(asked), "weights": asked.weight_format, "kv": asked.kv_format,
        "machine": asked.machine, "gpus": asked.gpus, "nodes": asked.nodes, "engine": f"{asked.engine} {asked.engine_version}",
        "input": load.input_tokens, "output": load.output_tokens, "mode": load.mode, "users": load.users,
        "rate": load.rate_per_s, "goal": load.goal,
        "ttft_limit": load.ttft_limit_s or exploration.advice.implied_ttft_s, "tpot_limit": load.tpot_limit_s,
        "confidence": load.confidence, "margins": {"ttft": exploration.ttft_margin, "tpot": exploration.tpot_margin},
        "gpu": device.name, "price": device.price_usd_per_hour, "price_date": device.price_date,
    }  # fmt: skip


def _degrees(plan: Plan) -> dict[str, Any]:
    return {"label": short(plan), "tp": plan.tp, "pp": plan.pp, "dp": plan.dp, "ep": plan.ep, "adp": plan.adp, "world": plan.world}


def _plan(problem: Problem, explored: Explored, curves: _Curves) -> dict[str, Any]:
    p = explored.prediction
    whole = p.plan.world <= MOST_SEATS
    seated = p.plan if whole else p.plan.replica()
    return {
        **_degrees(p.plan),
        "tied": explored.tied,
        "within": p.within_limits,
        "curve": curves.place(explored.curve),
        "ttft": _estimate(p.ttft_s), "tpot": _estimate(p.tpot_s), "latency": _estimate(p.latency_s),
        "rate": _estimate(p.output_tokens_per_s), "sequences": _round(p.sequences), "kv_tokens": p.kv_tokens,
        "max_sequences": p.max_sequences, "usd": None if p.usd_per_million_tokens is None else _round(p.usd_per_million_tokens),
        "bottleneck": p.bottleneck, "notes": list(p.notes), "decode": _step(p.decode), "prefill": _step(p.prefill),
        "memory": _memory(p.memory),
        "seats": _seats(problem, p.plan),
        "groups": {
            axis: gpu_groups(seated, axis)
            for axis in ("tp", "pp", "ep", "adp")
            if getattr(p.plan, axis) > 1 and seated.world <= MOST_SEATS
        },
        "formulas": [
            [f.figure, f.title, f.equation, f.numbers, f.result, f.source] for f in formulas(problem, p)
        ],
    }  # fmt: skip


def _seats(problem: Problem, plan: Plan) -> list[list[int]]:
    """Each rank's GPU, coordinates and layers; the first ranks where there are many."""
    return [list(seat.values())[1:] for seat in assignment(problem, plan)[:MOST_SEATS]]


def _other(p: Prediction) -> list[Any]:
    figures = (p.ttft_s, p.tpot_s, p.latency_s, p.output_tokens_per_s)
    return [short(p.plan), p.plan.world, int(p.within_limits), *_rounds([e.value for e in figures])]


def _estimate(estimate: Estimate) -> list[float]:
    return _rounds((estimate.value, estimate.low, estimate.high), digits=7)


def _step(step: StepTime) -> dict[str, Any]:
    return {
        "total": _round(step.total_s), "parts": {part.name: _round(part.amount) for part in step.parts},
        "flop": _round(step.flop), "bytes": _round(step.hbm_bytes), "wire": _round(step.wire_bytes),
    }  # fmt: skip


def _memory(memory: RankMemory) -> dict[str, Any]:
    return {
        "device": memory.device_bytes, "weights": _round(memory.weights_bytes), "activations": _round(memory.activations_bytes),
        "engine": _round(memory.other_bytes), "kv": _round(memory.kv_bytes), "free": _round(memory.reserved_bytes),
        "kv_tokens": memory.kv_tokens, "short": _round(memory.shortfall_bytes),
    }  # fmt: skip


def _ladder(ladder: Ladder) -> dict[str, Any]:
    return {
        "batches": list(ladder.batches), "contexts": list(ladder.contexts), "context": ladder.context_tokens,
        "prefill_tokens": ladder.prefill_tokens, "peak": ladder.peak_flop_per_s, "bandwidth": ladder.memory_bytes_per_s,
        "rungs": [
            {
                **_degrees(rung.plan), "fits": rung.fits, "decode": [_step(step) for step in rung.decode],
                "prefill": _step(rung.prefill), "memory": _memory(rung.memory), "sequence_bytes": _rounds(rung.sequence_bytes),
            }
            for rung in ladder.rungs
        ],
    }  # fmt: skip


def _variant(variant: Variant, curves: _Curves) -> dict[str, Any]:
    return {
        "gpu": variant.gpu, "weights": variant.weight_format, "input": variant.input_tokens, "gpus": variant.gpus,
        "price": variant.price_usd_per_hour, "refused": variant.refused,
        "plans": [
            {
                **_degrees(p.plan), "curve": None if p.curve is None else curves.place(p.curve), "refused": p.refused,
                "memory": None if p.memory is None else _memory(p.memory),
            }
            for p in variant.plans
        ],
    }  # fmt: skip


def _machine(problem: Problem) -> dict[str, Any]:
    cluster, node = problem.cluster, problem.cluster.node
    return {
        "nodes": cluster.nodes, "name": node.name, "devices": [device.name for device in node.devices],
        "memory": node.devices[0].memory_bytes, "numa": list(node.numa), "uplinks": [list(group) for group in node.uplinks],
        "link": [node.default_link.kind, node.default_link.bytes_per_s],
        "pairs": [[p.a, p.b, p.link.kind, p.link.bytes_per_s, p.link.count] for p in node.pairs],
        "network": None if cluster.network is None else [cluster.network.name, cluster.network.bytes_per_s],
        "layers": len(problem.model.layers), "assumed": cluster.assumed,
    }  # fmt: skip


def _round(value: float, *, digits: int = DIGITS) -> float:
    """`value` with so many significant digits; whole numbers lose their point."""
    if value == 0 or not math.isfinite(value):
        return 0
    rounded = round(value, digits - 1 - math.floor(math.log10(abs(value))))
    return int(rounded) if float(rounded).is_integer() else rounded


def _rounds(values: Sequence[float], *, digits: int = DIGITS) -> list[float]:
    return [_round(value, digits=digits) for value in values]
