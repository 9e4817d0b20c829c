"""`python -m runner.rehearse [--device cpu]`: in under a minute, whether this machine can measure, before it is booked for longer.

One small check of each thing that a validation rests on, against a plain reference: a line each, and exit code 3 where one fails.
On a CPU it is a dry run: what needs a GPU is said, not tried.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from advisor.errors import AdvisorError
from advisor.specs.model import DenseFfn, GroupedAttention, Layer, ModelSpec, MoeFfn
from advisor.specs.plan import Plan
from runner import fused
from runner.clock import Clock
from runner.ffn import MoeShard
from runner.fused import compiled_graphs, why_not
from runner.graphs import DecodeGraph
from runner.kernels import fused_on, has_triton
from runner.kv_cache import CacheShape, LayerCache
from runner.mesh import Mesh
from runner.quantised import Matrix
from runner.scores import Sight, decode_attention
from runner.session import device_name, driver, software
from runner.transformer import Transformer
from runner.weights import initialise

NEEDED = ("numpy", "safetensors", "pydantic", "typer", "yaml")
LIMIT_S = 60.0
FP8_CAPABILITY = (8, 9)
# What a broken installation, driver, kernel or version raises; anything else is a mistake of this program.
BROKEN = (RuntimeError, ImportError, OSError, ValueError, TypeError, AttributeError, AdvisorError)


class WrongError(ValueError):
    """A result that differs from its reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check found: "ok", "failed" or "left out", with the reason or the figure."""

    name: str
    state: str
    words: str
    took_s: float


def checks(device: torch.device) -> list[tuple[str, Callable[[torch.device], str]]]:
    """All checks, the ones that others rest on first."""
    return [
        ("modules", modules), ("device", sight_of), ("clock", clock), ("matrix product", product), ("fp8 product", fp8_product),
        ("decode attention", attention), ("compiled layer", compiled_layer), ("captured graph", captured_graph),
        ("experts", experts), ("process group", process_group),
    ]  # fmt: skip


def rehearse(device: torch.device) -> list[Check]:
    """Every check, whatever the ones before it found."""
    found = []
    for name, check in checks(device):
        start = time.monotonic()
        try:
            words = check(device)
            state = "left out" if words.startswith("needs ") else "ok"
        except BROKEN as error:
            state, words = "failed", " ".join((str(error) or type(error).__name__).split())[:300]
        found.append(Check(name=name, state=state, words=words, took_s=time.monotonic() - start))
    return found


def modules(_: torch.device) -> str:
    """What is imported later."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise WrongError(f"not installed: {', '.join(missing)}; `python -m runner.wheels` lists what to bring")
    return f"{software()}, Triton {'there' if has_triton() else 'missing'}"


def sight_of(device: torch.device) -> str:
    """The GPU and its memory."""
    if device.type == "cpu":
        return f"cpu, {os.cpu_count()} cores"
    free, total = torch.cuda.mem_get_info(device)
    return f"{device_name(device)}, driver {driver(device) or 'unknown'}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"


def clock(device: torch.device) -> str:
    """Four times as many products take about four times as long."""
    size = 1024 if device.type == "cuda" else 128
    a = torch.randn(size, size, device=device)
    watch = Clock(device, alone=True)
    watch.own(lambda: a @ a, 5)
    one, four = (min(watch.own(lambda: a @ a, times) for _ in range(5)) for times in (10, 40))
    if not 2.0 < four / one < 8.0:
        raise WrongError(f"40 products took {four / one:.1f} times as long as 10: the clock or the machine is not steady")
    return f"{one / 10 * 1e6:.0f} us a product"


def product(device: torch.device) -> str:
    """A 16-bit product against fp64."""
    a, b = (torch.randn(256, 256, device=device, dtype=torch.bfloat16) for _ in range(2))
    return _close(a @ b, a.double() @ b.double(), 1e-2)


