"""Why the first plan is first, as figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from advisor.search.cause import cause, costs
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload

Build = Callable[..., Prediction]
LOAD = Workload(input_tokens=1024, output_tokens=512)


def test_the_part_that_speaks_most_for_the_first_is_named_with_both_figures(prediction: Build) -> None:
    tp4 = prediction("tp=4,dp=2", rate=6000, tpot_s=0.026, parts=(("weights", 0.02), ("all-reduce", 0.003), ("host", 0.003)))
    tp8 = prediction("tp=8", rate=3750, tpot_s=0.02, parts=(("weights", 0.01), ("all-reduce", 0.007), ("host", 0.003)))
    found = cause(tp4, tp8, LOAD)
    assert found.kind == "figures"
    assert found.figure("output_tokens_per_s").ratio == pytest.approx(1.6)
    # A step of tp=8 shares 8 GPUs among its 3750 * 0.02 = 75 sequences, one of tp=4 shares 4 among 6000 * 0.026 / 2 = 78.
    assert costs(tp8, LOAD)["all-reduce"] == pytest.approx(0.007 * 8 / 75)
    assert found.part is not None
    assert found.part.name == "all-reduce"
    assert found.part.first == pytest.approx(0.003 * 4 / 78)
    assert found.part.other == pytest.approx(0.007 * 8 / 75)


def test_for_one_user_the_parts_are_seconds_on_the_way_of_a_token(prediction: Build) -> None:
    staged = prediction("tp=2,pp=2", parts=(("weights", 0.006), ("host", 0.001)))
    assert costs(staged, Workload(input_tokens=8, output_tokens=8, mode="single_stream", users=1)) == pytest.approx(
        {"weights": 0.006, "host": 0.001}
    )


def test_a_full_cache_is_a_cause_only_where_the_first_holds_more(prediction: Build) -> None:
    small = prediction("tp=1,dp=8", rate=6000, tpot_s=0.05, kv_tokens=400 * 1536)  # 300 of the 400 sequences that fit
    large = prediction("tp=4,dp=2", rate=7000, kv_tokens=800 * 1536)
    found = cause(large, small, LOAD).cached_sequences
    assert found is not None
    assert (found.first, found.other) == (800, 400)
    assert cause(small, large, LOAD).cached_sequences is None


def test_the_only_plan_has_nothing_to_be_compared_with(prediction: Build) -> None:
    assert cause(prediction("tp=8"), None, LOAD).kind == "only_plan"
