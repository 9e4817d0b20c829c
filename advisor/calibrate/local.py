"""What this machine's own micro-benchmarks say, as its Calibration.

Coefficients are the most likely ones given the samples and a prior around the shipped ones (logarithms throughout):

    minimise  sum_i ((ln t_i(theta) - ln measured_i) / SCATTER)^2 / 2  +  sum_j ((theta_j - prior_j) / width)^2 / 2         (F3)

by a pattern search: step every coefficient up or down, halve the steps where none helps. Few samples therefore move little.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from advisor.calibrate.corrections import PRIOR
from advisor.calibrate.residuals import quantile
from advisor.roofline.comm import CLASS, wire_bytes
from advisor.roofline.compute import DeviceRates, kernel_s
from advisor.roofline.work import DecodeAttention, Gemm, Kernel, PrefillAttention
from advisor.specs.benchmark import Benchmarks, KernelTime, WireTime
from advisor.specs.calibration import Calibration, Provenance, Reach, WireReach
from advisor.specs.cluster import Cluster, Device, Link, Node
from advisor.specs.engine import Engine
from advisor.specs.formats import FORMATS
from advisor.specs.keys import KernelKey, LinkClass, Op, WireKey

SCATTER = 0.1  # of one kernel around its formula, as a logarithm: what the public tables leave
WIDTH = 0.25  # how far a machine lies from others of its kind
UNKNOWN_WIDTH = 3.0  # where nothing is known of it
CAP = 3.0  # scatters beyond which a sample counts as an outlier
HIGHEST = 1.5  # reach: as catalog.calibrations allows
FOREVER = 1e18
RUNNER_SCATTER = 0.1  # between the bundled transformer and a real engine's kernels
CPU = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One coefficient set before and after: its key, samples, and the median error with the shipped ones and with its own."""

    key: str
    points: int
    before: float | None
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFit:
    """The machine's calibration and what each part of it rests on."""

    calibration: Calibration
    fitted: tuple[Fitted, ...]
    left_as_shipped: tuple[Fitted, ...] = ()


def fit(found: Benchmarks, base: Calibration, cluster: Cluster, *, unknown: bool = False) -> LocalFit:
    """The calibration of this machine from its benchmarks, over `base`.

    Matrix products, streams and messages go through the same libraries as in the engines and are replaced. Attention is torch's,
    not the engines' own: where `base` has a table of this very GPU it stays, and only the comparison is reported.
    `unknown` says that `base` knows nothing of this device (a CPU), so that the samples alone decide.
    """
    device = cluster.device
    width = UNKNOWN_WIDTH if unknown else WIDTH
    source = f"micro-benchmarks of this machine, {found.date[:10]}"
    kernels, fitted, stays = dict(base.kernels), [], []
    groups: dict[KernelKey, list[tuple[Kernel, float]]] = defaultdict(list)
    for sample in found.kernels:
        work = work_of(sample)
        if work is not None:
            groups[KernelKey(sample.kind, sample.format)].append((work, sample.median_s))
    for key, samples in groups.items():
        prior = _prior(kernels, key)
        prior = replace(prior, shape=()) if unknown else prior  # the terms of GPU kernels mean nothing there
        before = _errors(prior, key, samples, device)
        if prior.provenance.closeness == "device" and key.kind != "gemm" and not unknown:
            stays.append(Fitted(key=str(key), points=len(samples), before=before[0], after=before[0]))
            continue
        kernels[key] = _fit_reach(prior, key, samples, device, width, source)
        after = kernels[key].provenance
        assert after.median is not None
        fitted.append(Fitted(key=str(key), points=len(samples), before=before[0], after=after.median))
    stream = _stream(found, device, kernels[KernelKey("stream")], source)
    if stream is not None:
        kernels[KernelKey("stream")] = stream
    wires, lines = _wires(found, base, cluster, source)
    calibration = replace(
        base, name=f"{device.name}, measured here", device=device.name, date=found.date[:10],
        kernels=tuple(sorted(kernels.items())), wires=tuple(sorted(wires.items())), notes=tuple(_notes(found, device)),
    )  # fmt: skip
    return LocalFit(calibration=calibration, fitted=(*fitted, *lines), left_as_shipped=tuple(stays))


