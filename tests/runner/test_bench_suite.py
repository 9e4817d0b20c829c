"""How the micro-benchmarks call what they time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from advisor.specs.benchmark import BenchJob  # noqa: E402
from runner import bench_suite  # noqa: E402
from runner.bench_suite import LEAST_S, REPEATS, _Bench, _decodes, _matrices, _products  # noqa: E402
from runner.clock import Clock  # noqa: E402

CPU = torch.device("cpu")


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func.overloadpacket._qualified_op_name)
        return func(*args, **(kwargs or {}))


def bench_of(clock: Any = None) -> _Bench:
    return _Bench(
        BenchJob(device="cpu", tiny=True), CPU, clock or Clock(CPU, alone=True), time.monotonic() + 60, lambda _: None, [], []
    )


def test_an_fp8_product_is_the_runners_own_kernel_and_nothing_else() -> None:
    """Quantised before the calls, with a scale a row of both: a call that allocates or casts would be timed with the product."""
    matrices = _matrices("fp8", 64, 32, 4 * 64 * 32, CPU)
    assert len(matrices) == 4
    x = torch.randn(16, 32)
    calls = _products(matrices, x)
    with Operations() as log:
        found = [call() for call in calls]
    assert set(log.seen) <= {"aten::t", "aten::transpose", "aten::detach", "aten::_scaled_mm"}
    assert log.seen.count("aten::_scaled_mm") == 4
    for matrix, y in zip(matrices, found, strict=True):
        assert y.abs().max() > 0  # random data: zeros draw less power and run faster
        torch.testing.assert_close(y.to(x.dtype), matrix(x))


def test_attention_over_a_cache_rotates_through_more_than_a_chip_keeps() -> None:
    calls = _decodes(bench_of(), 1, 64)
    assert len(calls) == 64
    assert calls[0]().shape == (1, 8, 32)  # type: ignore[attr-defined]


class Script:
    """A clock on which each call of the run takes a microsecond and one more is lost at every start."""

    alone = True

    def __init__(self) -> None:
        self.samples: list[tuple[int, bool]] = []

    def once(self, call: Callable[[], object], times: int = 1, *, lead: bool = False) -> float:
        self.samples.append((times, lead))
        return times * bench_suite.IN_A_GRAPH[True] * 1e-6

    def worst(self, value: float) -> float:
        return value


def test_a_small_message_is_timed_for_long_enough_and_after_one_that_is_not() -> None:
    clock = Script()
    assert bench_of(clock).message_s(lambda: None, 1024) == pytest.approx(1e-6)
    assert len(clock.samples) == 1 + REPEATS
    assert all(lead for _, lead in clock.samples)
    for times, _ in clock.samples[1:]:
        assert times * bench_suite.IN_A_GRAPH[True] * 1e-6 >= LEAST_S["cpu"]
    assert LEAST_S["cuda"] >= 2e-3
