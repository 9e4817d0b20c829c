"""Speculation from words: published lengths with their spread, given ones without, and one sentence for what cannot be meant."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from advisor.catalog.speculation import load_speculation
from advisor.errors import QuestionError

LENGTHS = Path(__file__).parents[4] / "shared" / "measured" / "acceptance_lengths.csv"


def test_the_published_length_has_its_source_and_spread() -> None:
    found = load_speculation("mtp:3")
    assert (found.method, found.drafts, found.verified, found.label) == ("mtp", 3, 4, "mtp:3")
    assert found.length_low == 2.49
    assert found.length == 3.03
    assert found.length_high == 3.39
    assert "SPEED-Bench" in found.source


@pytest.mark.skipif(not LENGTHS.is_file(), reason="../shared/measured is not beside this checkout")
@pytest.mark.parametrize("method", ["mtp", "eagle3"])
@pytest.mark.parametrize("drafts", [1, 3, 8])
def test_the_shipped_lengths_are_the_published_ones(method: str, drafts: int) -> None:
    with LENGTHS.open(newline="") as file:
        found = [
            float(row["acceptance_length"])
            for row in csv.DictReader(file)
            if row["method"] == method and int(row["num_speculative_tokens"]) == drafts
        ]
    shipped = load_speculation(f"{method}:{drafts}")
    assert shipped.length == pytest.approx(statistics.mean(found), abs=0.006)
    assert (shipped.length_low, shipped.length_high) == (min(found), max(found))


def test_rates_and_lengths_are_taken_as_given() -> None:
    assert load_speculation("ngram:4", acceptance="1.8").length == 1.8
    by_rates = load_speculation("mtp:3", acceptance="0.79,0.61,0.46")
    assert by_rates.length == pytest.approx(2.4936, abs=1e-4)
    assert by_rates.length_low == by_rates.length_high == by_rates.length


@pytest.mark.parametrize(
    ("text", "acceptance", "why"),
    [
        ("medusa:3", "", "METHOD:TOKENS"),
        ("mtp", "", "METHOD:TOKENS"),
        ("mtp:0", "", "METHOD:TOKENS"),
        ("ngram:4", "", "--acceptance"),
        ("mtp:12", "", "end at 8"),
        ("mtp:3", "5", "between 1 and 4"),
        ("mtp:3", "0.8,0.7", "3 rates"),
        ("mtp:3", "nan", "between 1 and 4"),
        ("mtp:3", "$(reboot)", "between 1 and 4"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(text: str, acceptance: str, why: str) -> None:
    with pytest.raises(QuestionError, match=why):
        load_speculation(text, acceptance=acceptance)
