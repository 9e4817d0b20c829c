"""Spreads made complete: lent, and never narrower where less is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.serving.familiarity import CLOSENESS, UNSEEN
from advisor.specs.calibration import Spread
from fitting.spreads import FIGURES, WIDER, SpreadKey, completed, total


def spread(size: float) -> Spread:
    return Spread(shared=size, independent=0.05, points=20)


def test_what_is_not_measured_is_lent() -> None:
    found = completed({("tpot", "fitted", ""): spread(0.1)})
    assert found["latency", "fitted", ""] == found["tpot", "fitted", ""] == spread(0.1)
    assert found["ttft", "fitted", ""].shared == pytest.approx(0.2)
    assert found["tpot", "fitted", UNSEEN].shared == pytest.approx(0.1 * WIDER)


keys = st.tuples(st.sampled_from(FIGURES), st.sampled_from(CLOSENESS[:-1]), st.sampled_from(["", "MoE", UNSEEN]))


@given(st.dictionaries(keys, st.floats(0.01, 2.0).map(spread), min_size=1))
def test_less_familiar_is_never_narrower(measured: dict[SpreadKey, Spread]) -> None:
    found = completed(measured)
    for name in FIGURES:
        for kind in ("", "MoE", UNSEEN):
            chain = [total(found[name, near, kind]) for near in CLOSENESS if (name, near, kind) in found]
            assert chain == sorted(chain)
        for near in CLOSENESS:
            if (name, near, "") in found and (name, near, UNSEEN) in found:
                assert total(found[name, near, UNSEEN]) >= total(found[name, near, ""])
