"""What is compiled is really compiled, computes the same, and leaves few kernels in a layer."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import groupby, pairwise
from types import ModuleType
from typing import Any

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from runner import attention, fused, pointwise  # noqa: E402
from runner.fused import compiled_graphs, why_not  # noqa: E402
from runner.kv_cache import LayerCache  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.transformer import Transformer  # noqa: E402
from runner.weights import initialise  # noqa: E402

LAYER_AIM = 15
# torch's own, when its compiler is imported.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
TOKENS = 5


@pytest.fixture(autouse=True)
def plain_backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Dynamo's own backend: the graphs are made and counted, and run as they are, so that no C++ compiler is waited for."""
    monkeypatch.setattr(fused, "BACKEND", "eager")
    monkeypatch.setattr(pointwise, "BACKEND", "eager")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def model_of(name: str, *, compiled: bool) -> Transformer:
    spec = model_from_config(CONFIGS[name], None, name=name, source="test")
    mesh = Mesh.single()
    model = Transformer(
        spec, mesh.plan, mesh.coordinates, mesh, device="cpu", dtype=torch.float32, max_batch=2, max_context=16, compiled=compiled
    )
    initialise(model, spec, 1)
    return model


def answers(model: Transformer) -> list[Any]:
    tokens = torch.randint(0, model.spec.vocab_size, (2, TOKENS), generator=torch.Generator().manual_seed(2))
    found = [model.prefill(tokens)]
    for step in range(2):
        found.append(model.decode(found[-1].argmax(-1), torch.full((2,), TOKENS + step)))
    found.append(model.decode(found[-1].argmax(-1)[:1], torch.full((1,), TOKENS + 2)))
    return found


@pytest.mark.parametrize("name", ["llama", "gemma 2", "qwen3 moe", "deepseek v3", "cohere"])
def test_compiled_blocks_compute_the_same_and_were_compiled(name: str) -> None:
    expected = answers(model_of(name, compiled=False))
    before = compiled_graphs()
    got = answers(model_of(name, compiled=True))
    assert compiled_graphs() - before >= 6  # enter, leave, feed (or the experts' parts), by number of rows
    for ours, plain in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, plain, atol=2e-5, rtol=2e-5)


def test_a_first_call_under_a_dispatch_mode_would_compile_nothing() -> None:
    """Why a measured run is never counted by one: what was met under it is skipped afterwards as well."""
    from torch.utils.flop_counter import FlopCounterMode

    model = model_of("llama", compiled=True)
    before = compiled_graphs()
    with FlopCounterMode(display=False):
        answers(model)
    assert compiled_graphs() == before


def test_where_compilation_does_not_work_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not(torch.device("cpu")) == ""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Failed to find C compiler.\n Please specify via CC environment variable.")

    monkeypatch.setattr(torch, "compile", broken)
    assert why_not(torch.device("cpu")) == "Failed to find C compiler. Please specify via CC environment variable."
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert why_not(torch.device("cpu")) == "it compiled nothing"


class Kernels(TorchDispatchMode):
    """The operations that are kernels on a GPU, in order: all but views and fresh memory."""

    FREE = (
        "view", "unsafe_view", "reshape_alias", "transpose", "t", "split", "split_with_sizes", "slice", "select", "expand",
        "unsqueeze", "empty", "permute", "detach",
    )  # fmt: skip
    PRODUCTS = ("mm", "addmm", "linear")

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::").lstrip("_")
        if name not in self.FREE:
            self.log.append("product" if name in self.PRODUCTS else "element-wise")
        return func(*args, **(kwargs or {}))

    def kernels(self) -> int:
        """As torch.compile leaves them: each product, and one for every chain of element-wise work between two."""
        return sum(1 for _ in groupby(self.log, key=lambda kind: kind == "element-wise")) + sum(
            1 for a, b in pairwise(self.log) if a == b == "product"
        )


def test_a_layer_of_a_decode_step_is_at_most_fifteen_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the log of operations of one block as it runs on a GPU; our own kernels count as the launches they are."""
    ours: Counter[str] = Counter()
    _pretend_a_gpu(monkeypatch, ours)
    model = model_of("llama", compiled=False)
    block, cache = model.decoder()[0], model.cache.layers[0]
    step = model._step(torch.tensor([3, 7]), 8)
    x, branch = torch.randn(2, model.spec.hidden_size), torch.randn(2, model.spec.hidden_size)
    with Kernels() as enter:
        projected = block._enter(x, branch)[2]
    with Kernels() as attend:
        attended = block.attention.attend(projected, step, cache)
    with Kernels() as leave:
        block.attention.leave(attended)
    with Kernels() as feed:
        block._feed(x, branch, None)
    assert attend.log == []  # our kernels alone
    assert ours == {"rotate_and_write": 1, "partial sums": 1, "join": 1}
    assert [part.kernels() for part in (enter, leave, feed)] == [2, 1, 4]  # norm, qkv; out; norm, gate and up, activation, down
    assert enter.kernels() + leave.kernels() + feed.kernels() + sum(ours.values()) == 10 <= LAYER_AIM


def _pretend_a_gpu(monkeypatch: pytest.MonkeyPatch, launches: Counter[str]) -> None:
    """The kernels' modules with their plain counterparts behind, counted as what they launch and hidden from the log."""
    from torch.utils._python_dispatch import _disable_current_modes

    from runner import scores

    def rotate_and_write(qkv: Any, step: Any, cache: LayerCache, *, heads: int, turns: Any, interleaved: bool, **_: Any) -> Any:
        launches["rotate_and_write"] += 1
        with _disable_current_modes():
            count, width = cache.keys.shape[1], cache.keys.shape[3]
            q, k, v = qkv.split([heads * width, count * width, count * width], dim=-1)
            cos, sin = (t[:, None] for t in turns)
            q = pointwise.rotate(q.view(-1, heads, width), cos, sin, interleaved=interleaved)
            k = pointwise.rotate(k.view(-1, count, width), cos, sin, interleaved=interleaved)
            cache.write(k, v.view(-1, count, width), step.sequences, step.positions)
            return q, None

    def decode_attention(q: Any, keys: Any, values: Any, positions: Any, *, span: int, scale: float, **_: Any) -> Any:
        launches.update(("partial sums", "join"))
        with _disable_current_modes():
            cache = LayerCache.__new__(LayerCache)
            cache.keys, cache.values, cache.slots = keys, values, keys.shape[2]
            return scores.decode_attention(q, cache, positions, span, scores.Sight(scale=scale), None)

    for name, function in (("rotate_and_write", rotate_and_write), ("decode_attention", decode_attention)):
        module = ModuleType(f"runner.kernels.{name}")
        setattr(module, name, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(attention, "fused_on", lambda _: True)
