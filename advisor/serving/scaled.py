"""A step model whose steps all take longer, or all shorter: the error that they share."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.roofline.step import StepModel
from advisor.specs.engine import Engine
from advisor.specs.plan import Plan


class Scaled:
    """The steps of `model` times a factor."""

    def __init__(self, model: StepModel, factor: float) -> None:
        self._model, self._factor = model, factor
        self.engine: Engine = model.engine
        self.plan: Plan = model.plan
        self.queries, self.tokens_per_step = model.queries, model.tokens_per_step

    def decode_s(self, sequences: float, context: float) -> float:
        """Seconds between two tokens of each of `sequences`."""
        return self._factor * self._model.decode_s(sequences, context)

    def mixed_s(self, decodes: float, context: float, chunks: Sequence[tuple[float, float]]) -> float:
        """Seconds of a step with prompts."""
        return self._factor * self._model.mixed_s(decodes, context, chunks)
