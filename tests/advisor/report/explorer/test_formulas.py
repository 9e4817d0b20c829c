"""A formula comes to the figure it explains."""

from __future__ import annotations

import pytest
from explored import dense, mixture

from advisor.report.explorer.formulas import Formula, formulas
from advisor.specs.exploration import Exploration
from advisor.specs.prediction import Prediction


def found(exploration: Exploration, at: int) -> tuple[Prediction, dict[str, Formula]]:
    prediction = exploration.explored[at].prediction
    return prediction, {f.figure: f for f in formulas(exploration.problem, prediction)}


@pytest.mark.parametrize("at", [0, 1, 2, 5])
@pytest.mark.parametrize("exploration", [dense, mixture], ids=["dense", "mixture"])
def test_numbers_come_to_the_figure(exploration: object, at: int) -> None:
    p, by = found(exploration(), at)  # type: ignore[operator]
    figures = {
        "ttft": p.ttft_s.value, "tpot": p.tpot_s.value, "latency": p.latency_s.value, "rate": p.output_tokens_per_s.value,
        "usd": p.usd_per_million_tokens, "interval": p.tpot_s.high, "kv_bytes": p.memory.kv_bytes, "decode": p.decode.total_s,
        "per_gpu": p.output_tokens_per_s.value / p.plan.world,
    }  # fmt: skip
    for name, value in figures.items():
        if name in by:
            # Means over the requests of a simulated run need not add up to the last digit.
            within = 0.02 if name in ("latency", "rate") else 1e-3
            assert by[name].value == pytest.approx(value, rel=within), name
    assert {"latency", "rate", "kv_bytes", "kv_tokens", "max_sequences", "decode", "ideal"} <= set(by)
    page_tokens = dense().problem.engine.page_tokens * p.plan.dp * p.plan.adp
    assert p.kv_tokens <= by["kv_tokens"].value <= p.kv_tokens + page_tokens + p.kv_tokens * 0.02
    assert p.max_sequences <= by["max_sequences"].value + 1


def test_each_names_its_source() -> None:
    _, by = found(dense(), 0)
    assert all(f.source for f in by.values())
    assert "(E4)" in by["tpot"].source
    assert "(E5)" in by["ttft"].source


def test_the_all_reduce_is_there_where_ranks_talk() -> None:
    _, by = found(dense(), 0)
    assert 0 < by["all_reduce"].value < 1
    alone = next(n for n, e in enumerate(dense().explored) if e.prediction.plan.tp == 1)
    assert "all_reduce" not in found(dense(), alone)[1]
