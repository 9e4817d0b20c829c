"""The scatter plot in text."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from advisor.report.plot import Dot, scatter
from advisor.report.screen import PLAIN, WIDTH, Screen

DOT = st.builds(
    Dot, x=st.floats(1e-4, 1e4), y=st.floats(0.0, 1e6), label=st.sampled_from(["tp=8", "tp=4,dp=2,ep=4"]), on_front=st.booleans()
)


@given(st.lists(DOT, min_size=1, max_size=30), st.booleans())
def test_any_points_make_a_plot_that_fits(dots: list[Dot], blocks: bool) -> None:
    lines = scatter(dots, title="t", x_name="time", x_ticks=("1 ms", "2 s"), screen=Screen(blocks=blocks))
    assert len(lines) == 15
    assert max(map(len, lines)) <= WIDTH
    if any(d.on_front for d in dots):
        assert any("tp=" in line for line in lines)
    labels = {d.label for d in dots if d.on_front}
    found = {word for line in lines[1:13] for word in re.findall(r"[a-z0-9=,]*=[a-z0-9=,]*", line)}
    assert found <= labels  # a label that runs into another would be a plan that does not exist


def test_better_points_stand_higher_and_slower_ones_further_right() -> None:
    dots = [Dot(x=1, y=10, label="AA", on_front=True), Dot(x=2, y=100, label="BB", on_front=True)]
    lines = scatter(dots, title="t", x_name="time", x_ticks=("1 s", "2 s"), screen=PLAIN)
    a, b = (next((i, line.index(mark)) for i, line in enumerate(lines) if mark in line) for mark in ("AA", "BB"))
    assert a[0] > b[0]
    assert a[1] < b[1]


def test_labels_of_near_dots_stay_whole() -> None:
    dots = [Dot(x=1 + i / 50, y=100 + i, label=f"tp={2**i},ep=8", on_front=True) for i in range(4)]
    far = Dot(x=9, y=1, label="", on_front=False)
    text = "\n".join(scatter([*dots, far], title="t", x_name="x", x_ticks=("1", "9"), screen=PLAIN))
    assert all(re.search(rf"(?<![a-z0-9=,]){d.label}(?![a-z0-9=,])", text) for d in dots)
