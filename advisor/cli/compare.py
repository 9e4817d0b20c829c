"""`advisor compare`: a load generator's result beside the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.cli.show import emit
from advisor.errors import QuestionError
from advisor.files import locked, read_bounded, shown, write_whole

if TYPE_CHECKING:
    from advisor.measure.load_result import Comparison
    from advisor.specs.plan import Plan

_MOST_RESULT_BYTES = 256_000_000  # vLLM writes every request's times: about 200 bytes a request
_MOST_SCRIPT_BYTES = 4_000_000
_MOST_POINTS_BYTES = 50_000_000


@options.asking(without=("preset", "input_tokens", "output_tokens", "users", "rate", "ttft", "tpot", "goal"))
def compare(
    *,
    result: Annotated[Path, typer.Argument(help="JSON of `vllm bench serve --save-result` or of aiperf.", show_default=False)],
    model: options.Model,
    plan: options.PlanText = "",
    script: Annotated[
        Path | None, typer.Option("--script", help="Launch script that was run: its plan is compared.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="CSV file to add the measured point to, for `advisor calibrate --from`.", show_default=False),
    ] = None,
    given: Options,
    as_json: options.Json = False,
) -> None:
    """Measured TTFT, TPOT and throughput beside the predicted ones, for the load that was run.

    Lengths, users and rate are those of the result. The plan is --plan, or the one in the script that was run.
    """
    from advisor.api.answer import estimate_plan
    from advisor.api.question import question
    from advisor.measure.load_result import beside, load_run, result_of

    measured = result_of(_json(result))
    paced = measured.users or measured.rate_per_s
    load: Options = {
        **given, "preset": "" if paced else "batch", "input_tokens": max(1, round(measured.input_tokens)),
        "output_tokens": max(1, round(measured.output_tokens)), "rate": measured.rate_per_s or None,
        "users": measured.users or None if not measured.rate_per_s else None,
    }  # fmt: skip
    asked = question(model=model, **load)
    problem = replace(asked.problem, workload=load_run(measured, asked.problem.workload))
    prediction = estimate_plan(replace(asked, problem=problem), _plan(plan, script))
    lines = beside(measured, prediction)
    if as_json:
        from advisor.specs.wire import to_json

        emit("[" + ", ".join(to_json(line, indent=None) for line in lines) + "]")
    else:
        emit(_page(measured.requests, measured.failed, measured.tool, prediction.plan.label, lines))
    if out is not None:
        from datetime import UTC, datetime

        from advisor.measure.load_result import point_row

        date = datetime.now(UTC).strftime("%Y-%m-%d")
        _add(out, point_row(measured, problem, prediction.plan, name=f"{result.stem}-{date}", date=date))
        typer.echo(f"Added the point to {shown(out)}.", err=True)


def _json(path: Path) -> dict[str, Any]:
    from advisor.untrusted import parse_json

    raw = read_bounded(path, most_bytes=_MOST_RESULT_BYTES, what="the JSON result of the benchmark")
    try:
        return parse_json(raw.decode("utf-8"), origin=shown(path))
    except UnicodeDecodeError:
        raise QuestionError(f"{shown(path)} is not UTF-8 text; give the JSON result of the benchmark.") from None


def _plan(text: str, script: Path | None) -> str | Plan:
    if bool(text) == (script is not None):
        raise QuestionError("say which plan was run: --plan tp=4,dp=2, or --script with the launch script; one of the two.")
    if script is None:
        return text
    from advisor.launch import parse

    raw = read_bounded(script, most_bytes=_MOST_SCRIPT_BYTES, what="the launch script that was run")
    try:
        return parse(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise QuestionError(f"{shown(script)} is not UTF-8 text; give the launch script that was run.") from None


def _page(requests: int, failed: int, tool: str, label: str, lines: Sequence[Comparison]) -> str:
    from advisor.units import show, show_count

    def text(value: float, unit: str) -> str:
        return show(value, "s") if unit == "s" else f"{show_count(value)} {unit}"

    lost = f", {failed} failed" if failed else ""
    rows = [f"{label}: {requests:,} requests with {tool}{lost}. Means, and the 90% interval of the prediction.", ""]
    rows.append(f"  {'':<22} {'predicted':>18} {'measured':>18} {'measured/predicted':>19}  interval")
    for line in lines:
        interval = f"{text(line.predicted.low, line.unit)} to {text(line.predicted.high, line.unit)}"
        where = "inside" if line.inside else "outside"
        rows.append(
            f"  {line.name:<22} {text(line.predicted.value, line.unit):>18} {text(line.measured, line.unit):>18} "
            f"{line.ratio:>19.2f}  {where} {interval}"
        )
    return "\n".join(rows)


def _add(path: Path, row: dict[str, str]) -> None:
    """Append a row, with the heading where the file is new. Another process that adds at the same time waits its turn."""
    import csv
    import io

    with locked(path):
        known = "a CSV file of measured points, or a new name"
        raw = read_bounded(path, most_bytes=_MOST_POINTS_BYTES, what=known) if path.exists() else b""
        try:
            before = raw.decode("utf-8-sig")
            heading = next(csv.reader(io.StringIO(before), strict=True), None)
        except (UnicodeDecodeError, csv.Error):
            raise QuestionError(f"{shown(path)} is not a CSV file; give {known}.") from None
        if heading is not None and not set(row) <= set(heading):
            raise QuestionError(f"{shown(path)} has other columns than points of measurement; choose another --out.")
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=heading or list(row), lineterminator="\n")
        if heading is None:
            writer.writeheader()
        writer.writerow(row)
        write_whole(path, before + ("\n" if before and not before.endswith("\n") else "") + text.getvalue())
