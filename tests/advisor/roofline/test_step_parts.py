"""How the parts of a step add up, over parts that are easy to work by hand.

A new token takes 1 ms, of which the experts 0.5; a decode 1 us for each cached token; a prompt token 1 us for each token that it
sees on average; logits 0.1 ms a sequence.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from advisor.catalog.engines import load_engine
from advisor.roofline.attention import Batch
from advisor.roofline.step import CONTEXTS, GRID, StepModel, _bracket, _no_faster, _rounded
from advisor.specs.engine import HostTime
from advisor.specs.plan import Plan


class Simple(StepModel):
    def __init__(
        self, plan: Plan, *, host: HostTime | None = None, piece_tokens: int = 0, launches: float = 0.0, queries: int = 1
    ) -> None:
        self.plan = plan
        free = HostTime(step_s=0.0, sequence_s=0.0, request_s=0.0, overlap=0.0, kernel_s=1e-3)
        self.engine = replace(load_engine("vllm"), host=host or free, piece_tokens=piece_tokens, graphs_up_to=512)
        self.stage_kinds = [(stage, 1) for stage in range(plan.pp)]
        self._scale = SimpleNamespace(host=1.0)  # type: ignore[assignment]
        self._light = (-1.0, -1.0, 0.0, 0.0)
        self._kernels = launches
        self.queries, self._draft = queries, 0.01 if queries > 1 else 0.0

    def tokens_s(self, stage: int, tokens: float) -> float:
        return 1e-3 * tokens

    def experts_s(self, stage: int, tokens: float) -> float:
        return 0.5e-3 * tokens

    def decode_attention_s(self, stage: int, decodes: float, context: float) -> float:
        return 1e-6 * decodes * context

    def prefill_attention_s(self, stage: int, new: float, past: float) -> float:
        return 1e-6 * new * (new / 2 + past)

    def head_s(self, sequences: float) -> float:
        return 1e-4 * sequences

    def draft_s(self, decodes: float, context: float) -> float:
        return self._draft * decodes

    def draft_prefill_s(self, new: float, past: float) -> float:
        return self._draft * new

    def _launches(self, stage: int) -> float:
        return self._kernels


def test_e1_one_rank_adds_up_its_tokens_attention_and_logits() -> None:
    """4 decodes over 1,000 tokens and two chunks of 100 new: 204 + 4 + 2 x 5 + 0.6 ms."""
    model = Simple(Plan())
    assert model.mixed_s(4, 1000, [(100, 0), (100, 0)]) == pytest.approx(0.2186)
    assert model.mixed_s(4, 1000, [(100, 0), (100, 50)]) == pytest.approx(0.2236)  # the second sees 50 more
    assert model.mixed_s(4, 1000, ()) == pytest.approx(0.0084)
    assert model.mixed_s(0, 0, ()) == 0.0


def test_a_sequence_that_verifies_drafts_brings_several_tokens_and_logits() -> None:
    """Three tokens each of 4 sequences, and a drafter of 10 ms a sequence; over a prompt it takes 10 ms a token as well."""
    model = Simple(Plan(), queries=3)
    assert model.mixed_s(4, 1000, ()) == pytest.approx(12e-3 + 4e-3 + 12e-4 + 0.04)
    assert model.mixed_s(0, 0, [(100, 0), (50, 0)]) == pytest.approx(0.15 + 5e-3 + 1.25e-3 + 2e-4 + 1.5)


def test_the_busiest_attention_group_is_waited_for_and_experts_see_all() -> None:
    """Two groups, one chunk: the busy one has 2 decodes and 100 new tokens, the experts 52 on average for each."""
    step_s = Simple(Plan(adp=2)).mixed_s(4, 1000, [(100, 0)])
    assert step_s == pytest.approx(0.102 + 0.002 - 0.5e-3 * 50 + 0.005 + 1e-4 * 3)


def test_e2_the_slowest_stage_sets_the_pace_of_micro_batches() -> None:
    """Two stages, 4 decodes as two micro-batches of 2: 2 + 2 ms of tokens and attention, 0.2 ms of logits on the last."""
    model = Simple(Plan(pp=2))
    first, last = 0.002 + 0.002, 0.002 + 0.002 + 0.0002
    assert model.decode_s(4, 1000) == pytest.approx(max(first + last, 2 * last))
    # One chunk joins one of the two: its micro-batch visits both stages, the light one follows on the slower.
    heavy_first = 0.102 + 0.002 + 0.005
    heavy_last = heavy_first + 0.0003
    assert model.mixed_s(4, 1000, [(100, 0)]) == pytest.approx(max(heavy_first + heavy_last, heavy_last + last))


def test_a_prompt_in_pieces_is_on_several_stages_at_once() -> None:
    """A chunk of 100 in four pieces of 25: the first visits both stages, three more follow at the slower stage's pace."""
    model = Simple(Plan(pp=2), piece_tokens=25)
    first = 0.1 + 0.005
    last = first + 0.0001
    assert model.mixed_s(0, 0, [(100, 0)]) == pytest.approx(max((first + last + 3 * last) / 4, last))


