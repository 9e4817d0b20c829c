"""A load and its limits in words -> the GPUs that a service needs: `advisor size`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from advisor.api.limits import limits_of
from advisor.api.options import Options
from advisor.api.simulating import LoadWords, offered_load
from advisor.errors import QuestionError
from advisor.specs.cluster import Cluster
from advisor.specs.limit import Limit
from advisor.specs.sizing import Size, Sizing

if TYPE_CHECKING:
    from advisor.serving.predict import Predictor

REPLICA_GPUS = (1, 2, 4, 8)  # of one node
GOALS = ("gpus", "usd", "usd-per-token")
MOST_PRICE_BYTES = 2**20


def size_service(
    *, model: str, gpus: str, load: LoadWords, goal: str = "gpus", confidence: float = 0.9, prices: Path | None = None,
    options: Options,
) -> tuple[Sizing, tuple[str, ...]]:  # fmt: skip
    """The sizes for each GPU type of the list, the best first by the goal, and what has to be said before."""
    from advisor.search.size import Wanted, size

    if goal not in GOALS:
        raise QuestionError(f"--goal {goal[:40]!r} is not known; use {', '.join(GOALS)}.")
    if not 0.5 <= confidence < 1:
        raise QuestionError(f"--confidence {confidence:g} is not possible; give a chance from 0.5 to below 1, e.g. 0.9.")
    if load.users:
        raise QuestionError("a service is sized for a trace or a rate; leave out --users (`advisor recommend --users` fits a box).")
    limits = limits_of(ttft=load.ttft, tpot=load.tpot, e2e=load.e2e)
    if not limits:
        raise QuestionError("no limit was given: say --ttft p90=1s, --tpot p99=60ms or --e2e p95=20s.")
    names = [name.strip() for name in gpus.split(",") if name.strip()]
    if not names:
        raise QuestionError("no GPU type was named: say --gpu h100,h200,l40s.")
    offered, means, said = offered_load(load)
    requests = list(offered.requests())
    own = _prices(prices) if prices else {}
    wanted = Wanted(requests=requests, limits=limits, confidence=confidence)
    sizes: list[Size] = []
    none: list[tuple[str, str]] = []
    for name in dict.fromkeys(names):
        found = size(_predictors(model, name, limits, means, own, options), wanted)
        if found is not None:
            sizes.append(found)
        else:
            none.append((name, "no replica on up to 8 GPUs holds the model and keeps the limits, not even nearly idle"))
    sizes.sort(key=lambda each: _order(each, goal))
    rate = len(requests) / requests[-1].arrival_s if requests[-1].arrival_s else 0.0
    sizing = Sizing(
        load=offered.words, requests_per_s=rate, limits=limits, confidence=confidence, sizes=tuple(sizes), none=tuple(none)
    )
    return sizing, tuple(said)


def _order(found: Size, goal: str) -> tuple[float, float]:
    usd = found.usd_per_hour if found.usd_per_hour is not None else float("inf")
    return (found.gpus, usd) if goal == "gpus" else (usd, found.gpus)


def _predictors(
    model: str, gpu: str, wanted: tuple[Limit, ...], means: tuple[float, float, float], own: dict[str, float], options: Options
) -> list[Predictor]:
    """The question on 1, 2, 4 and 8 GPUs of a type; a percentile's limit is asked of the mean, which is below it."""
    from advisor.api.question import question
    from advisor.serving.predict import Predictor

    inputs, outputs, _ = means
    lengths = {"input_tokens": max(1, round(inputs)), "output_tokens": max(1, round(outputs))}
    limits = {limit.figure: limit.seconds for limit in wanted}
    found: list[Predictor] = []
    for count in REPLICA_GPUS:
        asked = question(model=model, **cast(Options, {**options, **lengths, "gpu": gpu, "gpus": count}))
        workload = replace(
            asked.problem.workload, mode="capacity", users=0, ttft_limit_s=limits.get("ttft"), tpot_limit_s=limits.get("tpot"),
            confidence=0.5,
        )  # fmt: skip
        problem = replace(asked.problem, workload=workload, cluster=_priced(asked.problem.cluster, own))
        found.append(Predictor(problem, asked.calibration))
    return found


def _priced(cluster: Cluster, own: dict[str, float]) -> Cluster:
    devices = tuple(
        replace(device, price_usd_per_hour=own[device.name]) if device.name in own else device for device in cluster.node.devices
    )
    return replace(cluster, node=replace(cluster.node, devices=devices))


def _prices(path: Path) -> dict[str, float]:
    """Prices of a file: a line for each GPU, name and dollars an hour."""
    from advisor.catalog.devices import load_device
    from advisor.files import read_bounded, shown

    found: dict[str, float] = {}
    text = read_bounded(path, most_bytes=MOST_PRICE_BYTES, what="prices: a line for each GPU, name,usd_per_hour")
    for number, line in enumerate(text.decode("utf-8", errors="replace").splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip() or (number == 1 and len(cells) == 2 and not cells[1].replace(".", "").isdigit()):
            continue
        try:
            name, usd = cells[0], float(cells[1])
        except (ValueError, IndexError):
            raise QuestionError(f"line {number} of {shown(path)} is not name,usd_per_hour, e.g. h100,2.5.") from None
        if not 0 < usd < 1e6:
            raise QuestionError(f"line {number} of {shown(path)} has no price above 0.")
        found[load_device(name).name] = usd
    return found
