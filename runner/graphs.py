"""A decode step as one CUDA graph, collectives captured with it: the host then starts a step with a single call."""

from __future__ import annotations

import torch
from torch import Tensor

from advisor.errors import QuestionError
from runner.exchange import exchange_of
from runner.kv_cache import KvCache
from runner.transformer import Transformer

WARM_STEPS = 3  # kernels are chosen, compiled and their workspaces made before the capture (torch's own advice: 3)


class DecodeGraph:
    """One captured decode step of `batch` sequences over `span` cached tokens, replayed with new inputs.

    The input and the positions are copied into buffers that the graph reads; the result is a buffer that the next replay
    overwrites. Contexts up to `span` are right, and cost what `span` costs. On a CPU the step simply runs. Raises QuestionError
    for a model that exchanges tokens by all-to-all, which cannot be captured.
    """

    def __init__(self, model: Transformer, cache: KvCache, *, batch: int, span: int) -> None:
        self._model, self._cache, self._span = model, cache, span
        device = model.device
        if exchange_of(model.exchange, "decode", device) != model.exchange:
            raise QuestionError(
                "a decode step that exchanges tokens by all_to_all cannot be captured as a graph, because the host waits for the "
                "counts of each step; exchange decode by all_gather."
            )
        first = model.mesh.is_first_stage
        self._x = torch.zeros(batch, dtype=torch.int64, device=device) if first else model.states(batch, 1).zero_()
        self._positions = torch.full((batch,), span - 1, dtype=torch.int64, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._out: Tensor | None = None
        if device.type == "cuda":
            self._capture()

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        """As `model.decode`, for the batch and span it was made for."""
        if self._graph is None or self._out is None:
            return self._model.decode(x, positions, self._cache, span=self._span)
        self._x.copy_(x)
        self._positions.copy_(positions)
        self._graph.replay()
        return self._out

    def replay(self) -> None:
        """The step once more with the inputs that are there: what a clock should see."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._step()

    def _capture(self) -> None:
        side = torch.cuda.Stream(self._model.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        recording, self._model.mesh.recording = self._model.mesh.recording, False
        with torch.cuda.stream(side):
            for _ in range(WARM_STEPS):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self._model.mesh.recording = recording
        graph = torch.cuda.CUDAGraph()
        # Thread-local: NCCL's watchdog queries events from its own thread while the capture runs.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._out = self._step()
        self._graph = graph

    def _step(self) -> Tensor:
        return self._model.decode(self._x, self._positions, self._cache, span=self._span)
