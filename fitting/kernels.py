"""Kernel and collective coefficients of every GPU from the public tables, as the calibration files that ship.

Run, with the `fit` extra installed:  python -m fitting.kernels TABLES --out profiles/calibration --report docs/kernels.md

The same tables give the same files. Which GPU stands in for which when it has no table: `advisor.catalog.calibrations`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from advisor.catalog.machines import load_device
from advisor.errors import AdvisorError
from advisor.roofline.compute import DeviceRates, kernel_s, peak_flop_per_s
from advisor.specs.calibration import Calibration, Provenance, Reach, WireReach
from advisor.specs.cluster import Device
from advisor.specs.formats import FORMATS
from advisor.specs.keys import KernelKey, Op, WireKey
from advisor.specs.wire import to_data
from fitting import tables
from fitting.reach import Fit, by_key, error_of, fit_reach, rounded
from fitting.tables import Sample, WireSample
from fitting.wires import FOREVER, fit_lines, per_rank

VERSION = 1
DATE = "2026-11-21"  # when the tables were last read
TABLES = "kernel tables of NVIDIA aiconfigurator 0.12 (sample)"
MAMF = "ml-engineering, maximum achievable matmul FLOPS, table 1"
READERS: tuple[Callable[[Path], Any], ...] = (
    tables.gemms,
    tables.prefills,
    tables.decodes,
    tables.latent_prefills,
    tables.latent_decodes,
    tables.experts,
    tables.states,
)
# Kinds whose kernels differ by engine more than GEMMs and attention do, which engines take from the same libraries.
BY_ENGINE = ("experts", "state_scan", "state_update")
# Kinds whose tables hold few GPUs: the others take the median of those.
LENT = ("state_scan", "state_update", "index_scores")
FEWEST_LENT = 12
# Another chip of the same architecture: what would be served if the first had no table (the leave-one-GPU-out test).
SIBLINGS = {
    "h100-80g-sxm": "h200-141g-sxm",
    "h200-141g-sxm": "h100-80g-sxm",
    "b200-180g": "b300",
    "b300": "b200-180g",
    "gb200": "b200-180g",
}
# Devices without tables that get a file of their own: the compute reach that a scan found, the rest from the median of all.
SCANNED = ("mi300x", "mi325x", "mi355x")
FEWEST = 30
# A kernel in a replayed CUDA graph takes at least this long from start to start; no public table of element-wise kernels exists.
STREAM_LAUNCH_S = 1.5e-6
MESH_LINKS = 7  # of each GPU of a board of eight to the others (MI300X data sheet)
ROCM_TABLE = "all-reduces of MI300X as people posted them (rccl#1562, aiter#801, vllm#19744)"
# Stream copies reach 4.11 of MI300X's 5.3 TB/s (Azure AI-benchmarking-guide, BabelStream), NVIDIA's about 0.92 of theirs.
ROCM_STREAM, CUDA_STREAM = 0.775, 0.92
# The L40S rows whose machine moves 18 to 21 GB/s with 2, 4 and 8 ranks alike.
HEALTHY = "sglang 0.5.12"
PCIE_CLASSES = ("pcie", "host", "sys")
# A GEMM format met worse than this on held-out shapes is not served: the nearest format of that GPU stands in for it.
WORST_GEMM = 0.2
# A GEMM whose latency stands this far above the 16-bit one's was timed with launches of the host: quantised inputs are a second
# kernel at most, and weight-only kernels (Marlin) widen the weights inside the one they are.
HOST_SHARE = {False: 2.0, True: 1.25}


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedKernel:
    """One fitted key: what is served, what was left out, and the (median, p90) error when others' coefficients are served
    instead: the sibling's, or the median of all other GPUs."""

    hardware: str
    key: str
    fit: Fit
    sibling: tuple[float, float] | None
    others: tuple[float, float] | None


