"""`advisor calibrate`: what this machine reaches, from micro-benchmarks or from the user's own runs of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.cli.show import emit, screen
from advisor.errors import QuestionError, unknown
from advisor.files import read_bounded

if TYPE_CHECKING:
    from advisor.specs.cluster import Device

_MOST_BYTES = 50_000_000


@options.asking(only=("gpu", "gpus", "calibration"), offline=False)
def calibrate(
    *,
    points: Annotated[
        Path | None,
        typer.Option(
            "--from", help="CSV of measured runs of your engine, as `advisor compare --out` writes it.", show_default=False
        ),
    ] = None,
    given: Options,
    device: Annotated[str, typer.Option("--device", help="cuda, or cpu to try the program out without a GPU.")] = "cuda",
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write instead of this machine's own.", show_default=False)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure what this machine reaches, in under two minutes a GPU, and keep it for `recommend`.

    With --from, no GPU is needed: rows that you measured with your engine correct the calibration of their GPU (--gpu, where there
    are several). Rows that are impossible or contradict each other are named and left out.
    """
    if device not in ("cuda", "cpu"):
        raise unknown("--device", device, ("cuda", "cpu"))
    gpu, gpus, calibration = given["gpu"], given["gpus"], given["calibration"]
    if points is None:
        if calibration is not None:
            raise QuestionError("--calibration is where --from starts; micro-benchmarks start from the shipped one.")
        if gpu:
            raise QuestionError("--gpu is for --from; micro-benchmarks measure the GPUs here.")
        _measure(device=device, gpus=gpus, out=out, as_json=as_json)
    else:
        _from_points(points, gpu=gpu, calibration=Path(calibration) if calibration else None, out=out, as_json=as_json)


def _measure(*, device: str, gpus: int | None, out: Path | None, as_json: bool) -> None:
    from advisor.api.machine_here import calibrate_here
    from advisor.catalog.calibrations import local_calibration_path, write_calibration
    from advisor.measure.campaign import need_torch
    from advisor.report.calibrate import fit_page
    from advisor.specs.wire import to_json

    need_torch()
    local, cluster, _ = calibrate_here(device=device, gpus=gpus)
    path = out or (local_calibration_path(cluster.device) if device == "cuda" else None)
    if path is not None:
        write_calibration(local.calibration, path)
    emit(to_json(local) if as_json else fit_page(local, screen=screen()))
    _tell(path, usual=out is None)


def _tell(path: Path | None, *, usual: bool) -> None:
    if path is None:
        typer.echo("Not kept: a CPU is there to try the program out (--out keeps it).", err=True)
    else:
        typer.echo(f"Kept in {path}{'; `advisor recommend` takes it from there by itself' if usual else ''}.", err=True)


def _from_points(points: Path, *, gpu: str, calibration: Path | None, out: Path | None, as_json: bool) -> None:
    from advisor.calibrate.corrections import scales_from_points
    from advisor.catalog.calibrations import load_calibration, local_calibration_path, read_calibration, write_calibration
    from advisor.report.calibrate import correction_page
    from advisor.specs.wire import to_json

    rows = _rows(points)
    device = _device(rows, gpu, points)
    base = read_calibration(calibration, device) if calibration is not None else load_calibration(device)
    found = scales_from_points(rows, base)
    if not found.used:
        lost = "; ".join(f"{name} {why}" for name, why in found.left_out[:5])
        raise QuestionError(f"no row of {points} counts: {lost or 'it has no rows'}; nothing was changed.")
    path = out or local_calibration_path(device)
    write_calibration(found.calibration, path)
    emit(to_json(found) if as_json else correction_page(found, screen=screen()))
    _tell(path, usual=out is None)


def _rows(path: Path) -> list[dict[str, str | None]]:
    """The rows of a CSV file. Raises QuestionError where it is none."""
    import csv
    import io

    raw = read_bounded(path, most_bytes=_MOST_BYTES, what="a CSV file of measured runs")
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig")))
        rows = [{str(key): value for key, value in row.items() if isinstance(value, str | None)} for row in reader]
    except (UnicodeDecodeError, csv.Error):
        raise QuestionError(f"{path} is not a CSV file; give measured runs as `advisor compare --out` writes them.") from None
    if not rows or "hardware" not in rows[0]:
        raise QuestionError(f"{path} has no rows with a `hardware` column; give measured runs as `advisor compare --out` writes.")
    return rows


def _device(rows: list[dict[str, str | None]], gpu: str, path: Path) -> Device:
    """The GPU whose calibration is corrected: the one named, or the only one in the rows."""
    from advisor.catalog.machines import load_device

    if gpu:
        return load_device(gpu)
    names = sorted({load_device(name).name for row in rows if (name := (row.get("hardware") or "").strip())})
    if len(names) != 1:
        raise QuestionError(f"{path} has rows of {', '.join(names) or 'no GPU'}: say with --gpu whose calibration to correct.")
    return load_device(names[0])
