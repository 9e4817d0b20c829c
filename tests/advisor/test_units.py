"""Text and SI."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.units import parse, show, show_bytes, show_count


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("3.35 TB/s", "B/s", 3.35e12),
        ("400 Gb/s", "B/s", 50e9),
        ("80GiB", "B", 80 * 2**30),
        ("80 GB", "B", 80e9),
        ("2 us", "s", 2e-6),
        ("989.4 TFLOP/s", "FLOP/s", 989.4e12),
        ("500ms", "s", 0.5),
        ("1_000 W", "W", 1000.0),
    ],
)
def test_text_with_a_unit_is_read(text: str, unit: str, value: float) -> None:
    assert parse(text, unit) == pytest.approx(value)


@pytest.mark.parametrize("text", ["30", "30 s", "fast", "", "1e400 B/s", "3 GB/s of each", "-"])
def test_what_is_no_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"number with a unit|no unit of|not finite"):
        parse(text, "B/s")


@given(st.floats(min_value=1e-8, max_value=9e16), st.sampled_from(["B/s", "s", "FLOP/s", "W"]))
def test_what_is_shown_is_read_back_to_three_digits(value: float, unit: str) -> None:
    assert parse(show(value, unit), unit) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(("value", "text"), [(999.6e9, "1 TB/s"), (999.4e9, "999 GB/s"), (0.0, "0 B/s"), (1234.0, "1.23 kB/s")])
def test_three_digits_and_the_prefix_that_goes_with_them(value: float, text: str) -> None:
    assert show(value, "B/s") == text


def test_bytes_in_binary_and_counts_with_separators() -> None:
    assert [show_bytes(x) for x in (80 * 2**30, 1.5 * 2**20, 512)] == ["80 GiB", "1.5 MiB", "512 B"]
    assert [show_count(x) for x in (1234567, 12.345, 0.5, 0)] == ["1,230,000", "12.3", "0.5", "0"]
