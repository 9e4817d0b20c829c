"""Time through stages: the share of waiting that a plan forces is found, and pieces of a prompt meet in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")

from sharded import on_ranks  # noqa: E402

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.specs.experiment import Cell, Job, Timing  # noqa: E402
from advisor.specs.plan import Plan  # noqa: E402
from runner.measure import Bench  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.stages import prefill_in_pieces  # noqa: E402

SPEC = model_from_config({**CONFIGS["llama"], "num_hidden_layers": 4}, None, name="t", source="t")
DECODE = Cell(phase="decode", batch=4, context_tokens=16)
PIECES = Cell(phase="prefill", batch=1, context_tokens=16, chunk_tokens=5)
TWO = Plan(pp=2)


def timings(mesh: Mesh, cells: list[Cell]) -> list[Timing | None]:
    job = Job(id="j", model=SPEC, plan=TWO, cells=tuple(cells), device="cpu", warmup=1, repeats=5)
    bench = Bench(job, mesh, torch.device("cpu"), layers=0, beat=lambda _: None)
    return [bench.time(cell, most_s=5) for cell in cells]


def pieces_and_whole(mesh: Mesh, piece: int) -> Any:
    """Logits of the next token after the prompt in pieces and in one, on the last stage."""
    job = Job(id="j", model=SPEC, plan=TWO, cells=(PIECES,), device="cpu")
    bench = Bench(job, mesh, torch.device("cpu"), layers=0, beat=lambda _: None)
    torch.manual_seed(4)
    found = []
    for size in (piece, PIECES.context_tokens):
        batches = bench._batches(replace(PIECES, chunk_tokens=size), 1)
        assert batches is not None
        batches[0].prompts = torch.arange(PIECES.context_tokens)[None]
        prefill_in_pieces(bench.model, batches[0], size)
        at = torch.tensor([PIECES.context_tokens - 1])
        x = torch.tensor([PIECES.context_tokens - 1])
        if not mesh.is_first_stage:
            x = mesh.receive(bench.model.states(1, 1))
        y = bench.model.decode(x, at, batches[0].cache)
        if not mesh.is_last_stage:
            mesh.send_on(y).wait()  # type: ignore[union-attr]
        found.append(y)
    return found if mesh.is_last_stage else None


def test_one_micro_batch_leaves_each_of_two_stages_idle_half_the_time() -> None:
    """What the plan forces: with one sequence a stage works while the other waits, so at least half of the step is waiting."""
    one = replace(DECODE, batch=1)
    ranks = on_ranks(timings, [(TWO, [one, DECODE, PIECES])])[0]
    for alone, four, pieces in ranks:
        assert alone is not None
        assert four is not None
        assert alone.bubble is not None
        assert four.bubble is not None
        assert alone.bubble >= 0.5
        assert four.bubble < alone.bubble  # two micro-batches fill what one leaves
        assert pieces is not None
        assert pieces.median_s > 0


def test_the_naive_step_is_the_whole_batch_at_once() -> None:
    """One micro-batch of four sequences, so that the weights are read once: less than the two micro-batches one after the other."""
    seen: list[int] = []

    class Noting(Bench):
        def _decode_stages(self, cell: Cell, batches: Any, most_s: float) -> Timing:
            seen.append(len(batches))
            return Timing(
                cell=cell, median_s=float(len(seen)), low_s=1, high_s=1, repeats=3, achieved_flop_per_s=1, achieved_bytes_per_s=1
            )

    job = Job(id="j", model=SPEC, plan=TWO, cells=(DECODE,), device="cpu")
    mesh = Mesh(TWO, TWO.coordinates(0))
    bench = Noting(job, mesh, torch.device("cpu"), layers=0, beat=lambda _: None)
    found = bench.time(DECODE, most_s=5)
    assert found is not None
    assert seen == [2, 1]
    assert (found.median_s, found.naive_s) == (1.0, 2.0)
    seen.clear()
    naive = Noting(replace(job, schedule="naive"), mesh, torch.device("cpu"), layers=0, beat=lambda _: None).time(DECODE, most_s=5)
    assert seen == [1]
    assert naive is not None
    assert naive.naive_s == naive.median_s


def test_pieces_of_a_prompt_give_the_logits_of_the_whole() -> None:
    for size in on_ranks(pieces_and_whole, [(TWO, 5), (TWO, 8)]):
        pieces, whole = size[1]
        torch.testing.assert_close(pieces, whole, atol=2e-5, rtol=2e-5)
