"""How should I split this model over these GPUs?

    import advisor

    advice = advisor.recommend("llama-3.1-70b", gpu="h100-80g-sxm", gpus=8, users=64)
    print(advice.choices[0].plan.label, advice.reason)
    figures = advisor.estimate("llama-3.1-70b", "tp=4,dp=2", gpu="h100-80g-sxm", gpus=8, users=64)
    print(figures.tpot_s.value, figures.tpot_s.low, figures.tpot_s.high)

Options are those of the command line, with underscores (`help(advisor.recommend)` lists them); limits are seconds or text with a
unit. Mistakes raise `advisor.errors.AdvisorError` with one sentence. Nothing is imported before the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Unpack

    from advisor.api.options import Options
    from advisor.specs.advice import Advice
    from advisor.specs.plan import Plan
    from advisor.specs.prediction import Prediction

__all__ = ["estimate", "recommend"]


def recommend(model: str, **options: Unpack[Options]) -> Advice:
    """The plans for `model` on the machine and under the load that `options` say, best first, with the reason.

    Machine: gpu, gpus, nodes, cluster (a file, or a `Cluster`), node, network, price, calibration (a file).
    Engine: engine, engine_version, dtype, kv_dtype, speculate, acceptance.
    Load: preset, input_tokens, output_tokens, users, rate, prefix_cached_tokens, context, ttft, tpot, e2e,
    confidence, goal.
    online: False never asks the Hugging Face hub. `advisor recommend --help` says what each means.

    `Advice.choices` is empty when nothing fits; `Advice.rejected` and `Advice.remedies` then say by how much and what helps.
    """
    from advisor.api.answer import answer
    from advisor.api.question import question

    return answer(question(model=model, **options))


def estimate(model: str, plan: str | Plan, **options: Unpack[Options]) -> Prediction:
    """The figures of one `plan` ("tp=4,dp=2") without a search; options as for `recommend`.

    Raises PlanError where it cannot run or does not fit.
    """
    from advisor.api.answer import estimate_plan
    from advisor.api.question import question

    return estimate_plan(question(model=model, **options), plan)
