"""Many configurations from one CSV file: a row in, a row out, whatever it says."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from advisor.api.bulk import COLUMNS, estimate_rows, read_rows
from advisor.cli.app import run
from advisor.errors import QuestionError
from advisor.serving import predict

GOOD = {
    "id": "a", "hardware": "h100-80g-sxm", "gpus": "4", "engine": "vllm", "model": "llama-3.1-70b", "weight_dtype": "bf16",
    "tp": "4", "pp": "1", "dp": "1", "input_tokens": "1024", "output_tokens": "256", "mode": "closed_loop", "load": "16",
}  # fmt: skip


def row(**changes: str) -> dict[str, str | None]:
    return {**GOOD, **changes}


def test_a_row_has_every_figure_with_its_interval() -> None:
    (answer,) = estimate_rows([row()], online=False)
    assert answer["status"] == "ok"
    assert set(answer) == set(COLUMNS)
    for name in ("ttft_s", "tpot_s", "output_tokens_per_s"):
        low, value, high = (float(str(answer[name + end])) for end in ("_low", "", "_high"))
        assert 0 < low <= value <= high
    assert int(str(answer["kv_tokens"])) > 100_000


@pytest.mark.parametrize(
    ("changes", "status", "part"),
    [
        ({"tp": "1", "gpus": "1"}, "infeasible", "does not fit"),
        ({"tp": "6", "gpus": "6"}, "infeasible", "64 query heads do not divide by 6"),
        ({"model": "no-such-model"}, "unsupported", "no-such-model"),
        ({"hardware": "abacus"}, "unsupported", "abacus"),
        ({"engine": "steam"}, "unsupported", "steam"),
        ({"input_tokens": "many"}, "unsupported", "input_tokens"),
        ({"tp": "-2"}, "unsupported", "tp"),
        ({"tp": "nan"}, "unsupported", "tp"),
        ({"mode": "guess"}, "unsupported", "guess"),
        ({"load": ""}, "unsupported", "load"),
        ({"weight_dtype": "fp3"}, "unsupported", "fp3"),
        ({"model": ""}, "unsupported", "model"),
        ({"gpus": "1e99"}, "unsupported", "gpus"),
    ],
)
def test_a_bad_row_says_why_and_the_others_are_computed(changes: dict[str, str], status: str, part: str) -> None:
    answers = estimate_rows([row(), row(**changes), row(id="c")], online=False)
    assert [a["status"] for a in answers] == ["ok", status, "ok"]
    assert part in str(answers[1]["reason"])
    assert "\n" not in str(answers[1]["reason"])
    assert [a["id"] for a in answers] == ["a", "a", "c"]


def test_what_was_measured_is_never_read() -> None:
    plain = estimate_rows([row()], online=False)
    told = estimate_rows(
        [row(ttft_s="9", tpot_s="9", latency_s="9", output_tokens_per_s="9", notes="x", unknown="y")], online=False
    )
    assert plain == told


def test_replicas_share_the_users_and_attention_dp_is_read_from_dp_with_ep() -> None:
    one, two = estimate_rows([row(load="8"), row(dp="2", gpus="8", load="16")], online=False)
    assert float(str(two["output_tokens_per_s"])) == pytest.approx(2 * float(str(one["output_tokens_per_s"])), rel=0.02)
    (wide,) = estimate_rows(
        [row(model="deepseek-r1", weight_dtype="fp8", tp="1", dp="8", ep="8", gpus="8", hardware="h200-141g-sxm")], online=False
    )
    assert wide["status"] == "ok", wide["reason"]


def test_order_and_count_are_those_of_the_file_over_several_processes() -> None:
    rows = [row(id=str(i), load=str(1 + i % 7), tp=("4", "8")[i % 2], gpus="8") for i in range(60)]
    answers = estimate_rows(rows, online=False)
    assert [a["id"] for a in answers] == [str(i) for i in range(60)]
    assert answers[:4] == estimate_rows(rows[:4], online=False)


def write(path: Path, rows: list[dict[str, str | None]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_files_in_and_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(tmp_path / "in.csv", [row(), row(id="b", tp="6", gpus="6")]), tmp_path / "out.csv"
    assert run(["estimate", "--points", str(source), "--out", str(out), "--offline"]) == 0
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == list(COLUMNS)
    assert [(f["id"], f["status"]) for f in found] == [("a", "ok"), ("b", "infeasible")]
    assert "2 rows (1 ok, 1 infeasible)" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.csv"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"\xff\xfe\x00binary", "is not a CSV file"),
        (b"", "lacks the column"),
        (b"a,b\n1,2\n", "lacks the column hardware"),
    ],
)
def test_a_file_that_is_none(content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(QuestionError, match=part):
        read_rows(path)


def test_paths_that_do_not_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.csv", [row()])
    assert run(["estimate", "--points", str(tmp_path / "none.csv"), "--out", str(tmp_path / "o.csv")]) == 2
    assert run(["estimate", "--points", str(source), "--out", str(source / "below.csv")]) == 2
    assert run(["estimate", "--points", str(source)]) == 2
    assert run(["estimate", "--points", str(source), "--out", str(tmp_path / "o.csv"), "--model", "8b"]) == 2
    assert capsys.readouterr().err.count("\n") == 4


def test_a_calibration_file_counts_for_its_own_gpu_only(tmp_path: Path) -> None:
    from dataclasses import replace

    from advisor.catalog.calibrations import load_calibration, write_calibration
    from advisor.catalog.devices import load_device

    shipped = load_calibration(load_device("h100-80g-sxm"), local=False)
    slow = replace(shipped, name="mine", scales=(("decode", 2.0),))
    rows = [row(), row(hardware="h200-141g-sxm")]
    before, after = estimate_rows(rows, online=False), estimate_rows(rows, online=False, calibration=slow)
    assert float(str(after[0]["tpot_s"])) > 1.3 * float(str(before[0]["tpot_s"]))
    assert after[1] == before[1]
    path = tmp_path / "mine.yaml"
    write_calibration(slow, path)
    source = write(tmp_path / "in.csv", rows)
    assert (
        run(["estimate", "--points", str(source), "--out", str(tmp_path / "o.csv"), "--calibration", str(path), "--offline"]) == 0
    )
    with (tmp_path / "o.csv").open(newline="") as file:
        assert [f["tpot_s"] for f in csv.DictReader(file)] == [str(a["tpot_s"]) for a in after]


def test_the_questions_are_never_overwritten_by_their_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = tmp_path / "points.csv"
    points.write_text(",".join(GOOD) + "\n" + ",".join(GOOD.values()) + "\n", encoding="utf-8")
    before = points.read_bytes()
    assert run(["estimate", "--points", str(points), "--out", str(tmp_path / "." / "points.csv")]) == 2
    assert "is the file that --points reads" in capsys.readouterr().err
    assert points.read_bytes() == before


def test_users_beyond_those_that_are_simulated_only_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of any length is answered at once, and within 6% of the simulation of all of it."""
    crowd = row(load="2000")
    (simulated,) = estimate_rows([crowd], online=False)
    monkeypatch.setattr(predict, "MOST_SIMULATED", 800)
    (queued,) = estimate_rows([crowd], online=False)
    for name in ("ttft_s", "tpot_s", "output_tokens_per_s"):
        assert float(str(queued[name])) == pytest.approx(float(str(simulated[name])), rel=0.06)
    (endless,) = estimate_rows([row(load="1000000")], online=False)
    assert float(str(endless["ttft_s"])) > 100 * float(str(queued["ttft_s"]))
