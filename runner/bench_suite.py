"""The kernels and messages that the micro-benchmarks time, and in which sizes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from advisor.specs.benchmark import BenchJob, Benchmarks, KernelKind, KernelTime, WireTime
from runner import clocks
from runner.clock import Clock, Spread, spread_of
from runner.measure import free_bytes
from runner.meeting import join
from runner.one_shot import OneShot
from runner.quantised import Matrix
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
Op = Literal["all_reduce", "all_gather", "p2p"]
Algorithm = Literal["nccl", "custom"]


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

        least = 0.002 if self.device.type == "cuda" else 0.001
        first = min(self.clock.once(run) for _ in range(3))
        times = max(1, round(least / max(first, 1e-7)))
        count = times * len(calls)
        return spread_of([self.clock.once(run, times) / count for _ in range(REPEATS)])

    def add(self, kind: KernelKind, number_format: str, found: Spread, **sizes: float) -> None:
        """Note a kernel's time."""
        self.kernels.append(
            KernelTime(
                kind=kind, format=number_format, sizes=tuple(sorted(sizes.items())), median_s=found.median_s, low_s=found.low_s,
                high_s=found.high_s,
            )
        )  # fmt: skip


def benchmarks(job: BenchJob, beat: Callable[[str], None]) -> Benchmarks:
    """Everything on this rank; the others do the same."""
    device = device_of(job)
    if "RANK" in os.environ:
        join(device, job.stall_limit_s * 0.8)
    clock = Clock(device, alone=not dist.is_initialized())
    bench = _Bench(job, device, clock, time.monotonic() + job.time_limit_s, beat, [], [])
    gpu = clocks.Gpu(str(torch.cuda.get_device_properties(device).uuid)) if device.type == "cuda" else None
    with torch.inference_mode():
        copies(bench)
        during = gpu.read() if gpu else None
        launches(bench)
        gemms(bench)
        attentions(bench)
        if not clock.alone:
            messages(bench)
    after = gpu.read() if gpu else None
    notes = list(clocks.notes(during, after))
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
    cold = 2**23 if bench.job.tiny else 2**29
    for name in bench.job.formats:
        if not _has(name, bench.device):
            continue
        for n, k in shapes:
            bench.beat(f"multiplying {name} {n} x {k}")
            matrices = _matrices(name, n, k, cold, bench.device)
            for m in tokens:
                if bench.up():
                    return
                x = torch.randn(m, k, device=bench.device, dtype=_type(bench.device))
                found = bench.timed([(lambda w=w, x=x: w(x)) for w in matrices])  # type: ignore[misc]
                bench.add("gemm", name, found, m=m, n=n, k=k)


def _type(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _has(name: str, device: torch.device) -> bool:
    """Whether this device multiplies the format: fp8 from compute capability 8.9 on."""
    if name in ("fp8", "fp8-block"):
        return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)
    return True


def _matrices(name: str, n: int, k: int, cold: int, device: torch.device) -> list[Callable[[Tensor], Tensor]]:
    """As many matrices as fill `cold` bytes, so that none is found in a cache. fp8 activations are taken as they are."""
    size = n * k * (1 if name == "fp8" else 2)
    made: list[Callable[[Tensor], Tensor]] = []
    for _ in range(max(1, min(64, cold // size))):
        if name == "fp8":
            made.append(_fp8(n, k, device))
        else:
            matrix = Matrix(n, k, weights=name, device=device, dtype=_type(device))
            matrix.put(torch.randn(n, k, device=device, dtype=_type(device)) * 0.02)
            made.append(matrix)
    return made


def _fp8(n: int, k: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    weight = (torch.randn(n, k, device=device) * 0.02).to(torch.float8_e4m3fn)
    one = torch.ones((), device=device)
    codes: dict[int, Tensor] = {}

    def multiply(x: Tensor) -> Tensor:
        rows = max(16, x.shape[0])  # the kernel wants whole tiles
        if rows not in codes:
            codes[rows] = torch.zeros(rows, k, device=device).to(torch.float8_e4m3fn)
        return torch._scaled_mm(codes[rows], weight.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

    return multiply


def attentions(bench: _Bench) -> None:
    """torch's fused causal attention of a prompt, and of one new token over a cache."""
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
        q, k, v = tensors(batch, heads, 1), tensors(batch, kv_heads, cached), tensors(batch, kv_heads, cached)
        call = lambda q=q, k=k, v=v: scaled_dot_product_attention(q, k, v, enable_gqa=True)  # noqa: E731
        bench.add(
            "attention_decode", number_format, bench.timed([call]), batch=batch, tokens=cached, heads=heads, kv_heads=kv_heads,
            head_dim=width,
        )  # fmt: skip


def messages(bench: _Bench) -> None:
    """All-reduce and all-gather in groups of 2, 4, ... and all ranks, and from the first rank to the second."""
    world, rank = dist.get_world_size(), dist.get_rank()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    counts = sorted({n for n in (2, 4, 8) if n < world and n <= local} | {world})
    for count in counts:
        group = dist.new_group(list(range(count)))
        nodes = -(-count // local)
        one_shot = None
        if rank < count and bench.device.type == "cuda" and nodes == 1:
            one_shot = OneShot.open(group, bench.device)
        for payload in TINY_PAYLOADS if bench.job.tiny else PAYLOADS:
            if bench.up():
                return
            bench.beat(f"messages of {payload} bytes among {count}")
            # Ranks outside the group only keep the clock's company.
            inside = rank < count
            x = torch.zeros(payload // 4, device=bench.device)
            out = torch.zeros(count * (payload // 4), device=bench.device)
            reduce = (lambda x=x, group=group: dist.all_reduce(x, group=group)) if inside else _nothing
            gather = (lambda x=x, out=out, group=group: dist.all_gather_into_tensor(out, x, group=group)) if inside else _nothing
            _add_wire(bench, "all_reduce", "nccl", count, nodes, payload, reduce, inside)
            _add_wire(bench, "all_gather", "nccl", count, nodes, payload, gather, inside)
            if count == 2:
                _add_wire(bench, "p2p", "nccl", 2, nodes, payload, _send(x, group, rank) if inside else _nothing, inside)
            takes = bench.clock.worst(1.0 if one_shot is not None and one_shot.takes(x) else 0.0)
            if takes:
                own = (lambda x=x, one=one_shot: one.all_reduce(x)) if inside and one_shot is not None else _nothing
                _add_wire(bench, "all_reduce", "custom", count, nodes, payload, own, inside)


def _nothing() -> None:
    return None


def _send(x: Tensor, group: dist.ProcessGroup, rank: int) -> Callable[[], None]:
    def call() -> None:
        if rank == 0:
            dist.send(x, group=group, group_dst=1)
        else:
            dist.recv(x, group=group, group_src=0)

    return call


def _add_wire(
    bench: _Bench, op: Op, algorithm: Algorithm, ranks: int, nodes: int, payload: int, call: Callable[[], object], inside: bool
) -> None:
    """Time a message ten in a row. Every rank keeps time, so that all leave together."""
    many = 10
    run: Callable[[], object] = _nothing
    if inside:
        if bench.device.type == "cuda":
            run = _graph([call] * many)
        else:

            def run() -> None:
                for _ in range(many):
                    call()

    bench.clock.once(run)
    samples = [bench.clock.once(run) / many for _ in range(REPEATS)]
    median_s = spread_of(samples).median_s
    bench.wires.append(
        WireTime(op=op, algorithm=algorithm, ranks=ranks, nodes=nodes, payload_bytes=float(payload), median_s=median_s)
    )
