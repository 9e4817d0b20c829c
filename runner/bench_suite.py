"""The kernels and messages that the micro-benchmarks time, and in which sizes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from advisor.specs.benchmark import BenchJob, Benchmarks, KernelKind, KernelTime, WireTime
from advisor.specs.keys import Op
from runner import clocks
from runner.attention import attend_cache
from runner.capacity import free_bytes
from runner.clock import Clock, Spread, spread_of
from runner.custom_reduce import KINDS, CustomReduce
from runner.kv_cache import CacheShape, LayerCache
from runner.measure import straggler
from runner.meeting import join
from runner.mesh import GATHER, SCATTER
from runner.quantised import Matrix, quantise_rows
from runner.scores import Sight
from runner.session import device_name, device_of, driver, now, software

VERSION = 1
REPEATS = 7
# (rows out, columns in): projections and feed-forward blocks of 1B to 70B models, whole and cut by 2 to 8.
SHAPES = ((2048, 2048), (4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336), (10240, 8192), (8192, 8192), (8192, 3584))
TOKENS = (1, 4, 16, 64, 128, 512, 2048, 8192)
TINY_SHAPES = ((256, 256), (1024, 256), (256, 1024), (1024, 1024))
TINY_TOKENS = (1, 4, 16, 64, 256)
PROMPTS = ((1, 512), (1, 2048), (4, 2048), (1, 8192), (1, 16384))
CACHED = ((1, 1024), (1, 16384), (16, 1024), (64, 1024), (64, 4096), (256, 1024))
TINY_PROMPTS, TINY_CACHED = ((1, 64), (2, 128), (1, 512)), ((1, 64), (4, 128), (8, 512))
HEADS = {False: (32, 8, 128), True: (8, 2, 32)}  # query heads, key-value heads, width
PAYLOADS = tuple(2**e for e in range(10, 28, 2))
TINY_PAYLOADS = tuple(2**e for e in range(10, 21, 2))
LAUNCHES = 500
IN_A_GRAPH = {True: 50, False: 10}  # messages of one graph: many where the graph's own launch would count
SMALL_BYTES = 2**20
LEAST_S = {"cuda": 0.002, "cpu": 0.001}  # of one sample
Algorithm = Literal["nccl", "custom"]
OPS: tuple[Op, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p")


@dataclass(slots=True)
class _Bench:
    """The clock and what was found. On a GPU `timed` puts the calls into one CUDA graph."""

    job: BenchJob
    device: torch.device
    clock: Clock
    ends: float
    beat: Callable[[str], None]
    kernels: list[KernelTime]
    wires: list[WireTime]

    def up(self) -> bool:
        """Whether the time is up, for all ranks alike."""
        return self.clock.worst(time.monotonic() - self.ends) > 0

    def timed(self, calls: Sequence[Callable[[], object]]) -> Spread:
        """Seconds of one call: all of them in a row, often enough."""
        run: Callable[[], object]
        if self.device.type == "cuda":
            run = _graph(calls)
        else:

            def run() -> None:
                for call in calls:
                    call()

        first = min(self.clock.once(run, lead=True) for _ in range(3))
        times = max(1, math.ceil(LEAST_S[self.device.type] / max(first, 1e-7)))
        count = times * len(calls)
        return spread_of([self.clock.once(run, times, lead=True) / count for _ in range(REPEATS)])

    def message_s(self, call: Callable[[], object] | None, payload: int) -> float:
        """Seconds of one message, many in a row; a rank without a `call` takes part in the clock only."""
        many = IN_A_GRAPH[payload <= SMALL_BYTES]
        run: Callable[[], object] = _nothing
        if call is not None and self.device.type == "cuda":
            run = _graph([call] * many)
        elif call is not None:

            def run() -> None:
                for _ in range(many):
                    call()

        first = self.clock.once(run, lead=True)
        times = max(1, math.ceil(LEAST_S[self.device.type] / max(first, 1e-7)))
        samples = [self.clock.once(run, times, lead=True) / (many * times) for _ in range(REPEATS)]
        return spread_of(samples).median_s

    def add(self, kind: KernelKind, number_format: str, found: Spread, **sizes: float) -> None:
        """Note a kernel's time."""
        self.kernels.append(
            KernelTime(
                kind=kind, format=number_format, sizes=tuple(sorted(sizes.items())), median_s=found.median_s, low_s=found.low_s,
                high_s=found.high_s,
            )
        )  # fmt: skip


def _nothing() -> None:
    return None