def fit_kernels(folder: Path, devices: dict[str, Device]) -> list[FittedKernel]:
    """Every key of every device that has enough rows."""
    samples: list[Sample] = [s for read in READERS for s in read(folder) if s.hardware in devices]
    apart = [replace(s, key=f"{s.key}/{s.engine}") for s in samples if _kind(s.key) in BY_ENGINE]
    groups = {pair: group for pair, group in by_key([*samples, *apart]).items() if len(group) >= FEWEST}
    fits = {pair: fit_reach(group, devices[pair[0]], source=TABLES) for pair, group in sorted(groups.items())}
    fits = {p: f for p, f in fits.items() if not (_kind(p[1]) == "gemm" and (f.reach.provenance.median or 0.0) > WORST_GEMM)}
    results = []
    for (hardware, key), fit in fits.items():

        def lent(reach: Reach | None, pair: tuple[str, str] = (hardware, key), fit: Fit = fit) -> tuple[float, float] | None:
            return error_of(reach, fit.sources, groups[pair], devices[pair[0]]) if reach else None

        other = fits.get((SIBLINGS.get(hardware, ""), key))
        rest = [f.reach for (h, k), f in fits.items() if k == key and h != hardware]
        served = _without_host(fit, fits.get((hardware, "gemm/bf16")))
        typical = middle(rest, source="", closeness="default") if len(rest) > 1 else None
        results.append(
            FittedKernel(hardware=hardware, key=key, fit=served, sibling=lent(other.reach if other else None), others=lent(typical))
        )
    return results


def _kind(key: str) -> str:
    return key.split("/")[0]


def _without_host(fit: Fit, plain: Fit | None) -> Fit:
    """A GEMM with its launch capped: what exceeds HOST_SHARE of the 16-bit one is the benchmark's host, not the kernel."""
    kind, number_format, *_ = fit.key.split("/")
    if plain is None or kind != "gemm":
        return fit
    most = HOST_SHARE[FORMATS[number_format].weight_only] * plain.reach.launch_s
    if fit.reach.launch_s <= most:
        return fit
    note = f"{fit.reach.provenance.source}; launch cut from {fit.reach.launch_s * 1e6:.0f} us, the residuals are those before"
    reach = replace(fit.reach, launch_s=rounded(most), provenance=replace(fit.reach.provenance, source=note))
    return replace(fit, reach=reach)


def fit_indexers(folder: Path, devices: dict[str, Device], own: dict[str, dict[str, Reach]]) -> dict[str, Reach]:
    """The indexer's coefficients on every device with enough rows, the products that were timed with it taken off."""
    found = {}
    groups = by_key([s for s in tables.index_scores(folder) if s.hardware in devices])
    for (hardware, _), group in sorted(groups.items()):
        rates = DeviceRates(devices[hardware], _calibration(hardware, own[hardware], {}))
        bare = [
            replace(s, seconds=seconds)
            for s in group
            if (seconds := s.seconds - sum(kernel_s(work, rates) for work in s.beside)) > 0
        ]
        if len(bare) >= FEWEST_LENT:
            found[hardware] = fit_reach(bare, devices[hardware], source=f"{TABLES}, modules with and without an indexer").reach
    return found


def lend(own: dict[str, Reach], typical: dict[str, Reach]) -> dict[str, Reach]:
    """The keys of the LENT kinds that a device has no table of, from the median of all that have one."""
    return {key: reach for key, reach in typical.items() if _kind(key) in LENT and key not in own and key.count("/") == 1}


def stream_reach(plain: Reach) -> Reach:
    """Element-wise kernels, (K6): the memory reach of the 16-bit GEMM and a graph's shortest kernel."""
    provenance = Provenance(source="estimate: memory reach of gemm/bf16, 1.5 us a kernel in a CUDA graph", closeness="default")
    return Reach(memory=plain.memory, compute=1.0, launch_s=STREAM_LAUNCH_S, sharpness=2.0, provenance=provenance)


