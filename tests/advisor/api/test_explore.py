"""Which plans are shown in full, which of them tie, where the axis ends, and the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from explored import dense, dense_question, mixture

from advisor.api.explore import MOST_EXPLORED, chosen, margins, most_users, write_page
from advisor.api.question import question
from advisor.errors import QuestionError
from advisor.search.order import shape
from advisor.search.rank import rank
from advisor.specs.prediction import Prediction
from advisor.specs.workload import Workload

LOAD = Workload(input_tokens=1024, output_tokens=512, mode="closed_loop", users=32)


def test_the_first_the_front_and_each_shape_are_shown(prediction: Callable[..., Prediction]) -> None:
    plans = [prediction(f"tp={tp},dp={dp}", rate=100.0 * tp * dp, tpot_s=0.1 / tp) for tp in (1, 2, 4) for dp in (1, 2)]
    advice = rank(plans, LOAD, ())
    shown = [p.plan for p in chosen(advice)]
    assert advice.choices[0].plan in shown
    assert set(advice.front) <= set(shown)
    assert {shape(p) for p in shown} == {shape(p.plan) for p in plans}


def test_a_large_search_is_cut(prediction: Callable[..., Prediction]) -> None:
    plans = [prediction(f"tp={tp},pp={pp}", rate=10.0 * tp + pp) for tp in range(1, 9) for pp in range(1, 9)]
    assert len(chosen(rank(plans, LOAD, ()))) == MOST_EXPLORED


def test_limits_to_be_kept_with_certainty_leave_a_share() -> None:
    ttft, tpot = margins(dense_question())
    assert 0.3 < ttft < tpot < 1  # TTFT is known less well
    assert margins(question(model="8b", gpu="l40s", gpus=2, users=4, online=False)) == (1.0, 1.0)


def test_the_axis_reaches_beyond_what_fits(prediction: Callable[..., Prediction]) -> None:
    roomy = prediction("tp=8", kv_tokens=1536 * 300)
    assert most_users([roomy], LOAD) == 1024
    assert most_users([], LOAD) == 256


def test_what_is_explored_is_the_advice() -> None:
    found = dense()
    assert found.explored[0].prediction == found.advice.choices[0]
    assert found.asked == found.advice.asked
    assert {e.prediction.plan for e in mixture().explored if e.tied} == set(mixture().advice.ties)


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_page(dense(), tmp_path / "advice.html")
    assert [file.name for file in tmp_path.iterdir()] == ["advice.html"]
    with pytest.raises(QuestionError, match="is a folder"):
        write_page(dense(), tmp_path)
