"""`advisor explain`: one plan taken apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from advisor.api.options import Options
from advisor.cli import options
from advisor.cli.show import emit, screen
from advisor.errors import QuestionError


@options.asking()
def explain(
    *,
    model: options.Model,
    plan: options.PlanText = "",
    given: Options,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            help="Sequences of a replica in the decode step shown; those of the load otherwise.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Where a decode step and a prefill of one plan go, the memory of a rank, and which GPU is which rank.

    Without --plan the recommended one.
    """
    from advisor.api.answer import answer, estimate_plan, in_short
    from advisor.api.question import question

    asked = question(model=model, **given)
    if plan:
        prediction = estimate_plan(asked, plan)
    else:
        advice = answer(asked)
        if not advice.choices:
            raise QuestionError(
                "no plan fits, so there is none to explain; `advisor recommend` with the same options says what would help."
            )
        prediction = advice.choices[0]
    problem, load = asked.problem, asked.problem.workload
    cached_tokens = load.input_tokens + load.output_tokens / 2
    sequences = prediction.sequences / prediction.plan.dp
    if batch is not None:
        from advisor.serving.predict import Predictor

        predictor = Predictor(problem, asked.calibration, asked.others)
        step = predictor.explain(prediction.plan, batch=batch, context_tokens=cached_tokens)
        prediction, sequences = replace(prediction, decode=step), float(batch)
    if as_json:
        from advisor.report.data import explanation_json

        emit(explanation_json(problem, prediction, asked=in_short(problem), said=asked.said))
        return
    from advisor.report.explain import page

    text = page(
        problem, prediction, asked=in_short(problem), said=asked.said, screen=screen(),
        decode_title=f"A decode step of {_sequences(sequences)} a replica at {cached_tokens:,.0f} tokens of context",
        prefill_title=f"The prefill of one prompt{' on each attention-DP rank' if prediction.plan.adp > 1 else ''}, "
        f"{load.input_tokens - load.prefix_cached_tokens:,.0f} new tokens",
    )  # fmt: skip
    emit(text)


def _sequences(number: float) -> str:
    from advisor.units import show_count

    return "1 sequence" if number <= 1 else f"{show_count(number)} sequences"
