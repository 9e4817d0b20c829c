"""The fit finds what was put in, leaves groups out, and a user's own runs move a calibration."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from advisor.calibrate.cases import Case, Predictors, answer, figure
from advisor.calibrate.corrections import SPREAD_NAMES, scales_from_points
from advisor.calibrate.lookup import Lookup
from advisor.calibrate.points import Point, figures_of_row, point_of_row
from advisor.serving.familiarity import spread_for
from advisor.specs.calibration import Calibration
from advisor.specs.engine import Engine
from advisor.specs.keys import ScaleKey
from fitting.engine_fit import fit_engine

pytest.importorskip("numpy", reason="the fit needs the `fit` extra")


def rows() -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = []
    for model in ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-32B"):
        for gpu in ("h100-80g-sxm", "a100-80g-sxm"):
            for tp in (2, 4):
                for users in (1, 16, 64):
                    found.append(
                        {
                            "id": f"{model}{gpu}{tp}{users}",
                            "hardware": gpu,
                            "gpus": str(tp),
                            "engine": "vllm",
                            "engine_version": "0.6.1",
                            "model": model,
                            "tp": str(tp),
                            "input_tokens": "512",
                            "output_tokens": "256",
                            "mode": "static_batch",
                            "load": str(users),
                        }
                    )
    return found


def cases(truth: Engine | None) -> tuple[list[Case], dict[str, Point]]:
    lookup = Lookup(online=False, local=False)
    built, points = [], {}
    for row in rows():
        point = point_of_row(row)
        problem = lookup.problem(point)
        case = Case(id=point.id, problem=problem, plan=point.plan, calibration=lookup.coefficients(problem.cluster), measured=())
        if truth is not None:
            found = answer(case, truth, Predictors())
            assert found is not None
            case = replace(case, measured=(("latency_s", found.latency_s.value),))
        built.append(case)
        points[case.id] = point
    return built, points


def test_the_fit_finds_the_coefficients_that_made_the_rows() -> None:
    start = Lookup(online=False, local=False).engine(point_of_row(rows()[0]))
    truth = replace(
        start,
        scales=((ScaleKey("collective"), 2.0), (ScaleKey("decode"), 1.1)),
        host=replace(start.host, step_s=start.host.step_s * 1.5),
    )
    plain = replace(start, scales=())
    measured, points = cases(truth)
    fitted = fit_engine(measured, plain, groups=lambda case: (points[case.id].model,), rounds=6)
    errors = [abs(r.value) for r in fitted.residuals]
    assert sorted(errors)[len(errors) // 2] < 0.02  # the prior pulls a little, the start was off by a fifth and more
    assert max(errors) < 0.06
    assert dict(fitted.engine.scales)[ScaleKey("decode")] == pytest.approx(1.1, rel=0.05)
    assert {group for group, _ in fitted.left_out} == {"meta-llama/Llama-3.1-8B", "Qwen/Qwen3-32B"}


def own_row(tpot_s: float, **change: str) -> dict[str, str | None]:
    return {
        "id": "mine",
        "hardware": "h100-80g-sxm",
        "gpus": "1",
        "engine": "vllm",
        "engine_version": "0.19.0",
        "model": "meta-llama/Llama-3.1-8B",
        "tp": "1",
        "input_tokens": "1024",
        "output_tokens": "256",
        "mode": "closed_loop",
        "load": "8",
        "tpot_s": str(tpot_s),
        **change,
    }


def predicted(calibration=None) -> tuple[float, float]:
    lookup = Lookup(online=False, local=False, calibration=calibration)
    point = point_of_row(own_row(0.01))
    problem = lookup.problem(point)
    case = Case(id="", problem=problem, plan=point.plan, calibration=lookup.coefficients(problem.cluster), measured=())
    found = answer(case, problem.engine, Predictors())
    assert found is not None
    return found.tpot_s.value, math.log(found.tpot_s.high / found.tpot_s.low)


def test_one_run_of_the_users_own_moves_the_prediction_towards_it_and_narrows_nothing() -> None:
    before, wide = predicted()
    lookup = Lookup(online=False, local=False)
    problem = lookup.problem(point_of_row(own_row(0.01)))
    for factor in (0.8, 1.25, 1.6):
        measured = before * factor
        corrected = scales_from_points([own_row(measured)], lookup.coefficients(problem.cluster), lookup=lookup)
        assert corrected.used == ("mine",)
        after, still = predicted(corrected.calibration)
        assert abs(after / measured - 1) < 0.7 * abs(before / measured - 1)
        assert (after - measured) * (before - measured) > 0  # not past it: one run has its own scatter
        assert still == pytest.approx(wide)
        assert len({value for _, value in corrected.calibration.scales}) == 1  # one figure tells no two corrections apart


@pytest.mark.parametrize("figures", [{"ttft_s": "3.0"}, {"ttft_s": "0.02", "output_tokens_per_s": "300"}, {"latency_s": "9.0"}])
def test_a_row_whose_figures_pull_apart_never_moves_the_answer_away(figures: dict[str, str]) -> None:
    before, _ = predicted()
    lookup = Lookup(online=False, local=False)
    row = own_row(before * 1.3, **figures)
    calibration = lookup.coefficients(lookup.problem(point_of_row(row)).cluster)
    point = point_of_row(row)
    measured = figures_of_row(row)

    asked = lookup.problem(point)
    spreads = {name: spread_for(asked.engine, calibration, SPREAD_NAMES[name], asked.model) for name in measured}
    scatters = {name: math.hypot(spread.shared, spread.independent) for name, spread in spreads.items()}  # what (F2) weighs by

    def distance(calibrated: Calibration) -> float:
        case = Case(id="", problem=lookup.problem(point), plan=point.plan, calibration=calibrated, measured=tuple(measured.items()))
        found = answer(case, case.problem.engine, Predictors())
        assert found is not None
        logs = {name: math.log(value / figure(found, name)) for name, value in case.figures}
        return sum((log / scatters[name]) ** 2 for name, log in logs.items())

    assert distance(scales_from_points([row], calibration, lookup=lookup).calibration) <= distance(calibration) * (1 + 1e-9)


def test_many_runs_narrow_the_bars() -> None:
    before, wide = predicted()
    lookup = Lookup(online=False, local=False)
    calibration = lookup.coefficients(lookup.problem(point_of_row(own_row(0.01))).cluster)
    given = [own_row(before * 1.25 * (1 + users / 200), id=str(users), load=str(users)) for users in range(6, 18)]
    corrected = scales_from_points(given, calibration, lookup=lookup)
    after, narrow = predicted(corrected.calibration)
    assert narrow < wide
    assert after > 1.1 * before


def test_impossible_and_contradictory_rows_are_named_and_left_out() -> None:
    before, _ = predicted()
    lookup = Lookup(online=False, local=False)
    calibration = lookup.coefficients(lookup.problem(point_of_row(own_row(0.01))).cluster)
    given = [
        own_row(1e-4, id="too fast"),
        own_row(before * 1.1, id="good"),
        own_row(before, id="other gpu", hardware="a100-80g-sxm"),
        own_row(before, id="no such", model="nobody/nothing"),
        own_row(before, id="one", load="4"),
        own_row(before * 3, id="two", load="4"),
    ]
    found = scales_from_points(given, calibration, lookup=lookup)
    assert found.used == ("good",)
    reasons = dict(found.left_out)
    assert "faster than memory" in reasons["too fast"]
    assert "a100-80g-sxm" in reasons["other gpu"]
    assert "nobody/nothing" in reasons["no such"]
    assert "contradicts" in reasons["one"]
    assert "contradicts" in reasons["two"]