def fit_wires(folder: Path, devices: dict[str, Device]) -> dict[str, dict[str, WireReach]]:
    """Lines of every device's own links, by key. Those of a PCIe server stand for its paths over bridges and sockets alike."""
    groups: dict[tuple[str, Op, str], dict[int, list[WireSample]]] = defaultdict(lambda: defaultdict(list))
    for sample in [*tables.collectives(folder), *tables.point_to_point(folder), *tables.expert_exchanges(folder)]:
        if sample.hardware in devices and (kept := _kept(sample, devices[sample.hardware])):
            op: Op = "all_gather" if kept.op == "reduce_scatter" else kept.op
            groups[kept.hardware, op, kept.algorithm][kept.ranks].append(kept)
    found: dict[str, dict[str, WireReach]] = defaultdict(dict)
    for (hardware, op, algorithm), by_ranks in sorted(groups.items()):
        device = devices[hardware]
        fits = {n: fit_lines(s, device.link_bytes_per_s or device.pcie_bytes_per_s, source=TABLES) for n, s in by_ranks.items()}
        for ranks, lines in per_rank(fits).items():
            for number, line in enumerate(lines, 1):
                for link in ("nvswitch",) if device.link_bytes_per_s else PCIE_CLASSES:
                    found[hardware][f"{op}/{algorithm}/{link}/{ranks}/{number}"] = line
    return found


def _kept(sample: WireSample, device: Device) -> WireSample | None:
    """The row as what it measured, None where it stands for nothing.

    Beyond two PCIe GPUs the engines' own kernels are off: their rows are NCCL's. Most L40S rows of 4 and 8 ranks come from a
    machine that reaches 1.5 to 5 GB/s between sockets; TensorRT-LLM's published throughput (70B, TP=8, 2048 in, 128 out) needs
    more than 14. The rows of the one healthy machine, SGLang's of HEALTHY, are taken instead.
    """
    if device.link_bytes_per_s or sample.ranks == 2:
        return sample
    if sample.hardware == "l40s":
        return replace(sample, algorithm="nccl", source="NCCL " + HEALTHY) if HEALTHY in sample.source else None
    return sample if sample.algorithm == "nccl" else None


def _line(alpha_us: float, per_rank_us: float, share: float, source: str) -> WireReach:
    provenance = Provenance(source=source, closeness="default")
    return WireReach(
        alpha_s=rounded(alpha_us * 1e-6),
        alpha_per_rank_s=rounded(per_rank_us * 1e-6),
        bandwidth=share,
        up_to_bytes=FOREVER,
        provenance=provenance,
    )


def assumed_wires() -> dict[str, WireReach]:
    """Classes of link that no table measures, as estimates from single figures.

    host, sys, staged: NCCL through host memory, about 14 us and 6-22 GB/s of a 32 GB/s slot (rtx6kpro, p2pmark; two PHB pairs at
    13.2 and 6.5 GB/s); staged, where nothing else is possible, keeps less of it with more ranks. network, tcp: sends between nodes,
    12-24 us with the eager call and 35.9 of 50 GB/s with RDMA (vidur, H100); 16 ranks on two nodes, 65 us eager (vidur, A100); the
    ranks of a key are nodes.
    """
    host = "estimate: through host memory, about 14 us and a third of the slot (rtx6kpro p2pmark, PHB pairs)"
    network = "estimate: cross-node sends of vidur on H100 (17 us eager, 36 of 50 GB/s), 16-rank all-reduce on A100"
    shares = {"host": (0.35, 0.35), "sys": (0.3, 0.3), "staged": (0.3, 0.22)}
    lines = {f"p2p/nccl/{link}/2": _line(14, 0, two, host) for link, (two, _) in shares.items()}
    for op, first in (("all_reduce", 14.0), ("all_gather", 11.0), ("all_to_all", 12.0)):
        for link, (two, more) in shares.items():
            lines[f"{op}/nccl/{link}/2"] = _line(first, 3, two, host)
            lines[f"{op}/nccl/{link}/4"] = _line(first + 6, 3, more, host)
        lines[f"{op}/nccl/network/2"] = _line(2 * first, 4, 0.72, network)
        lines[f"{op}/nccl/tcp/2"] = _line(4 * first, 8, 0.6, network)
    sends = {"network": (13, 0.72, network), "tcp": (25, 0.6, network), "pcie": (8, 0.6, host)}
    return lines | {f"p2p/nccl/{link}/2": _line(alpha, 0, share, source) for link, (alpha, share, source) in sends.items()}


