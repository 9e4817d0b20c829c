"""Fit every engine profile on a points file and write what came of it; the one command behind `profiles/engines`.

    python -m fitting.engines ../shared/measured/points.csv

Rows marked with an anomaly and runs of unstated conditions are not fitted. Of each profile's other rows a fixed sample (by a hash
of the id, spread over models, GPUs and modes) is fitted; the error bars come from all of them, each predicted without its own
model (or its own GPU).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path

import yaml

from advisor.calibrate.accuracy import (
    Group,
    LeftOut,
    Row,
    family_group,
    gpu_group,
    model_group,
    plan_choices,
    read_points,
    request_seconds,
    score,
    scoreboard,
)
from advisor.calibrate.cases import Case
from advisor.calibrate.corrections import SPREAD_NAMES
from advisor.calibrate.lookup import Lookup
from advisor.calibrate.points import Point, figures_of_row, point_of_row
from advisor.calibrate.recipes import unstated
from advisor.calibrate.residuals import scatter, spread_of
from advisor.catalog import published
from advisor.catalog.engines import load_engine, reload
from advisor.errors import AdvisorError
from advisor.roofline.engine_scales import scale_scopes
from advisor.serving.familiarity import LENT, UNSEEN, closeness
from advisor.specs import wire
from advisor.specs.calibration import Spread
from advisor.specs.engine import Engine, HostTime
from fitting.engine_fit import fit_engine
from fitting.engine_rows import engine_rows
from fitting.spreads import SpreadKey, completed

Rows = Sequence[Mapping[str, str | None]]

# Rows a profile is fitted on: of a server, whose loads are simulated, and of an engine measured by static batches, which are not.
SAMPLE, SAMPLE_STATIC = 100, 200
SCORED = 240  # rows that error bars come from
MOST_USERS = 64  # of a row that is fitted: larger crowds take long to simulate and are all left to the report
PUBLISHED, COMPLETE = 320, 480  # rows carried in profiles/published: drawn evenly, then whole questions until there are so many
BEYOND = math.log(6)  # a row this far off ran under conditions it does not state (kernels compiled inside the run, a queue)
# Scales of their own beyond the engine's: for an architecture, for a format on it, and for a device whose kernels nobody
# measured (its calibration is borrowed, so an engine's points are all that tells of it).
BY_ARCHITECTURE = ("decode", "prefill", "collective")
BY_FORMAT = ("decode", "prefill", "attention")
BY_DEVICE = ("decode", "prefill", "collective", "attention", "experts", "host")
FEWEST_ROWS = 4  # of an architecture, format or device in the sample, for a scale of its own
# What each may add to its engine's scale, as a share of that scale's own spread: kernels that were measured leave little to an
# architecture; an engine may run another kernel for a format than the one that was measured.
ARCHITECTURE_SHARE, FORMAT_SHARE, BORROWED_SHARE = 0.3, 0.5, 5.0
EXPERTS_SHARE = 1.0  # of experts in a format: versions of an engine replace those kernels most often
UNSPLIT_SHARE = 2.0  # nobody measured those kernels apart


def _start(
    *, step_s: float, sequence_s: float = 2e-5, overlap: float = 0.0, kernel_s: float = 6e-6, request_s: float = 0.0,
    context_s: float = 0.0, ranks_s: float = 0.0,
) -> HostTime:  # fmt: skip
    """Where a fit begins, always the same, so that it ends the same. A server (request_s > 0) has a front end besides."""
    served = request_s > 0
    return HostTime(
        step_s=step_s, sequence_s=sequence_s, request_s=request_s, overlap=overlap, kernel_s=kernel_s,
        admit_s=1e-3 if served else 0.0, token_s=3e-5 if served else 0.0, wait_steps=1.0 if served else 0.0,
        prefill_s=1e-3 if served else 0.0, context_s=context_s, ranks_s=ranks_s,
    )  # fmt: skip


# The engines whose kernels the tables hold.
TABLED = (("vllm", "2025"), ("sglang", "2025"), ("trtllm", "2025"), ("trtllm", "2026"))
# Orders of magnitude: a Python scheduler (1 to 4 ms a step), a C++ one (0.3 ms), a compiled loop (0.1 ms);
# 5 to 20 us to launch a kernel from C++ or Python; tens of ms for HTTP, tokeniser and first scheduling.
START = {
    # Block tables are lists, made into tensors each step and sent to the other ranks' processes (vLLM 0.6, model_runner.py).
    ("vllm", "2024"): _start(step_s=4e-3, sequence_s=1e-4, context_s=1e-7, ranks_s=1e-3),
    ("vllm", "2025"): _start(step_s=1.5e-3, overlap=0.2, kernel_s=1.2e-5, request_s=0.03),
    ("sglang", "2025"): _start(step_s=8e-4, overlap=0.5, kernel_s=2e-5, request_s=0.04),
    ("trtllm", "2024"): _start(step_s=3e-4, sequence_s=1e-5, overlap=0.7),
    ("trtllm", "2025"): _start(step_s=1e-3, overlap=0.5, kernel_s=2e-5, request_s=0.03),
    ("trtllm", "2026"): _start(step_s=1e-3, overlap=0.5, kernel_s=2e-5, request_s=0.03),
    ("gpt-fast", "2024"): _start(step_s=1e-4, sequence_s=0.0),
    ("llamacpp", "2024"): _start(step_s=5e-4, sequence_s=0.0, kernel_s=3e-6),
    ("lmdeploy", "2024"): _start(step_s=5e-4, sequence_s=1e-5, overlap=0.5),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: fit, write profiles, print what was reached."""
    parser = argparse.ArgumentParser(prog="python -m fitting.engines", description=__doc__)
    parser.add_argument("points", type=Path, help="measured rows in the columns of advisor.calibrate.points")
    parser.add_argument("--profiles", type=Path, default=Path(str(files("profiles"))), help="folder to write to")
    parser.add_argument("--only", nargs="*", default=[], help="engine profiles to fit, e.g. vllm-2025; the others stay")
    parser.add_argument("--bars", action="store_true", help="keep the coefficients, make the error bars again")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    rows = [*read_points(given.points.read_text(encoding="utf-8")), *engine_rows(given.points.parent)]
    lookup = _lookup()
    by_engine = _by_engine(rows, lookup)
    left_out: dict[tuple[str, str, str], Engine] = published.left_out()
    for (name, version), found in sorted(by_engine.items(), reverse=True):
        if given.only and f"{name}-{version}" not in given.only:
            continue
        engine = load_engine(name, version)
        if not given.bars:
            engine, without = _fit(found, lookup, (name, version), given.processes)
            left_out = {key: other for key, other in left_out.items() if key[:2] != (name, version)}
            left_out |= {(name, version, group): other for group, other in without}
        sampled = [row for _, row in _sample(found, SCORED, most_users=MOST_USERS)]
        engine = _with_error_bars(engine, sampled, left_out, lookup)
        _write(given.profiles / "engines" / f"{name}-{version}.yaml", wire.to_data(engine))
        _write(given.profiles / "published" / "left_out.yaml", _left_out_data(left_out))
        lookup.engines.clear()  # what was just written is read again
        reload()
        print(f"{name} {version}: {engine.points} rows, median {engine.residual_median:.1%}, p90 {engine.residual_p90:.1%}")
    (given.profiles / "published" / "points.csv").write_text(_published(rows), encoding="utf-8")
    _report(published.published_rows(), published.left_out())
    return 0


