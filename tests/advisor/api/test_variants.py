"""The question with one thing changed is that changed question."""

from __future__ import annotations

import pytest
from explored import dense, dense_question, screened

from advisor.api.question import question
from advisor.api.variants import variants
from advisor.specs.exploration import Variant
from advisor.specs.plan import Plan


def of(gpu: str, form: str, tokens: int = 1024) -> Variant:
    return next(v for v in dense().variants if (v.gpu, v.weight_format, v.input_tokens) == (gpu, form, tokens))


def test_the_first_is_the_question_itself() -> None:
    first = dense().variants[0]
    assert (first.gpu, first.weight_format, first.input_tokens, first.gpus) == ("h100-80g-sxm", "bf16", 1024, 8)
    assert first.price_usd_per_hour == dense_question().problem.cluster.device.price_usd_per_hour


def test_every_gpu_meets_every_format_and_lengths_vary_on_the_question_s_own() -> None:
    found = dense().variants
    gpus, forms = {v.gpu for v in found}, {v.weight_format for v in found}
    assert len(gpus) == 4
    assert len(forms) == 2
    assert {(v.gpu, v.weight_format) for v in found} == {(g, f) for g in gpus for f in forms}
    assert {v.input_tokens for v in found if v.gpu == "h100-80g-sxm"} == {1024, 4096, 16384}


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        (("h200-141g-sxm", "bf16"), {"gpu": "h200-141g-sxm"}),
        (("h100-80g-sxm", "fp8"), {"gpu": "h100-80g-sxm", "dtype": "fp8"}),
        (("h100-80g-sxm", "bf16", 16384), {"gpu": "h100-80g-sxm", "input_tokens": 16384, "output_tokens": 512}),
    ],
)
def test_its_figures_are_those_of_the_changed_question(variant: tuple[object, ...], options: dict[str, object]) -> None:
    found = next(p for p in of(*variant).plans if p.plan.label == "tp=8,pp=1,dp=1")  # type: ignore[arg-type]
    assert found.curve is not None
    users = found.curve.users[3]
    assert found.curve.replicas == 1
    meant = screened("70b", plan="tp=8", gpus=8, users=users, **options)  # type: ignore[arg-type]
    assert found.curve.tpot_s[3] == pytest.approx(meant.tpot_s.value, rel=1e-9)


def test_what_does_not_fit_says_by_how_much() -> None:
    single = next(p for p in dense().variants[0].plans if p.plan.replica_gpus == 1)
    assert single.curve is None
    assert "GiB of" in single.refused
    assert single.memory is not None
    assert single.memory.shortfall_bytes > 0
    assert next(p for p in of("b200-180g", "bf16").plans if p.plan.replica_gpus == 1).curve is not None


def test_a_variant_that_cannot_be_asked_says_why() -> None:
    v100 = question(model="8b", gpu="v100-32g-sxm", gpus=1, online=False)
    found = variants(v100, [Plan()], most_users=8)
    fp8 = next(v for v in found if v.weight_format == "fp8" and v.gpu == "v100-32g-sxm")
    assert "does not compute in fp8" in fp8.refused
    assert fp8.plans == ()