def meshed(folder: Path, lines: dict[str, WireReach], link_bytes_per_s: float) -> dict[str, WireReach]:
    """Collectives over a mesh of xGMI, where n ranks share n - 1 links each way.

    RCCL was timed with eight ranks alone: the lines that NCCL has through a switch, their latency stretched to what RCCL's eight
    ranks take, at the share of the links that they reach (half of it in the low-latency protocol, whose words are half flags).
    vLLM's custom kernels for ROCm (vllm#14755) were timed with two and four ranks; eight go on from there.
    """
    samples: dict[tuple[str, int], list[WireSample]] = defaultdict(list)
    for sample in tables.rocm_collectives(folder):
        samples[sample.algorithm, sample.ranks].append(sample)
    fits = {key: fit_lines(rows, link_bytes_per_s * (key[1] - 1), source=ROCM_TABLE) for key, rows in samples.items()}
    low, high = fits["nccl", 8]
    stretch = {"1": low.alpha_s / lines["all_reduce/nccl/nvswitch/8/1"].alpha_s, "2": 1.0}
    stretch["2"] = max(1.0, high.alpha_s / lines["all_reduce/nccl/nvswitch/8/2"].alpha_s)
    source = f"A100's NCCL, stretched to RCCL's eight ranks: {ROCM_TABLE}"
    found = {}
    for key, line in lines.items():
        op, algorithm, _, ranks, *number = key.split("/")
        if algorithm == "nccl":
            longer, share = stretch[number[0]], high.bandwidth / 2 if number == ["1"] else high.bandwidth
            found["/".join((op, algorithm, "nvlink", ranks, *number))] = replace(
                line,
                alpha_s=rounded(line.alpha_s * longer),
                alpha_per_rank_s=rounded(line.alpha_per_rank_s * longer),
                bandwidth=rounded(share),
                provenance=Provenance(source=source, closeness="default"),
            )
    for count, own in per_rank({ranks_of: fit for (name, ranks_of), fit in fits.items() if name == "rocm"}).items():
        for place, line in enumerate(own, 1):
            found[f"all_reduce/rocm/nvlink/{count}/{place}"] = line
    return found


def borrowed(lines: dict[str, WireReach], other: str) -> dict[str, WireReach]:
    """Another device's lines with their provenance saying so."""
    return {
        key: replace(line, provenance=replace(line.provenance, closeness="family", source=f"{line.provenance.source}, {other}"))
        for key, line in lines.items()
    }


def middle(reaches: Sequence[Reach], *, source: str, closeness: str) -> Reach:
    """The median of each coefficient: what an unknown device is likely to reach; its error is the spread between devices."""
    names = [name for name, _ in reaches[0].shape]

    def of(take: Callable[[Reach], float]) -> float:
        return rounded(median(take(r) for r in reaches))

    return Reach(
        memory=of(lambda r: r.memory),
        compute=of(lambda r: r.compute),
        launch_s=of(lambda r: r.launch_s),
        sharpness=of(lambda r: r.sharpness),
        shape=tuple((name, of(lambda r, n=name: r.coefficient(n, 0.0))) for name in names),  # type: ignore[misc]
        provenance=Provenance(source=source, closeness=closeness, points=sum(r.provenance.points for r in reaches)),
    )


def _with_error(reach: Reach, errors: Sequence[tuple[float, float]]) -> Reach:
    """The reach with the error of serving it where it was not fitted: the median over GPUs, each left out in turn."""
    if not errors:
        return reach
    middle_of, p90 = (rounded(median(e[i] for e in errors)) for i in (0, 1))
    return replace(reach, provenance=replace(reach.provenance, median=middle_of, p90=p90))