def work_of(sample: KernelTime) -> Kernel | None:
    """The benchmark's kernel as the roofline counts it; None for copies and launches."""
    if sample.kind == "gemm":
        return Gemm(name="gemm", m=sample.size("m"), n=sample.size("n"), k=sample.size("k"), weights=sample.format)
    if sample.kind == "attention_prefill":
        width = int(sample.size("head_dim"))
        return PrefillAttention(
            name="prefill", batch=sample.size("batch"), new=sample.size("tokens"), past=0, heads=sample.size("heads"),
            kv_heads=sample.size("kv_heads"), head_dim=width, value_dim=width, cache=sample.format,
        )  # fmt: skip
    if sample.kind == "attention_decode":
        width = int(sample.size("head_dim"))
        return DecodeAttention(
            name="decode", batch=sample.size("batch"), context=sample.size("tokens"), heads=sample.size("heads"),
            kv_heads=sample.size("kv_heads"), head_dim=width, value_dim=width, cache=sample.format,
        )  # fmt: skip
    return None


def copy_bytes_per_s(found: Benchmarks) -> float:
    """Bytes read and written a second in the largest copy."""
    sample = max((s for s in found.kernels if s.kind == "copy"), key=lambda s: s.size("bytes"))
    return sample.size("bytes") / sample.median_s


def matmul_flop_per_s(found: Benchmarks, number_format: str) -> float:
    """The best rate of a matrix product in a format; 0.0 where none was timed."""
    rates = [
        2 * s.size("m") * s.size("n") * s.size("k") / s.median_s
        for s in found.kernels
        if s.kind == "gemm" and s.format == number_format
    ]
    return max(rates, default=0.0)


def launch_s(found: Benchmarks, kind: str) -> float | None:
    """Seconds of the shortest kernel, in a graph ("launch") or launched by the host ("host_launch")."""
    return next((s.median_s for s in found.kernels if s.kind == kind), None)


# A machine without a data sheet: a CPU.


def cpu_cluster(found: Benchmarks, ranks: int) -> Cluster:
    """`ranks` parts of this CPU as devices whose sheet is what they did together."""
    copy, rate = copy_bytes_per_s(found), matmul_flop_per_s(found, "fp32")
    reduces = [w for w in found.wires if w.op == "all_reduce"]
    fastest = max((wire_bytes(w.op, w.payload_bytes, w.ranks) / w.median_s for w in reduces), default=copy / 4)
    device = Device(
        name=CPU, architecture=CPU, vendor=CPU, compute_capability="", memory_bytes=found.memory_bytes, memory_bytes_per_s=copy,
        peak_flop_per_s=(("bf16", rate), ("fp32", rate)), sms=1, l2_bytes=0.0, link_kind=None, link_bytes_per_s=0.0,
        pcie_bytes_per_s=fastest, p2p=False, power_w=0.0,
    )  # fmt: skip
    link = Link(kind="unknown", bytes_per_s=fastest, p2p=False)
    return Cluster(node=Node(name="this CPU", devices=(device,) * ranks, default_link=link))


def cpu_engine(engine: Engine, found: Benchmarks) -> Engine:
    """The runner without graphs: every kernel is launched by the host, and costs what was measured."""
    each = launch_s(found, "host_launch") or engine.host.kernel_s
    return replace(engine, graphs_up_to=0, all_reduces=(), host=replace(engine.host, kernel_s=each, step_s=0.0))


# One kernel kind.


def _prior(kernels: dict[KernelKey, Reach], key: KernelKey) -> Reach:
    """The base's coefficients of a key, or of its kind in 16 bits, or of any."""
    found = kernels.get(key) or kernels.get(KernelKey(key.kind, "bf16")) or kernels.get(KernelKey(key.kind))
    return found or next(reach for other, reach in kernels.items() if other.kind.startswith(key.kind.split("_")[0]))


def _fit_reach(
    prior: Reach, key: KernelKey, samples: Sequence[tuple[Kernel, float]], device: Device, width: float, source: str
) -> Reach:
    start = [math.log(prior.memory), math.log(prior.compute), math.log(max(prior.launch_s, 1e-7)), math.log(prior.sharpness)]

    def cost(x: Sequence[float]) -> float:
        total = sum(((a - b) / width) ** 2 for a, b in zip(x, start, strict=True)) / 2
        for work, measured in samples:
            off = abs(math.log(_seconds(_reach(prior, x), key, work, device) / measured)) / SCATTER
            total += off**2 / 2 if off <= CAP else CAP * (off - CAP / 2)
        return total

    best = descend(cost, start, step=0.3)
    reach = _reach(prior, best)
    middle, p90 = _errors(reach, key, samples, device)
    born = Provenance(source=source, closeness="device", points=len(samples), median=_round(middle), p90=_round(p90))
    return replace(reach, provenance=born)