def benchmarks(job: BenchJob, beat: Callable[[str], None]) -> Benchmarks:
    """Everything on this rank; the others do the same."""
    device = device_of(job)
    if "RANK" in os.environ:
        join(device, job.stall_limit_s * 0.8)
    clock = Clock(device, alone=not dist.is_initialized())
    bench = _Bench(job, device, clock, time.monotonic() + job.time_limit_s, beat, [], [])
    gpu = clocks.Gpu(str(torch.cuda.get_device_properties(device).uuid)) if device.type == "cuda" else None
    with torch.inference_mode():
        behind = straggler(clock)
        copies(bench)
        during = gpu.read() if gpu else None
        launches(bench)
        gemms(bench)
        attentions(bench)
        if not clock.alone:
            messages(bench)
    after = gpu.read() if gpu else None
    notes = [*behind, *clocks.notes(during, after)]
    if bench.up():
        notes.append("the time was up before all sizes were measured")
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else free_bytes(device)
    found = Benchmarks(
        version=VERSION, device_name=device_name(device), driver=driver(device), software=software(),
        clocks=f"{during.sm_mhz:.0f} of {during.most_mhz:.0f} MHz" if during else "", date=now(), memory_bytes=float(memory),
        kernels=tuple(bench.kernels), wires=tuple(bench.wires), notes=tuple(notes),
    )  # fmt: skip
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    return found


def _graph(calls: Sequence[Callable[[], object]]) -> Callable[[], None]:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls[:2]:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for call in calls:
            call()
    return lambda: graph.replay()


def copies(bench: _Bench) -> None:
    """Read and write of a tensor much larger than any cache."""
    size = 16 * 2**20 if bench.job.tiny else 2**31
    bench.beat("copying memory")
    source = torch.empty(size, dtype=torch.uint8, device=bench.device).fill_(1)
    target = torch.empty_like(source)
    bench.add("copy", "", bench.timed([lambda: target.copy_(source)]), bytes=2.0 * size)


def launches(bench: _Bench) -> None:
    """The shortest kernel: from start to start in a graph, and as the host launches them one by one."""
    bench.beat("launching kernels")
    x = torch.zeros(1, device=bench.device)
    add = [lambda: x.add_(1.0)] * LAUNCHES
    bench.add("launch", "", bench.timed(add))

    def eager() -> None:
        for call in add:
            call()  # type: ignore[no-untyped-call]

    samples = [bench.clock.once(eager) / LAUNCHES for _ in range(REPEATS)]
    bench.add("host_launch", "", spread_of(samples))


def gemms(bench: _Bench) -> None:
    """x W^T over tokens, shapes and formats."""
    shapes, tokens = (TINY_SHAPES, TINY_TOKENS) if bench.job.tiny else (SHAPES, TOKENS)
    cold = _cold_bytes(bench)
    for name in bench.job.formats:
        if not _has(name, bench.device):
            continue
        for n, k in shapes:
            bench.beat(f"multiplying {name} {n} x {k}")
            matrices = _matrices(name, n, k, cold, bench.device)  # rotated, so that none is found in a cache
            for m in tokens:
                if bench.up():
                    return
                x = torch.randn(m, k, device=bench.device, dtype=_type(bench.device))
                found = bench.timed(_products(matrices, x))
                bench.add("gemm", name, found, m=m, n=n, k=k)


def _type(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _has(name: str, device: torch.device) -> bool:
    """Whether this device multiplies the format: fp8 from compute capability 8.9 on."""
    if name in ("fp8", "fp8-block"):
        return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)
    return True