def calibrations(folder: Path, devices: dict[str, Device]) -> tuple[list[Calibration], list[FittedKernel]]:
    """A calibration for every device with tables, for those with a scan, and the `default` for the rest."""
    tabled = {name: d for name, d in devices.items() if name not in SCANNED}
    results, wires = fit_kernels(folder, tabled), fit_wires(folder, tabled)
    kernels: dict[str, dict[str, Reach]] = defaultdict(dict)
    for result in results:
        kernels[result.hardware][result.key] = result.fit.reach
    for hardware, reach in fit_indexers(folder, tabled, kernels).items():
        kernels[hardware]["index_scores/fp8"] = reach
    for own in kernels.values():
        own["stream"] = stream_reach(own["gemm/bf16"])
    pcie = borrowed({k: v for k, v in wires["rtx-pro-6000-server"].items() if "/pcie/" in k}, "RTX PRO 6000")
    shared = assumed_wires() | pcie
    everyone = sorted({key for own in kernels.values() for key in own})
    typical = {
        key: _with_error(
            middle(
                [own[key] for own in kernels.values() if key in own], source=f"median over GPUs of {TABLES}", closeness="default"
            ),
            [r.others for r in results if r.key == key and r.others],
        )
        for key in everyone
    }
    for own in kernels.values():
        own |= lend(own, typical)
    switched = borrowed({k: v for k, v in wires["a100-80g-sxm"].items() if "/nvswitch/" in k}, "A100")
    made = []
    for name, own in kernels.items():
        sends = {} if any(k.startswith("p2p/") for k in wires[name]) else _sends(wires, devices[name])
        bridged = {} if devices[name].link_bytes_per_s else switched
        made.append(_calibration(name, own, _without(shared, wires[name]) | sends | bridged | wires[name]))
    for name, device in devices.items():
        if name in SCANNED:
            mesh = meshed(folder, switched, device.link_bytes_per_s / MESH_LINKS)
            made.append(_calibration(name, _scanned(folder, device, typical), shared | mesh))
    made.append(_calibration("default", typical, shared | switched))
    return made, results


def _without(shared: dict[str, WireReach], own: dict[str, WireReach]) -> dict[str, WireReach]:
    """Shared lines of the collectives that a device has no lines of its own for: lines of two sources are never mixed."""
    known = {key.rsplit("/", 1)[0] for key in own}  # op/algorithm/class/ranks
    return {key: line for key, line in shared.items() if "/".join(key.split("/")[:4]) not in known}


def _sends(wires: dict[str, dict[str, WireReach]], device: Device) -> dict[str, WireReach]:
    if not device.link_bytes_per_s:
        return {}
    return borrowed({k: v for k, v in wires["h100-80g-sxm"].items() if k.startswith("p2p/")}, "H100")


def _scanned(folder: Path, device: Device, typical: dict[str, Reach]) -> dict[str, Reach]:
    """The typical reaches, the GEMMs' compute scaled so that the 16-bit one stands to the scan as it does where both are known."""
    best = {(h, f): rate for h, f, rate in tables.peak_reach(folder)}
    found = best.get((device.name, "bf16"), 0.0) / peak_flop_per_s(device, "bf16")
    ratio = found * SERVED_OF_SCAN / typical["gemm/bf16"].compute if found else 1.0
    source = f"{MAMF}; memory and latency: median over GPUs of {TABLES}"
    return {
        key: replace(
            reach,
            memory=rounded(reach.memory * ROCM_STREAM / CUDA_STREAM),
            compute=rounded(reach.compute * ratio) if key != "stream" else reach.compute,
            provenance=replace(reach.provenance, source=source if key == "gemm/bf16" else reach.provenance.source),
        )
        for key, reach in typical.items()
    }


# gemm/bf16 compute over the best of the scan, where both are known (H100 0.777 / 0.803, A100 0.826 / 0.869, B200 0.677 / 0.776).
SERVED_OF_SCAN = 0.93


