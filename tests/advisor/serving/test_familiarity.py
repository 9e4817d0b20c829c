"""How wide an interval is for what the fit has seen of the GPU and of the model's family."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from advisor.catalog.calibrations import load_calibration
from advisor.catalog.devices import load_device
from advisor.catalog.engines import load_engine
from advisor.catalog.machines import load_cluster
from advisor.catalog.models import load_model
from advisor.serving.familiarity import UNKNOWN, is_familiar, spread_for, unfamiliar
from advisor.serving.predict import Predictor
from advisor.specs.calibration import Spread
from advisor.specs.engine import Engine
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

H100 = load_calibration(load_device("h100-80g-sxm"), local=False)
DENSE, MOE, HYBRID = (load_model(name, online=False).spec for name in ("llama-3.1-8b", "gpt-oss-120b", "qwen3.5-35b-a3b"))


def width(total: float) -> Spread:
    return Spread(shared=total, independent=0.0, points=20)


@pytest.fixture
def engine() -> Engine:
    spreads = (("tpot/fitted", 0.10), ("tpot/fitted/MoE", 0.15), ("tpot/fitted/unseen", 0.20))
    return replace(
        load_engine("vllm"), fitted_on=("h100-80g-sxm",), fitted_families=("MoE", "dense"),
        spreads=tuple((key, width(total)) for key, total in spreads),
    )  # fmt: skip


def test_worked_example_of_the_physics_page(engine: Engine) -> None:
    totals = [spread_for(engine, H100, "tpot", model).shared for model in (DENSE, MOE, HYBRID)]
    assert totals == [0.10, 0.15, 0.20]
    assert [round(math.exp(1.645 * total), 2) for total in totals[1:]] == [1.28, 1.39]


def test_a_family_that_the_fit_has_not_seen_is_said_in_words(engine: Engine) -> None:
    assert (is_familiar(engine, DENSE), is_familiar(engine, HYBRID)) == (True, False)
    load = Workload(input_tokens=1000, output_tokens=100, mode="closed_loop", users=4)
    cluster = load_cluster(gpu="h100-80g-sxm", gpus=2)
    notes = {
        model.family: Predictor(Problem(model=model, cluster=cluster, workload=load, engine=engine), H100).screen(Plan(tp=2)).notes
        for model in (DENSE, HYBRID)
    }
    assert notes["hybrid"][-1] == unfamiliar(engine, HYBRID)
    assert "has seen MoE, dense models, no hybrid one" in notes["hybrid"][-1]
    assert not any("left out" in note for note in notes["dense"])


def test_without_any_residual_the_interval_is_the_widest(engine: Engine) -> None:
    assert spread_for(replace(engine, spreads=()), H100, "tpot", DENSE) == UNKNOWN


def test_rows_on_a_gpu_whose_kernels_are_lent_have_a_spread_of_their_own(engine: Engine) -> None:
    mi300x = load_calibration(load_device("mi300x"), local=False)
    known = replace(engine, fitted_on=("h100-80g-sxm", "mi300x"), spreads=(*engine.spreads, ("tpot/lent", width(0.3))))
    assert spread_for(known, mi300x, "tpot", DENSE).shared == 0.3
    assert spread_for(known, H100, "tpot", DENSE).shared == 0.10