def _reach(prior: Reach, x: Sequence[float]) -> Reach:
    memory, compute, launch, sharpness = (math.exp(min(20.0, max(-20.0, value))) for value in x)
    return replace(
        prior, memory=_round(min(HIGHEST, max(0.001, memory))), compute=_round(min(HIGHEST, max(0.001, compute))),
        launch_s=_round(min(0.01, launch)), sharpness=_round(min(8.0, max(0.7, sharpness))),
    )  # fmt: skip


def _seconds(reach: Reach, key: KernelKey, work: Kernel, device: Device) -> float:
    alone = Calibration(name="fit", device=device.name, version=1, date="", kernels=((key, reach),), wires=())
    return kernel_s(work, DeviceRates(device, alone))


def _errors(reach: Reach, key: KernelKey, samples: Sequence[tuple[Kernel, float]], device: Device) -> tuple[float, float]:
    return _median_p90(abs(_seconds(reach, key, work, device) / measured - 1) for work, measured in samples)


def _median_p90(values: Iterable[float]) -> tuple[float, float]:
    found = sorted(values)
    return quantile(found, 0.5), quantile(found, 0.9)


def descend(cost: Callable[[Sequence[float]], float], start: Sequence[float], *, step: float, least: float = 0.005) -> list[float]:
    """The coordinates of a (local) minimum: each is moved up or down while that helps, then the steps are halved."""
    best, at = list(start), cost(start)
    while step >= least:
        moved = False
        for index in range(len(best)):
            for sign in (1.0, -1.0):
                trial = best.copy()
                trial[index] += sign * step
                value = cost(trial)
                if value < at - 1e-9:
                    best, at, moved = trial, value, True
                    break
        if not moved:
            step /= 2
    return best


def _stream(found: Benchmarks, device: Device, base: Reach, source: str) -> Reach | None:
    """(K6): the copy's share of the sheet, and the shortest kernel of a graph."""
    each = launch_s(found, "launch")
    if each is None:
        return None
    share = min(HIGHEST, copy_bytes_per_s(found) / device.memory_bytes_per_s)
    born = Provenance(source=source, closeness="device", points=2, median=0.0, p90=0.0)
    return replace(base, memory=_round(share), launch_s=_round(min(0.01, each)), provenance=born)


# Messages.


def _wires(found: Benchmarks, base: Calibration, cluster: Cluster, source: str) -> tuple[dict[WireKey, WireReach], list[Fitted]]:
    """The base's lines with those that were measured in place of it."""
    groups: dict[tuple[Op, str, int, int], list[WireTime]] = defaultdict(list)
    for sample in found.wires:
        groups[sample.op, sample.algorithm, sample.ranks, sample.nodes].append(sample)
    wires, fitted = dict(base.wires), []
    for (op, algorithm, ranks, nodes), samples in groups.items():
        link, rate = _link(cluster, ranks, nodes)
        count = ranks if nodes == 1 else nodes
        lines, middle = _fit_lines(samples, rate, source)
        measured = WireKey(op, algorithm, link, count)
        shipped = [line for key, line in wires.items() if replace(key, line=0) == measured]
        beyond = [_above(line, samples, rate) for line in shipped if line.up_to_bytes > lines[0].up_to_bytes]
        wires = {key: line for key, line in wires.items() if replace(key, line=0) != measured}
        wires |= {replace(measured, line=number): line for number, line in enumerate((*lines, *beyond), 1)}
        fitted.append(Fitted(key=str(measured), points=len(samples), before=None, after=middle))
    return wires, fitted


def _link(cluster: Cluster, ranks: int, nodes: int) -> tuple[LinkClass, float]:
    """The class of link that the first `ranks` GPUs share, and its data-sheet rate."""
    from advisor.roofline.comm import link_class
    from advisor.roofline.fabric import LinkGraph, group_fabric

    fabric = group_fabric(LinkGraph(cluster), range(min(ranks, cluster.gpus)))
    return link_class(fabric) if fabric.ranks > 1 else CLASS[cluster.node.default_link.kind], fabric.bytes_per_s


def _above(line: WireReach, samples: Sequence[WireTime], rate: float) -> WireReach:
    """A shipped line that goes on where the samples end: an engine's kernels take larger messages than ours. Its latency is raised
    until it is nowhere faster than what was measured, so that it decides beyond the samples only.
    """
    least = max(s.median_s - wire_bytes(s.op, s.payload_bytes, s.ranks) / (rate * line.bandwidth) for s in samples)
    return replace(line, alpha_s=_round(max(line.alpha_s, least)))