def _by_engine(rows: Rows, lookup: Lookup) -> dict[tuple[str, str], list[tuple[Point, Mapping[str, str | None]]]]:
    found: dict[tuple[str, str], list[tuple[Point, Mapping[str, str | None]]]] = defaultdict(list)
    for row in rows:
        try:
            point = point_of_row(row)
            engine = lookup.engine(point)
        except AdvisorError as error:
            print(f"{row.get('id')}: {error}", file=sys.stderr)
            continue
        found[(engine.name, engine.version)].append((point, row))
    return found


def _sample(
    found: list[tuple[Point, Mapping[str, str | None]]], size: int, *, most_users: float = math.inf
) -> list[tuple[Point, Mapping[str, str | None]]]:
    """`size` rows in turn from every (source, model, GPU, mode, format), each ordered by a hash of the row's id, the piles by one
    of their names: a sample smaller than there are piles favours none."""
    piles: dict[tuple[str, ...], list[tuple[Point, Mapping[str, str | None]]]] = defaultdict(list)
    for point, row in sorted(found, key=lambda pair: _hash(pair[0].id)):
        if not row.get("anomaly") and not unstated(point) and point.workload.users <= most_users:
            piles[(point.source, point.model, point.hardware, point.workload.mode, point.weight_dtype)].append((point, row))
    in_order = [pile for _, pile in sorted(piles.items(), key=lambda item: _hash("/".join(item[0])))]
    chosen: list[tuple[Point, Mapping[str, str | None]]] = []
    depth = 0
    while len(chosen) < size and any(len(pile) > depth for pile in in_order):
        chosen += [pile[depth] for pile in in_order if len(pile) > depth]
        depth += 1
    return chosen[:size]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _fit(
    found: list[tuple[Point, Mapping[str, str | None]]], lookup: Lookup, key: tuple[str, str], processes: int
) -> tuple[Engine, tuple[tuple[str, Engine], ...]]:
    cases, points = [], {}
    for point, row in _sample(found, SAMPLE if START[key].request_s else SAMPLE_STATIC, most_users=MOST_USERS):
        try:
            problem = lookup.problem(point)
        except AdvisorError:
            continue
        measured = {name: value for name, value in figures_of_row(row).items() if _counts(point, name)}
        case = Case(
            id=point.id, problem=problem, plan=point.plan, calibration=lookup.coefficients(problem.cluster),
            measured=tuple(measured.items()),
        )  # fmt: skip
        cases.append(case)
        points[case.id] = point

    def groups(case: Case) -> list[str]:
        return [group(points[case.id], case.problem.model) for group in (model_group, gpu_group, family_group)]

    shipped = load_engine(*key)
    host = replace(START[key], stage_s=shipped.host.stage_s)  # measured apart, not by points
    engine = replace(shipped, host=host, scales=(), spreads=())
    fitted = fit_engine(
        cases, engine, finer=_finer(cases), measured=key in TABLED, processes=processes,
        groups=groups,
    )  # fmt: skip
    devices = _often(case.problem.cluster.device.name for case in cases)
    left_out = tuple(
        (name, replace(other, fitted_families=_families(case for case in cases if name not in groups(case))))
        for name, other in fitted.left_out
    )
    whole = replace(fitted.engine, points=len(cases), fitted_on=tuple(devices), fitted_families=_families(cases))
    return whole, left_out


