"""The ladder is `explain` and the memory of a rank, split by split."""

from __future__ import annotations

from dataclasses import replace

import pytest
from explored import dense, dense_question

from advisor.api.ladder import ladder
from advisor.roofline.memory import rank_memory
from advisor.search.ceiling import with_ceiling
from advisor.serving.predict import Predictor
from advisor.specs.plan import Plan


def test_there_is_a_rung_for_each_legal_degree_first() -> None:
    rungs = dense().ladder.rungs
    assert [r.plan.tp for r in rungs[:4]] == [1, 2, 4, 8]
    assert all(r.plan.replica_gpus == r.plan.tp for r in rungs[:4])


def test_a_rung_is_a_step_of_its_plan() -> None:
    asked, found = dense_question(), dense().ladder
    predictor = Predictor(asked.problem, asked.calibration)
    rung = next(r for r in found.rungs if r.plan.tp == 4 and r.plan.pp == 1)
    step = predictor.explain(Plan(tp=4), batch=32, context_tokens=found.context_tokens)
    assert rung.decode[found.batches.index(32)] == step
    assert rung.prefill == predictor.explain_prefill(Plan(tp=4), new_tokens=found.prefill_tokens)
    assert rung.memory == rank_memory(asked.problem, with_ceiling(asked.problem, Plan(tp=4)))


def test_what_does_not_fit_is_marked_and_has_its_time_all_the_same() -> None:
    first = dense().ladder.rungs[0]
    assert not first.fits
    assert first.memory.shortfall_bytes > 0
    assert first.decode[0].total_s > 0


def test_a_sequence_holds_its_tokens() -> None:
    found = dense().ladder
    rung = next(r for r in found.rungs if r.plan.tp == 8)
    # Llama-3.1-70B: 80 layers, 2 x 128 values of one of 8 key-value heads on a rank of tp=8, 2 bytes each (docs/physics.md).
    assert rung.sequence_bytes[found.contexts.index(16384)] == pytest.approx(16384 * 80 * 2 * 128 * 2, rel=1e-3)


def test_shapes_beside_the_degrees_come_after_them() -> None:
    asked = dense_question()
    found = ladder(Predictor(asked.problem, asked.calibration), [Plan(tp=2, pp=2, dp=2), Plan(tp=4, dp=2)])
    assert [replace(r.plan, settings=None) for r in found.rungs[4:]] == [Plan(tp=2, pp=2)]