def test_the_host_hides_its_overlapped_share_behind_the_gpu() -> None:
    host = HostTime(step_s=0.010, sequence_s=0.0, request_s=0.0, overlap=0.75, kernel_s=0.0)
    model = Simple(Plan(), host=host)
    assert model.with_host_s(0.020, 1, 0, 0) == pytest.approx(0.0225)  # the GPU is busy longer than 7.5 ms
    assert model.with_host_s(0.001, 1, 0, 0) == pytest.approx(0.0100)  # the host is


def test_steps_outside_a_graph_are_no_faster_than_their_launches() -> None:
    """100 kernels at 1 ms: a decode of 4 runs in a graph and does not wait, one of 513 and a prompt do."""
    model = Simple(Plan(), launches=100)
    assert model.stage_s(0, Batch(decodes=4, context=1000)) == pytest.approx(0.0084)
    assert model.stage_s(0, Batch(prefills=1, new=10)) == pytest.approx(0.1, rel=0.01)
    assert model.stage_s(0, Batch(decodes=513, context=1)) > 0.513 + 1e-6 * 513 + 0.0513


def test_a_smooth_maximum_of_kernels_and_launches() -> None:
    assert _no_faster(0.0, 0.0) == 0.0
    assert _no_faster(1.0, 0.0) == 1.0
    assert _no_faster(1.0, 1.0) == pytest.approx(2**0.25)  # 19% above either where both take as long
    assert _no_faster(1.0, 2.0) == _no_faster(2.0, 1.0) == pytest.approx(2 * (1 + 1 / 16) ** 0.25)


def test_the_grid_is_exact_at_its_points_and_linear_between() -> None:
    assert _bracket(CONTEXTS, 16) == (16, 16, 0.0)
    assert _bracket(CONTEXTS, 3) == (16, 16, 0.0)  # below the first point nothing shrinks further
    assert _bracket(CONTEXTS, 136) == (16, 256, 0.5)
    assert _bracket(CONTEXTS, 256) == (256, 256, 0.0)
    low, high, weight = _bracket(CONTEXTS, 2 * CONTEXTS[-1])
    assert (low, high) == (CONTEXTS[-2], CONTEXTS[-1])
    assert low + weight * (high - low) == 2 * CONTEXTS[-1]  # beyond the last the last interval goes on
    assert GRID[:16] == list(range(1, 17))


def test_lengths_are_rounded_to_a_percent() -> None:
    assert _rounded(63.4) == 63
    assert _rounded(1000) == 1000
    assert _rounded(1003) == 1000  # 512 to 1024 in steps of 8
    assert all(abs(_rounded(x) / x - 1) < 0.01 for x in (64, 100.3, 777, 8193, 123456.7))