def _families(cases: Iterable[Case]) -> tuple[str, ...]:
    return tuple(_often(case.problem.model.family for case in cases))


def _finer(cases: Sequence[Case]) -> dict[str, float]:
    """The finer scales that enough rows show, with their share; none for an architecture or a format that stands alone."""
    devices = [case.problem.cluster.device for case in cases]
    architectures = _often(device.architecture for device in devices)
    scopes = (scale_scopes(case.problem.model, case.problem.engine, case.problem.cluster.device)[1] for case in cases)
    formats = _often("/".join(scope) for scope in scopes)
    borrowed = _often(case.problem.cluster.device.name for case in cases if closeness(case.calibration) != "device")
    found: dict[str, float] = {}
    if any(case.problem.cluster.device.architecture in case.problem.engine.paged_kernels_on for case in cases):
        found["attention/unsplit"] = UNSPLIT_SHARE
    if len(architectures) > 1:
        found |= {f"{part}/{name}": ARCHITECTURE_SHARE for part in BY_ARCHITECTURE for name in architectures}
    if len(formats) > len(architectures):
        found |= {f"{part}/{name}": FORMAT_SHARE for part in BY_FORMAT for name in formats}
        found |= {f"experts/{name}": EXPERTS_SHARE for name in formats}
    if len(set(devices)) > 1:
        found |= {f"{part}/{name}": BORROWED_SHARE for part in BY_DEVICE for name in borrowed}
    return found


def _often(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count >= FEWEST_ROWS)


def _lookup(*, exact: bool = True, fitted: tuple[Engine, ...] = (), known: Lookup | None = None) -> Lookup:
    """A lookup of shipped figures only, with what another one has already found."""
    lookup = Lookup(online=False, local=False, exact=exact, fitted=fitted)
    if known is not None:
        lookup.models, lookup.clusters = known.models, known.clusters
    return lookup


def _counts(point: Point, figure: str) -> bool:
    return not (point.workload.mode == "offline" and figure in ("ttft_s", "tpot_s"))


# How rows are predicted for the error bars: what the spread is for, what a row is predicted without, whether with the kernels of
# its own GPU.
_TRIALS: tuple[tuple[str, str, Group, bool], ...] = (
    ("fitted", "", model_group, True), ("fitted", UNSEEN, family_group, True), ("device", "", gpu_group, True),
    ("family", "", gpu_group, False),
)  # fmt: skip


def _with_error_bars(engine: Engine, rows: Rows, left_out: LeftOut, lookup: Lookup) -> Engine:
    """The engine with the spreads of its rows: without their model (fitted), without their GPU (device), without their GPU and its
    kernels (family), and wider (default); of all rows, of each family, and of families left out (unseen)."""
    spreads: dict[SpreadKey, Spread] = {}
    errors = scatter([0.0])
    global _TRIED
    _TRIED = (engine, rows, left_out, lookup)
    with get_context("fork").Pool(len(_TRIALS)) as pool:
        scored = pool.map(_tried, range(len(_TRIALS)))
    for (near, kind, *_), found in zip(_TRIALS, scored, strict=True):
        usable = [row for row in found if not row.anomaly and (row.without or kind != UNSEEN)]
        measured = [row for row in usable if closeness(lookup.coefficients(lookup.cluster(row.point))) == "device"]
        parts = {near: measured if near in ("fitted", "device") else usable}
        if near == "fitted":
            parts[LENT] = [row for row in usable if row not in measured]
        if (near, kind) == ("fitted", ""):
            errors = scatter([r.log for r in usable if r.figure != "ttft_s"] or [r.log for r in usable])
        for part, those in parts.items():
            for key, pairs in _by_spread(those, part, kind).items():
                if (spread := spread_of(pairs)) is not None:
                    spreads[key] = spread
    return replace(
        engine,
        spreads=tuple(sorted(("/".join(filter(None, key)), spread) for key, spread in completed(spreads).items())),
        residual_median=round(errors.median, 4),
        residual_p90=round(errors.p90, 4),
    )