def _fit_lines(samples: Sequence[WireTime], rate: float, source: str) -> tuple[list[WireReach], float]:
    """Two lines (C1), low latency first, by the same search."""
    points = [(wire_bytes(s.op, s.payload_bytes, s.ranks) / rate, s.median_s) for s in samples]
    shortest = min(t for _, t in points)
    largest = max(points)

    def lines(x: Sequence[float]) -> list[tuple[float, float]]:
        alpha, low, extra, high = (math.exp(min(30.0, max(-30.0, value))) for value in x)
        low = min(HIGHEST, max(0.0001, low))
        return [(min(0.09, alpha), low), (min(0.09, alpha + extra), min(HIGHEST, low + high))]

    def seconds(x: Sequence[float], wire: float) -> float:
        return min(alpha + wire / share for alpha, share in lines(x))

    def cost(x: Sequence[float]) -> float:
        offs = [abs(math.log(seconds(x, wire) / t)) / SCATTER for wire, t in points]
        return sum(off**2 / 2 if off <= CAP else CAP * (off - CAP / 2) for off in offs) + 1e-3 * sum(v * v for v in x)

    high = max(1e-3, min(1.0, largest[0] / largest[1]))
    best = descend(cost, [math.log(shortest), math.log(high / 3), math.log(shortest), math.log(high)], step=0.5)
    middle, p90 = _median_p90(abs(seconds(best, wire) / t - 1) for wire, t in points)
    born = Provenance(source=source, closeness="device", points=len(points), median=_round(middle), p90=_round(p90))
    up_to = max(s.payload_bytes for s in samples) if samples[0].algorithm == "custom" else FOREVER
    return [
        WireReach(alpha_s=_round(alpha), alpha_per_rank_s=0.0, bandwidth=_round(share), up_to_bytes=up_to, provenance=born)
        for alpha, share in lines(best)
    ], middle


def _notes(found: Benchmarks, device: Device) -> list[str]:
    """What the calibration was made on: driver, clocks, software, and the two rates that bound everything."""
    from advisor.units import show

    rates = {name: matmul_flop_per_s(found, name) for name in sorted({s.format for s in found.kernels if s.kind == "gemm"})}
    best = ", ".join(f"{show(rate, 'FLOP/s')} in {name}" for name, rate in rates.items())
    host = launch_s(found, "host_launch")
    parts = [
        f"measured on {found.device_name} on {found.date}, driver {found.driver or 'unknown'}, {found.software}"
        + (f", clocks {found.clocks}" if found.clocks else ""),
        f"copy {show(copy_bytes_per_s(found), 'B/s')} of {show(device.memory_bytes_per_s, 'B/s')}; matrix products up to {best}"
        + (f"; the host launches a kernel in {show(host, 's')}" if host else ""),
    ]
    return parts + list(found.notes)


# Validation runs refine it.

USABLE = 0.75  # of the bound: an engine's kernels reach about that, and a runner that does not says nothing of one


def bound_rates(calibration: Calibration, device: Device, number_format: str) -> tuple[float, float]:
    """Bytes/s of a copy and FLOP/s of large matrix products in a format, as the calibration has them; FLOP/s 0.0: unknown."""
    kernels = dict(calibration.kernels)
    gemm = kernels.get(KernelKey("gemm", number_format))
    flop_per_s = device.peak(FORMATS[number_format].compute) * gemm.compute if gemm else 0.0
    return device.memory_bytes_per_s * kernels[KernelKey("stream")].memory, flop_per_s


def refined(calibration: Calibration, ratios: Sequence[tuple[str, float]]) -> Calibration:
    """The calibration with its "decode" and "prefill" scales moved by measured / predicted of whole steps of the runner.

    A normal prior as for own runs of an engine (F2), and RUNNER_SCATTER a plan, because the runner is not the engine: one plan
    that takes 20% longer than predicted moves its scale by 17%. Call it with one ratio a plan and phase, of runs that came near the
    hardware's bound: a slow runner says nothing of an engine.
    """
    scales = dict(calibration.scales)
    for name in ("decode", "prefill"):
        logs = [math.log(ratio) for phase, ratio in ratios if phase == name and ratio > 0]
        if logs:
            weight = len(logs) / RUNNER_SCATTER**2
            moved = weight * (sum(logs) / len(logs)) / (weight + 1 / PRIOR[name] ** 2)
            scales[name] = _round(scales.get(name, 1.0) * math.exp(moved))
    note = f"refined by {len(ratios)} figures of validation runs"
    return replace(calibration, scales=tuple(sorted(scales.items())), notes=(*calibration.notes, note))


def _round(value: float) -> float:
    return float(f"{value:.4g}")