def _calibration(name: str, kernels: dict[str, Reach], wires: dict[str, WireReach]) -> Calibration:
    return Calibration(
        name=name,
        device=name,
        version=VERSION,
        date=DATE,
        kernels=tuple((KernelKey.parse(key), kernels[key]) for key in sorted(kernels)),
        wires=tuple((WireKey.parse(key), wires[key]) for key in sorted(wires)),
    )


def as_yaml(calibration: Calibration) -> str:
    """The file's text: one key a line."""
    data = to_data(calibration)
    head = {k: v for k, v in data.items() if k not in ("kernels", "wires")}
    lines = [yaml.safe_dump(head, sort_keys=False, width=10_000).rstrip()]
    for part in ("kernels", "wires"):
        lines.append(f"{part}:")
        lines += [
            f"- {yaml.safe_dump(pair, default_flow_style=True, sort_keys=False, width=10_000).strip()}" for pair in data[part]
        ]
    return "\n".join(lines) + "\n"


def report(results: Sequence[FittedKernel]) -> str:
    """Held-out residuals of every key as a Markdown page."""
    lines = [
        "# Kernel coefficients: how well they meet shapes they were not fitted on",
        "",
        "Made by `python -m fitting.kernels`; do not edit. One shape in four is held out. `sibling`: the error on",
        "the same shapes when another GPU of the architecture lends its coefficients (leave one GPU out);",
        "`default`, in the summary at the end: when the median of all other GPUs does.",
        "",
        "| GPU | kernel | memory | compute | latency us | q | points | median | p90 | sibling median | p90 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in sorted(results, key=lambda r: (r.key, r.hardware)):
        reach, p = result.fit.reach, result.fit.reach.provenance
        sibling = " | ".join(f"{x:.1%}" for x in result.sibling) if result.sibling else "– | –"
        errors = " | ".join("–" if x is None else f"{x:.1%}" for x in (p.median, p.p90))
        lines.append(
            f"| {result.hardware} | {result.key} | {reach.memory:g} | {reach.compute:g} | {reach.launch_s * 1e6:.1f} | "
            f"{reach.sharpness:.1f} | {p.points} | {errors} | {sibling} |"
        )
    return "\n".join([*lines, "", *_summary(results)]) + "\n"


def _summary(results: Sequence[FittedKernel]) -> list[str]:
    kinds: dict[str, list[FittedKernel]] = defaultdict(list)
    for result in results:
        kinds[result.key.split("/")[0]].append(result)
    lines = [
        "| kernel | keys | median of medians | median of p90 | sibling median | p90 | default median | p90 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, group in sorted(kinds.items()):
        own = [(r.fit.reach.provenance.median or 0.0, r.fit.reach.provenance.p90 or 0.0) for r in group]
        lent = [r.sibling for r in group if r.sibling]
        cells = [f"{np.median([x[i] for x in own]):.1%}" for i in (0, 1)]
        cells += [f"{np.median([x[i] for x in lent]):.1%}" if lent else "–" for i in (0, 1)]
        typical = [r.others for r in group if r.others]
        cells += [f"{np.median([x[i] for x in typical]):.1%}" if typical else "–" for i in (0, 1)]
        lines.append(f"| {kind} | {len(group)} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, write one file a device, and the report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("tables", type=Path, help="folder with gemm.csv.gz and the other kernel tables")
    parser.add_argument("--out", type=Path, required=True, help="folder for the calibration files")
    parser.add_argument("--report", type=Path, help="Markdown file for the residuals")
    options = parser.parse_args(arguments)
    try:
        names = sorted({row["hardware"] for row in tables.rows(options.tables, "moe")}) + list(SCANNED)
        made, results = calibrations(options.tables, {name: load_device(name) for name in names})
    except AdvisorError as error:
        parser.exit(error.exit_code, f"{error}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    for calibration in made:
        (options.out / f"{calibration.name}.yaml").write_text(as_yaml(calibration), encoding="utf-8")
    if options.report:
        options.report.write_text(report(results), encoding="utf-8")


if __name__ == "__main__":
    main()