_TRIED: tuple[Engine, Rows, LeftOut, Lookup]  # handed to forked workers


def _tried(number: int) -> list[Row]:
    """The rows of one trial, scored."""
    engine, rows, left_out, lookup = _TRIED
    *_, group, exact = _TRIALS[number]
    return score(rows, left_out, group=group, lookup=_lookup(exact=exact, fitted=(engine,), known=lookup))[0]


def _by_spread(rows: Sequence[Row], near: str, kind: str) -> dict[SpreadKey, list[tuple[str, float]]]:
    """(question, residual) pairs of every figure: of all rows, and where nothing is `kind` of each family besides."""
    found: dict[SpreadKey, list[tuple[str, float]]] = defaultdict(list)

    def add(name: str, row: Row, log: float) -> None:
        if abs(log) <= BEYOND:
            for of in (kind,) if kind else ("", row.family):
                found[name, near, of].append((_question(row.point), log))

    for row in rows:
        add(SPREAD_NAMES[row.figure], row, row.log)
    whole = {row.point: row for row in rows}
    for (point, mode), (measured, predicted) in request_seconds(rows).items():
        if mode == "closed_loop":  # C users that take so long are served so many a second
            add("latency", whole[point], math.log(measured / predicted))
            add("throughput", whole[point], -math.log(measured / predicted))
    return found


def _question(p: Point) -> str:
    """What plans that are compared with each other share."""
    return f"{p.source} {p.hardware} {p.model} {p.weight_dtype} {p.workload.input_tokens} {p.workload.output_tokens}"


def _left_out_data(left_out: LeftOut) -> dict[str, object]:
    """The coefficients of each left-out fit, without what the profile already says."""
    fits = [
        {
            "engine": name,
            "version": version,
            "without": group,
            "families": list(engine.fitted_families),
            "host": wire.to_data(engine.host),
            "scales": {str(key): factor for key, factor in engine.scales},
        }
        for (name, version, group), engine in sorted(left_out.items())
    ]
    return {"made_by": "python -m fitting.engines", "fits": fits}


def _published(rows: Rows) -> str:
    """The rows that ship: figures and address only, notes and derived columns left behind.

    Drawn evenly by a hash of the id; then all plans and loads of questions drawn the same way, so that choices can be compared.
    """
    pairs = []
    for row in rows:
        try:
            if not row.get("anomaly"):
                pairs.append((point_of_row(row), row))
        except AdvisorError:
            continue
    pairs.sort(key=lambda pair: hashlib.sha256(pair[0].id.encode()).hexdigest())
    chosen, questions = pairs[:PUBLISHED], defaultdict(list)
    for pair in pairs[PUBLISHED:]:
        p = pair[0]
        questions[
            (p.source, p.hardware, p.engine, p.model, p.weight_dtype, p.workload.input_tokens, p.workload.output_tokens)
        ].append(pair)
    for question in questions.values():
        if len(chosen) + len(question) <= COMPLETE and len({pair[0].plan for pair in question}) > 1:
            chosen += question
    columns = [
        "id", "source", "url", "date", "hardware", "interconnect", "nodes", "gpus", "engine", "engine_version", "model",
        "weight_dtype", "kv_dtype", "tp", "pp", "dp", "ep", "input_tokens", "output_tokens", "mode", "load",
        "request_rate_per_s", "speculation", "ttft_s", "tpot_s", "latency_s", "decode_tokens_per_s", "output_tokens_per_s",
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for _, row in sorted(chosen, key=lambda pair: (pair[0].source, pair[0].id)):
        writer.writerow({name: row.get(name) or "" for name in columns})
    return text.getvalue()


def _report(rows: Rows, left_out: LeftOut) -> None:
    scored, failed = score(rows, left_out, lookup=_lookup())
    for line in scoreboard(scored):
        r = line.reached
        print(f"{line.target.name}: n={r.points} median {r.median:.1%} p90 {r.p90:.1%} bias {r.bias:+.1%} covered {r.covered:.0%}")
    found = plan_choices(scored)
    print(f"choices: {found.made}, right {found.right}, regret {found.mean_regret:.2%}, largest tp right {found.largest_tp_right}")
    print(f"not computed: {len(failed)}")


def _write(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