def fp8_product(device: torch.device) -> str:
    """A matrix in fp8 with a scale a row of both sides, against fp64."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        return "needs a GPU of compute capability 8.9"
    matrix = Matrix(256, 512, weights="fp8", device=device, dtype=torch.bfloat16)
    whole = torch.randn(256, 512, device=device, dtype=torch.bfloat16)
    matrix.put(whole)
    x = torch.randn(17, 512, device=device, dtype=torch.bfloat16)
    return _close(matrix(x), x.double() @ whole.double().t(), 0.06)


def attention(device: torch.device) -> str:
    """Our decode kernel over a cache with contexts that differ, against plain products."""
    if not fused_on(device):
        return "needs a GPU and Triton"
    from runner.kernels.decode_attention import decode_attention as split

    kind, sight = torch.bfloat16, Sight(scale=128**-0.5)
    cache = LayerCache(CacheShape(heads=8, key_dim=128, value_dim=128), 3, 2000, device=device, dtype=kind)
    assert cache.values is not None
    cache.keys.normal_(), cache.values.normal_()
    q, at = torch.randn(3, 32, 128, device=device, dtype=kind), torch.tensor([1999, 63, 640], device=device)
    got = split(q, cache.keys, cache.values, at, span=2000, scale=sight.scale)
    return _close(got, decode_attention(q, cache, at, 2000, sight, None), 1e-2)


def compiled_layer(device: torch.device) -> str:
    """A block under torch.compile against the same block plain. A dry run traces them and leaves the code generator out."""
    if device.type == "cuda":
        reason = why_not(device)
        if reason:
            raise WrongError(f"torch.compile does not work: {reason}")
    else:
        fused.BACKEND = "eager"
    before = compiled_graphs()
    words = _close(_decoded(device, compiled=True), _decoded(device, compiled=False), 2e-2)
    if compiled_graphs() == before:
        raise WrongError("torch.compile compiled nothing")
    return f"{words}, {compiled_graphs() - before} graphs"


def captured_graph(device: torch.device) -> str:
    """A decode step replayed from a CUDA graph against the step itself."""
    if device.type != "cuda":
        return "needs a GPU"
    model = _model(device, compiled=False)
    model.prefill(_tokens(device)[None].repeat(2, 1))
    graph = DecodeGraph(model, model.cache, batch=2, span=64)
    at, token = torch.full((2,), 16, device=device), torch.tensor([3, 4], device=device)
    return _close(graph(token, at).clone(), model.decode(token, at, span=64), 2e-2)


def experts(device: torch.device) -> str:
    """A layer of experts, in a decode by our kernels on a GPU, against a loop over the tokens."""
    model = _model(device, compiled=False, moe=True)
    shard = model.decoder()[0].ffn
    assert isinstance(shard, MoeShard)
    x = torch.randn(4, model.spec.hidden_size, device=device, dtype=model.dtype)
    chosen, gates = shard.route(x)
    held = shard.experts
    expected = torch.zeros(x.shape, device=device, dtype=torch.float64)
    for row in range(x.shape[0]):
        for expert, gate in zip(chosen[row].tolist(), gates[row].tolist(), strict=True):
            a, b = (held.gate_up[expert].double() @ x[row].double()).chunk(2)
            expected[row] += gate * (held.down[expert].double() @ (torch.nn.functional.silu(a) * b))
    return _close(held(x, chosen, gates), expected, 2e-2)


def process_group(device: torch.device) -> str:
    """NCCL (gloo on a CPU) starts, and sums."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        met = f"file://{Path(folder) / 'store'}"
        own = device if device.type == "cuda" else None
        dist.init_process_group(backend, init_method=met, rank=0, world_size=1, device_id=own)
        try:
            x = torch.ones(8, device=device)
            dist.all_reduce(x)
            words = _close(x, torch.ones(8, device=device), 1e-6)
        finally:
            dist.destroy_process_group()
    return f"{backend}, {words}"


def _model(device: torch.device, *, compiled: bool, moe: bool = False) -> Transformer:
    """A small layer of Llama's kind, or of a mixture of experts."""
    mixer = GroupedAttention(heads=8, kv_heads=2, head_dim=64)
    ffn = MoeFfn(experts=8, top_k=2, expert_width=128) if moe else DenseFfn(width=512)
    spec = ModelSpec(
        name="rehearsal", source="made for the rehearsal", hidden_size=256, vocab_size=512,
        layers=(Layer(mixer=mixer, ffn=ffn),), max_context_tokens=128,
    )  # fmt: skip
    mesh = Mesh.single()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = Transformer(
        spec, Plan(), mesh.coordinates, mesh, device=device, dtype=dtype, max_batch=2, max_context=64, compiled=compiled
    )
    initialise(model, spec, 1)
    return model


def _decoded(device: torch.device, *, compiled: bool) -> Tensor:
    model = _model(device, compiled=compiled)
    model.prefill(_tokens(device)[None].repeat(2, 1))
    return model.decode(torch.tensor([3, 4], device=device), torch.full((2,), 16, device=device), span=64)


def _tokens(device: torch.device) -> Tensor:
    return torch.arange(16, device=device)


def _close(got: Tensor, expected: Tensor, most: float) -> str:
    """Norm of the difference over the norm. Raises WrongError where it is larger, or no number."""
    off = float((got.double() - expected.double()).norm() / expected.double().norm())
    if not off <= most:
        raise WrongError(f"differs from the reference by {off:.2g}, more than {most:.2g}")
    return f"off by {off:.1g}"


def main(arguments: list[str]) -> int:
    """Print a line a check; 3 where one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.rehearse", description="Check in under a minute that this machine can measure."
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run without a GPU")
    asked = parser.parse_args(arguments).device
    if asked == "cuda" and not torch.cuda.is_available():
        sys.stderr.write(f"torch {torch.__version__} sees no GPU: install a build for the driver, or use --device cpu.\n")
        return 3
    found = rehearse(torch.device("cuda", 0) if asked == "cuda" else torch.device("cpu"))
    for check in found:
        sys.stdout.write(f"{check.state:<9} {check.name:<17} {check.took_s:5.1f} s  {check.words}\n")
    total_s = sum(check.took_s for check in found)
    failed = [check.name for check in found if check.state == "failed"]
    verdict = f"failed: {', '.join(failed)}; what comes after a failure may fail because of it" if failed else "ready to measure"
    late = f" (longer than {LIMIT_S:.0f} s)" if total_s > LIMIT_S else ""
    sys.stdout.write(f"{total_s:.0f} s{late}: {verdict}\n")
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
