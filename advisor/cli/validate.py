"""`advisor validate`: the recommended plans on the machine here, measured beside predicted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.cli.show import emit, screen
from advisor.errors import MachineError, QuestionError, unknown

if TYPE_CHECKING:
    from advisor.api.measuring import Done
    from advisor.measure.jobs import Settings
    from advisor.measure.ranks import Nodes

RUNNER = "runner"
# The question's options that a measurement takes; the engine is an option of its own here.
QUESTION = (
    "gpu", "gpus", "nodes", "cluster", "calibration", "dtype", "preset", "input_tokens", "output_tokens", "users", "rate", "goal",
)  # fmt: skip
_INTERRUPTED = 130


@options.asking(only=QUESTION)
def validate(
    *,
    model: Annotated[str, typer.Option("--model", "-m", help="As for `recommend`.", show_default=False)] = "",
    top: Annotated[int, typer.Option("--top", min=1, help="How many of the recommended plans to measure.")] = 3,
    plan: Annotated[
        list[str] | None, typer.Option("--plan", help="A plan to measure instead, e.g. tp=2,pp=2; may be given often.")
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="What to measure: runner (bundled, no weights needed), vllm, sglang or trtllm.")
    ] = "runner",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="URL of a running server to measure; with --engine and --plan.", show_default=False)
    ] = "",
    tool: Annotated[str, typer.Option("--tool", help="Load generator for a real engine: aiperf or vllm.", show_default=False)] = "",
    given: Options,
    device: Annotated[str, typer.Option("--device", help="cuda, or cpu to try the program out without a GPU.")] = "cuda",
    layers: Annotated[int, typer.Option("--layers", min=0, help="Measure so many layers and scale (0: all).")] = 0,
    schedule: Annotated[str, typer.Option("--schedule", help="Pipeline stages: 1f1b, or naive to compare.")] = "1f1b",
    exchange: Annotated[
        str, typer.Option("--exchange", help="Experts with attention-DP: all_gather (as predicted), or all_to_all to compare.")
    ] = "all_gather",
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Folder of a safetensors checkpoint (random weights otherwise).", show_default=False),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=3, help="Timed repeats of each step.")] = 10,
    time_limit: Annotated[str, typer.Option("--time-limit", help="Longest time of one plan.")] = "600s",
    stall_limit: Annotated[str, typer.Option("--stall-limit", help="A rank without progress for so long is ended.")] = "120s",
    node_rank: Annotated[int, typer.Option("--node-rank", min=0, help="Which of --nodes this machine is.")] = 0,
    master: Annotated[
        str, typer.Option("--master", help="HOST:PORT of the first node, where several meet.", show_default=False)
    ] = "",
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--secret-file", help="File (mode 0600) with the secret of the nodes; ADVISOR_SECRET otherwise.", show_default=False
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option("--results", help="Results file to go on with (one for each question).", show_default=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what the results file has.")] = False,
    refine: Annotated[bool, typer.Option("--refine", help="Let the runs correct this machine's calibration.")] = False,
    suite: Annotated[bool, typer.Option("--suite", help="The standard table: 1B, 8B, 32B, and one rank of a 70B at tp=8.")] = False,
    cells: Annotated[bool, typer.Option("--cells", help="Every step that was timed.")] = False,
    as_json: options.Json = False,
) -> int:
    """Measure the recommended plans here, in fresh processes, and set them beside the prediction.

    Without an engine installed and without weights: a bundled transformer runs each plan. With fewer GPUs than a plan needs, one
    rank of it is measured. A run that was stopped goes on where it was. Exit code 3 when a plan could not
    be measured to its end.
    """
    seconds = _seconds("--time-limit", time_limit), _seconds("--stall-limit", stall_limit)
    for option, text, known in (
        ("--device", device, ("cuda", "cpu")), ("--schedule", schedule, ("1f1b", "naive")),
        ("--exchange", exchange, ("all_gather", "all_to_all")),
    ):  # fmt: skip
        if text not in known:
            raise unknown(option, text, known)
    if exchange != "all_gather" and (suite or refine or endpoint or engine != RUNNER):
        raise QuestionError(
            f"--exchange {exchange} compares plans on the bundled transformer; leave it out with --suite, --refine, --engine and "
            "--endpoint."
        )
    if not model and not suite:
        raise QuestionError("no model was named: say --model 8b, a Hugging Face id, or a path to config.json.")
    from advisor.api import measuring

    if endpoint or engine != RUNNER:
        done = measuring.validate_engine(
            model, given, plan or [], engine="vllm" if engine == RUNNER else engine, endpoint=endpoint, tool=tool,
            checkpoint=str(weights) if weights else "", top=top, time_limit_s=seconds[0],
        )  # fmt: skip
        code = _show(done, cells=cells, as_json=as_json)
        if refine:
            _refine(done)
        return code
    from advisor.api.machine_here import bench_for
    from advisor.measure.campaign import need_torch
    from advisor.measure.jobs import Settings

    need_torch()
    settings = Settings(
        gpus=0, device=cast(Literal["cuda", "cpu"], device), layers=layers, schedule=cast(Literal["1f1b", "naive"], schedule),
        weights_dir=str(weights.resolve()) if weights else "", repeats=repeats, time_limit_s=seconds[0], stall_limit_s=seconds[1],
        exchange=cast(Literal["all_gather", "all_to_all"], exchange),
    )  # fmt: skip
    if suite:
        return _suite(given, settings, results=results, fresh=fresh, as_json=as_json)
    meet = _meet(given.get("nodes") or 1, node_rank, master, secret_file)
    bench = bench_for(model, given, device=device, wanted=_ranks(plan or []), nodes=meet)
    done = measuring.validate_runner(bench, plan or [], top=top, settings=settings, nodes=meet, results=results, fresh=fresh)
    code = _show(done, cells=cells, as_json=as_json)
    if refine:
        _refine(done)
    return code


def _seconds(option: str, text: str) -> float:
    from advisor.units import parse

    try:
        value = parse(text, "s")
    except ValueError:
        raise QuestionError(f"{option} {text!r} is not a time with a unit; write it as 600s.") from None
    if not 1.0 <= value <= 1e6:
        raise QuestionError(f"{option} {text} is not possible; give at least 1s.")
    return value


def _meet(count: int, rank: int, master: str, secret_file: Path | None) -> Nodes:
    """Where several machines meet. Raises QuestionError where that is not stated."""
    from advisor.measure.ranks import Nodes
    from advisor.measure.secret import secret_of

    if count == 1:
        if rank or master or secret_file is not None:
            raise QuestionError("--node-rank, --master and --secret-file are for several machines: say --nodes too.")
        return Nodes()
    host, _, port = master.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise QuestionError(
            "several machines measure together: run the same command on each with --node-rank 0, 1, ... and --master HOST:PORT."
        )
    if rank >= count:
        raise QuestionError(f"--node-rank {rank} is beyond the {count} nodes: they count from 0.")
    return Nodes(count=count, rank=rank, address=host.strip("[]"), port=int(port), secret=secret_of(secret_file))


def _ranks(plans: list[str]) -> int:
    """Ranks of the largest plan given."""
    from advisor.specs.plan import Plan

    try:
        return max((Plan.parse(text).world for text in plans), default=0)
    except ValueError as error:
        raise QuestionError(f"{error}.") from None


def _show(done: Done, *, cells: bool, as_json: bool) -> int:
    """The answer, where it is kept, and the exit code."""
    from advisor.report.validate import page, validation_json

    emit(validation_json(done.validation) if as_json else page(done.validation, screen=screen(), cells=cells))
    if done.path is not None:
        typer.echo(f"Kept in {done.path}.", err=True)
    if not done.complete:
        typer.echo("Interrupted: the same command goes on from here.", err=True)
        return _INTERRUPTED
    plans = done.validation.plans
    measured = any(plan.tpot_s.measured or plan.cells for plan in plans)
    return 0 if measured and not any(plan.failed for plan in plans) else MachineError.exit_code


def _refine(done: Done) -> None:
    """Move this machine's calibration by what was measured, and say by how much."""
    from advisor.calibrate.corrections import scales_from_points
    from advisor.calibrate.local import CPU, USABLE, refined
    from advisor.catalog.calibrations import local_calibration_path, write_calibration

    if done.device.name == CPU:
        typer.echo("Nothing is refined: a CPU is there to try the program out.", err=True)
        return
    if done.left_out:
        why = "; ".join(done.left_out)
        typer.echo(f"Not counted, because below {USABLE:.0%} the runner is measured rather than the machine: {why}.", err=True)
    if not done.ratios and not done.points:
        typer.echo("Nothing is refined: no plan was measured whole and near the hardware's bound.", err=True)
        return
    moved = refined(done.calibration, done.ratios) if done.ratios else scales_from_points(done.points, done.calibration).calibration
    path = local_calibration_path(done.device)
    write_calibration(moved, path)
    scales = ", ".join(f"{name} x {factor:.3g}" for name, factor in moved.scales)
    typer.echo(f"Refined {path}: {scales or 'nothing moved'}.", err=True)


def _suite(given: Options, settings: Settings, *, results: Path | None, fresh: bool, as_json: bool) -> int:
    from advisor.api.measuring import validate_suite
    from advisor.report.suite import suite_json, suite_page

    done, rates = validate_suite(given, settings=settings, results=results, fresh=fresh)
    found = [(name, one.validation) for name, one in done]
    emit(suite_json(found, rates) if as_json else suite_page(found, rates))
    if not all(one.complete for _, one in done):
        typer.echo("Interrupted: the same command goes on from here.", err=True)
        return _INTERRUPTED
    plans = [plan for _, one in done for plan in one.validation.plans]
    return 0 if plans and all(plan.cells and not plan.failed for plan in plans) else MachineError.exit_code
