"""What counts in the scoreboard, and how it is sliced."""

from __future__ import annotations

from dataclasses import replace

from advisor.calibrate.accuracy import FEWEST, Row, counted, of_vendor, plan_choices, scoreboard, slices
from advisor.calibrate.points import point_of_row
from advisor.report.accuracy import Board, accuracy_markdown

ROW = {
    "id": "a", "source": "s", "hardware": "h100-80g-sxm", "engine": "vllm", "engine_version": "0.19.0", "model": "m", "gpus": "8",
    "tp": "8", "input_tokens": "1024", "output_tokens": "512", "mode": "closed_loop", "load": "64",
}  # fmt: skip


def row(
    *, number: int = 0, figure: str = "tpot_s", measured: float = 1.0, predicted: float = 1.0, tp: str = "8", load: str = "64"
) -> Row:
    point = point_of_row({**ROW, "id": f"r{number}", "tp": tp, "load": load})
    return Row(
        point=point, url="https://example.org", figure=figure, measured=measured, predicted=predicted, low=predicted / 1.2,
        high=predicted * 1.2, without="model m", anomaly="", family="MoE", architecture="hopper",
    )  # fmt: skip


def test_rows_under_unstated_conditions_and_fitted_rows_do_not_count() -> None:
    assert counted(row())
    assert not counted(replace(row(), anomaly="speculative decoding: mtp"))
    assert not counted(replace(row(), without=""))
    assert scoreboard([replace(row(), anomaly="x"), replace(row(), without="")]) == []


def test_slices_put_what_misses_its_aim_by_most_first() -> None:
    near = [row(number=i, predicted=1.02) for i in range(FEWEST)]
    far = [replace(row(number=i, predicted=1.5), family="hybrid", architecture="blackwell") for i in range(FEWEST)]
    found = slices([*near, *far])
    assert {(part.axis, part.value) for part in found[:2]} == {("models", "hybrid"), ("GPUs", "blackwell")}
    assert {part.axis for part in found} == {"engine", "models", "GPUs"}
    assert slices(near[:-1]) == []  # too few to say anything


def test_scatter_says_coverage_and_width() -> None:
    (line,) = scoreboard([row(predicted=1.1), row(predicted=2.0)])
    assert line.reached.covered == 0.5
    assert line.reached.width is not None
    assert round(line.reached.width, 2) == 1.44


def test_choices_are_told_apart_by_vendor() -> None:
    rows = [
        replace(row(figure=figure, measured=seconds, predicted=seconds, tp=tp, load=load), architecture=architecture)
        for architecture in ("hopper", "cdna3")
        for tp, load, seconds in (("8", "64", 1.0), ("4", "32", 2.0))
        for figure in ("ttft_s", "tpot_s")
    ]
    amd, others = of_vendor(rows, amd=True), of_vendor(rows, amd=False)
    assert len(amd) == len(others) == 4
    assert plan_choices(others).made == plan_choices(others).right == 1


def test_the_page_opens_with_the_scores_and_folds_the_rows_away() -> None:
    rows = [row(number=i) for i in range(FEWEST)]
    page = accuracy_markdown(Board.of(rows, rows, rows), rows, [])
    assert page.index("own model left out") < page.index("What is weak first") < page.index("<details>")
    assert page.index("<details>") < page.index("https://example.org")
    assert page.rstrip().endswith("</details>")
    assert "speculates" in page