def _matrices(name: str, n: int, k: int, cold: int, device: torch.device) -> list[Matrix]:
    """As many matrices as fill `cold` bytes."""
    size = n * k * (1 if name in ("fp8", "fp8-block") else 2)
    made = []
    for _ in range(max(1, min(64, cold // size))):
        matrix = Matrix(n, k, weights=name, device=device, dtype=_type(device))
        matrix.put(torch.randn(n, k, device=device, dtype=_type(device)) * 0.02)
        made.append(matrix)
    return made


def _products(matrices: Sequence[Matrix], x: Tensor) -> list[Callable[[], object]]:
    """x times each matrix as the runner multiplies; fp8 activations are quantised before, which is a kernel of its own."""
    if matrices[0].format in ("fp8", "fp8-block"):
        codes, scale = quantise_rows(x)
        return [(lambda w=w: w.product(codes, scale)) for w in matrices]  # type: ignore[misc]
    return [(lambda w=w: w(x)) for w in matrices]  # type: ignore[misc]


def attentions(bench: _Bench) -> None:
    """torch's fused causal attention of a prompt, and the runner's own of one new token over a cache."""
    tiny = bench.job.tiny
    heads, kv_heads, width = HEADS[tiny]
    number_format = "bf16" if bench.device.type == "cuda" else "fp32"

    def tensors(batch: int, count: int, tokens: int) -> Tensor:
        return torch.randn(batch, count, tokens, width, device=bench.device, dtype=_type(bench.device))

    for batch, new in TINY_PROMPTS if tiny else PROMPTS:
        if bench.up():
            return
        bench.beat(f"attention of {batch} prompts of {new} tokens")
        q, k, v = tensors(batch, heads, new), tensors(batch, kv_heads, new), tensors(batch, kv_heads, new)
        call = lambda q=q, k=k, v=v: scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)  # noqa: E731
        bench.add(
            "attention_prefill", number_format, bench.timed([call]), batch=batch, tokens=new, heads=heads, kv_heads=kv_heads,
            head_dim=width,
        )  # fmt: skip
    for batch, cached in TINY_CACHED if tiny else CACHED:
        if bench.up():
            return
        bench.beat(f"attention of {batch} tokens over {cached} cached")
        calls = _decodes(bench, batch, cached)
        bench.add(
            "attention_decode", number_format, bench.timed(calls), batch=batch, tokens=cached, heads=heads, kv_heads=kv_heads,
            head_dim=width,
        )  # fmt: skip


def _decodes(bench: _Bench, batch: int, cached: int) -> list[Callable[[], object]]:
    """Attention over as many caches as fill what no cache of the chip holds."""
    heads, kv_heads, width = HEADS[bench.job.tiny]
    kind = _type(bench.device)
    size = 2 * batch * kv_heads * cached * width * kind.itemsize
    shape = CacheShape(heads=kv_heads, key_dim=width, value_dim=width)
    q = torch.randn(batch, heads, width, device=bench.device, dtype=kind)
    at = torch.full((batch,), cached - 1, device=bench.device)
    sight = Sight(scale=width**-0.5)
    calls: list[Callable[[], object]] = []
    for _ in range(max(1, min(64, _cold_bytes(bench) // size))):
        cache = LayerCache(shape, batch, cached, device=bench.device, dtype=kind)
        for part in (cache.keys, cache.values):
            assert part is not None
            part.normal_()
        calls.append(lambda cache=cache: attend_cache(q, at, cached, cache, sight, None))  # type: ignore[misc]
    return calls


def _cold_bytes(bench: _Bench) -> int:
    return 2**23 if bench.job.tiny else 2**29


def messages(bench: _Bench) -> None:
    """Every collective in groups of 2, 4, ... and all ranks, and from the first rank to the second."""
    world, rank = dist.get_world_size(), dist.get_rank()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    counts = sorted({n for n in (2, 4, 8) if n < world and n <= local} | {world})
    for count in counts:
        group = dist.new_group(list(range(count)))
        nodes = -(-count // local)
        custom = None
        if rank < count and bench.device.type == "cuda" and nodes == 1:
            custom = CustomReduce.open(group, bench.device)
        for payload in TINY_PAYLOADS if bench.job.tiny else PAYLOADS:
            if bench.up():
                return
            bench.beat(f"messages of {payload} bytes among {count}")
            # Ranks outside the group only take part in the clock's barriers.
            calls = _collectives(bench.device, group, count, rank, payload) if rank < count else {}
            for op in OPS if count == 2 else OPS[:-1]:
                _add_wire(bench, op, "nccl", count, nodes, payload, bench.message_s(calls.get(op), payload))
            _custom(bench, custom, count, payload)


def _collectives(
    device: torch.device, group: dist.ProcessGroup, count: int, rank: int, payload: int
) -> dict[Op, Callable[[], object]]:
    """Each collective with the payload of one rank as `WireTime` counts it. Sums are of zeros, which stay finite however often."""
    x = torch.zeros(payload // 4, device=device)
    whole, part = torch.zeros(count * (payload // 4), device=device), torch.zeros(payload // 4 // count, device=device)
    cut = x[: part.numel() * count]
    other = torch.zeros_like(cut)

    def send() -> None:
        if rank == 0:
            dist.send(x, group=group, group_dst=1)
        elif rank == 1:
            dist.recv(x, group=group, group_src=0)

    return {
        "all_reduce": lambda: dist.all_reduce(x, group=group),
        "all_gather": lambda: GATHER(whole, x, group=group),
        "reduce_scatter": lambda: SCATTER(part, cut, group=group),
        "all_to_all": lambda: dist.all_to_all_single(other, cut, group=group),
        "p2p": send,
    }


def _custom(bench: _Bench, custom: CustomReduce | None, count: int, payload: int) -> None:
    """The fastest of the kernels over symmetric memory, where every rank of the group has them."""
    x = torch.zeros(payload // 4, device=bench.device)
    kinds = [kind for kind in KINDS if custom is not None and custom.takes(x) and (kind != "multimem" or custom.switch)]
    # Ranks outside the group learn from the others how many there are.
    most = round(bench.clock.worst(float(len(kinds))))
    times = []
    for number in range(most):
        kind = kinds[number] if number < len(kinds) else None
        call = partial(custom.all_reduce, x, kind) if custom is not None and kind else None
        times.append(bench.message_s(call, payload))
    if times:
        _add_wire(bench, "all_reduce", "custom", count, 1, payload, min(times))


def _add_wire(bench: _Bench, op: Op, algorithm: Algorithm, ranks: int, nodes: int, payload: int, median_s: float) -> None:
    bench.wires.append(
        WireTime(op=op, algorithm=algorithm, ranks=ranks, nodes=nodes, payload_bytes=float(payload), median_s=median_s)
    )
