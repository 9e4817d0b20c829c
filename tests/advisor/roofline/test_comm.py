"""Collective seconds: the worked number of docs/physics.md (C1, C2), PHYSICS' measured latencies, and the laws."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from advisor.errors import ProfileError
from advisor.roofline.comm import CLASS, Lines, collective_s, link_class, more_ranks, network_latency_s, wire_bytes
from advisor.roofline.fabric import Fabric
from advisor.specs.calibration import Calibration, Provenance, WireReach
from advisor.specs.cluster import LINK_ORDER
from advisor.specs.keys import Op, WireKey
from advisor.specs.wire import from_data

FOLDER = Path(__file__).parents[3] / "profiles" / "calibration"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p")
HAND = Provenance(source="by hand", closeness="device")
SWITCH = Fabric(
    kind="nvswitch",
    ranks=8,
    bytes_per_s=450e9,
    point_bytes_per_s=450e9,
    p2p=True,
    peer_access=True,
    wiring="switch",
)
PCIE = replace(SWITCH, kind="pix", ranks=2, bytes_per_s=63e9, point_bytes_per_s=63e9, wiring="pcie_switch")


@cache
def calibration(name: str) -> Calibration:
    return from_data(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()), Calibration, origin=name)


@cache
def shipped(name: str) -> Lines:
    return Lines(calibration(name))


def line(alpha_s: float, share: float, *, per_rank_s: float = 0.0, up_to: float = 1e18) -> WireReach:
    return WireReach(alpha_s=alpha_s, alpha_per_rank_s=per_rank_s, bandwidth=share, up_to_bytes=up_to, provenance=HAND)


def hand(**wires: WireReach) -> Lines:
    keys = tuple((WireKey.parse(key.replace("__", "/")), reach) for key, reach in wires.items())
    return Lines(Calibration(name="hand", device="round", version=1, date="2026-11-21", kernels=(), wires=keys))


TWO_LINES = hand(all_reduce__nccl__nvswitch__8__1=line(17e-6, 0.4), all_reduce__nccl__nvswitch__8__2=line(60e-6, 1.0))


def test_c1_the_faster_line_is_taken() -> None:
    assert collective_s("all_reduce", 2**20, SWITCH, TWO_LINES, kernels=()) == pytest.approx(27.2e-6, rel=1e-3)
    assert collective_s("all_reduce", 2**26, SWITCH, TWO_LINES, kernels=()) == pytest.approx(321e-6, rel=1e-3)


def test_c2_wire_bytes() -> None:
    assert wire_bytes("all_reduce", 8e6, 8) == 14e6
    assert wire_bytes("all_gather", 1e6, 8) == 7e6
    assert wire_bytes("reduce_scatter", 8e6, 8) == wire_bytes("all_to_all", 8e6, 8) == 7e6
    assert wire_bytes("p2p", 1e6, 2) == 1e6


def test_c4_a_slow_network_is_waited_for_once_a_step() -> None:
    far = replace(SWITCH, kind="network", ranks=32, nodes=4, wiring="network", peer_access=False, latency_s=103e-6)
    near = replace(far, latency_s=2e-6)
    made = hand(
        all_reduce__nccl__network__2=line(28e-6, 0.7),
        all_gather__nccl__network__2=line(22e-6, 0.7),
        p2p__nccl__network__2=line(9e-6, 0.7),
    )

    def longer(op: Op) -> float:
        return collective_s(op, 4096, far, made, kernels=()) - collective_s(op, 4096, near, made, kernels=())

    assert longer("all_reduce") == pytest.approx(400e-6)
    assert longer("all_gather") == pytest.approx(300e-6)
    assert longer("p2p") == pytest.approx(100e-6)
    assert network_latency_s("all_reduce", near) == 0.0  # the lines have what a network of one rack takes
    assert network_latency_s("all_reduce", replace(far, p2p=False)) == pytest.approx(4 * 73e-6)  # TCP: 30 us are in its lines
    assert network_latency_s("all_reduce", replace(SWITCH, latency_s=1.0)) == 0.0  # one node has no network


def test_custom_kernels_stop_at_their_limit() -> None:
    made = hand(all_reduce__nccl__nvswitch__8=line(17e-6, 0.4), all_reduce__custom__nvswitch__8=line(5e-6, 0.4, up_to=8 * 2.0**20))
    small = [collective_s("all_reduce", 4096, SWITCH, made, kernels=c) for c in (("custom",), ())]
    large = [collective_s("all_reduce", 2**24, SWITCH, made, kernels=c) for c in (("custom",), ())]
    assert small[1] - small[0] == pytest.approx(12e-6)
    assert large[0] == large[1]


def test_an_engine_takes_the_fastest_of_the_kernels_it_has() -> None:
    made = hand(
        all_reduce__nccl__nvswitch__8=line(17e-6, 0.4),
        all_reduce__custom__nvswitch__8=line(8e-6, 0.4),
        all_reduce__lamport__nvswitch__8=line(6e-6, 0.1),
    )
    tiny = [
        collective_s("all_reduce", 0, SWITCH, made, kernels=own) for own in ((), ("custom",), ("lamport",), ("custom", "lamport"))
    ]
    assert tiny == pytest.approx([17e-6, 8e-6, 6e-6, 6e-6])
    large = [collective_s("all_reduce", 2**23, SWITCH, made, kernels=own) for own in (("custom",), ("custom", "lamport"))]
    assert large[0] == large[1]


def test_tensorrt_llm_s_kernels_on_b200_are_twice_as_fast_as_vllm_s() -> None:
    """4 B200 at 512 KiB: 18 us with vLLM's, 7 to 8 us with TensorRT-LLM's (tables of aiconfigurator)."""
    four = replace(SWITCH, ranks=4, bytes_per_s=900e9)
    times = [collective_s("all_reduce", 2**19, four, shipped("b200-180g"), kernels=(name,)) * 1e6 for name in ("custom", "lamport")]
    assert 14 < times[0] < 21
    assert 6 < times[1] < 10


def test_custom_kernels_need_nvlink_or_one_peer() -> None:
    made = hand(
        all_reduce__nccl__pcie__2=line(6e-6, 0.5),
        all_reduce__nccl__pcie__4=line(13e-6, 0.4),
        all_reduce__custom__pcie__2=line(4e-6, 0.5),
    )

    def gain(fabric: Fabric) -> float:
        return collective_s("all_reduce", 4096, fabric, made, kernels=()) - collective_s(
            "all_reduce", 4096, fabric, made, kernels=("custom",)
        )

    assert gain(PCIE) == pytest.approx(2e-6)
    assert gain(replace(PCIE, peer_access=False)) == 0
    assert gain(replace(PCIE, ranks=4)) == 0


def test_a_rank_count_between_two_adds_latency_to_the_smaller() -> None:
    made = hand(all_reduce__nccl__nvswitch__4=line(10e-6, 0.5, per_rank_s=2e-6), all_reduce__nccl__nvswitch__8=line(18e-6, 0.5))
    six = collective_s("all_reduce", 0, replace(SWITCH, ranks=6), made, kernels=())
    assert six == pytest.approx(14e-6)


def test_c3_rings_then_trees() -> None:
    made = hand(all_reduce__nccl__nvswitch__8=line(26e-6, 0.9, per_rank_s=2.6e-6))
    alphas = [collective_s("all_reduce", 0, replace(SWITCH, ranks=n), made, kernels=()) * 1e6 for n in (8, 12, 16, 64)]
    assert alphas == pytest.approx([26, 36.4, 46.8, 88.4])
    assert more_ranks(4, 8) == 0


def test_reduce_scatter_runs_as_an_all_gather_backwards() -> None:
    made = hand(all_gather__nccl__nvswitch__8=line(11e-6, 0.7))
    forward = collective_s("all_gather", 1e6, SWITCH, made, kernels=())
    assert collective_s("reduce_scatter", 8e6, SWITCH, made, kernels=()) == pytest.approx(forward)


def test_unknown_collective_is_an_error() -> None:
    with pytest.raises(ProfileError, match="no coefficients for all_to_all/nccl/nvswitch"):
        collective_s("all_to_all", 1e6, SWITCH, TWO_LINES, kernels=())


def test_link_classes() -> None:
    assert set(CLASS) == set(LINK_ORDER)
    assert link_class(SWITCH) == "nvswitch"
    assert link_class(PCIE) == "pcie"
    assert link_class(replace(PCIE, p2p=False)) == "host"
    assert link_class(replace(SWITCH, nodes=2)) == "network"
    assert link_class(replace(SWITCH, nodes=2, p2p=False)) == "tcp"


@pytest.mark.parametrize(
    ("device", "ranks", "payload_bytes", "measured_us", "tolerance"),
    [  # aiconfigurator 0.12: vLLM's all-reduce in a CUDA graph, newest version
        ("h100-80g-sxm", 2, 8192, 4.4, 0.15),
        ("h100-80g-sxm", 8, 8192, 5.1, 0.15),
        ("h100-80g-sxm", 8, 8 * 2**20, 50.7, 0.15),
        ("a100-80g-sxm", 4, 8192, 5.5, 0.15),
        ("a100-80g-sxm", 8, 2**20, 21.7, 0.15),
        ("b200-180g", 8, 8192, 7.8, 0.15),
        # NCCL 2.27-2.29
        ("h100-80g-sxm", 8, 2**24, 121.9, 0.15),
        ("h100-80g-sxm", 8, 2**28, 1092.1, 0.15),
        ("a100-80g-sxm", 8, 2**28, 2182.5, 0.15),
    ],
)
def test_nvswitch_tables(device: str, ranks: int, payload_bytes: float, measured_us: float, tolerance: float) -> None:
    rate = {"a": 300e9, "h": 450e9, "b": 900e9}[device[0]]
    fabric = replace(SWITCH, ranks=ranks, bytes_per_s=rate, point_bytes_per_s=rate)
    seconds = collective_s("all_reduce", payload_bytes, fabric, shipped(device), kernels=("custom",))
    assert seconds * 1e6 == pytest.approx(measured_us, rel=tolerance)


def test_pcie_tables() -> None:
    """64 MiB, NCCL (aiconfigurator 0.12): L40S with two, and four and eight on the healthy machine; RTX PRO 6000 with eight."""
    l40s = replace(PCIE, bytes_per_s=31.5e9)
    for ranks, measured_s in ((2, 3.36e-3), (4, 4.85e-3), (8, 5.70e-3)):
        across = replace(l40s, kind="sys", ranks=ranks, p2p=False)
        seconds = collective_s("all_reduce", 2**26, across, shipped("l40s"), kernels=())
        assert seconds == pytest.approx(measured_s, rel=0.15)
    eight = replace(PCIE, ranks=8)
    seconds = collective_s("all_reduce", 2**26, eight, shipped("rtx-pro-6000-server"), kernels=())
    assert seconds == pytest.approx(4.93e-3, rel=0.15)


def test_geforce_without_peer_access_is_slower_than_a_card_that_has_it() -> None:
    peers = replace(PCIE, kind="node", ranks=4, p2p=False, bytes_per_s=31.5e9)
    staged = replace(peers, peer_access=False)
    made = shipped("l40s")
    assert link_class(staged) == "staged"
    for payload in (2.0**14, 2.0**24):
        assert collective_s("all_reduce", payload, staged, made, kernels=("custom",)) > 1.3 * collective_s(
            "all_reduce", payload, peers, made, kernels=("custom",)
        )


ops = st.sampled_from(OPS)
names = st.sampled_from([p.stem for p in SHIPPED])
kinds = st.sampled_from([k for k in LINK_ORDER if k != "network"])
fabrics = st.builds(
    lambda kind, ranks, nodes, rate, direct: Fabric(
        kind="network" if nodes > 1 else kind, ranks=ranks, nodes=min(nodes, ranks), bytes_per_s=rate, point_bytes_per_s=rate,
        p2p=direct, peer_access=direct, wiring="unknown",
    ),
    kinds, st.integers(1, 16), st.sampled_from([1, 1, 2, 4]), st.floats(1e9, 1e12), st.booleans(),
)  # fmt: skip


@given(ops, names, fabrics, st.floats(0, 1e9), st.booleans())
def test_one_rank_needs_no_time(op: str, name: str, fabric: Fabric, payload: float, custom: bool) -> None:
    assert collective_s(op, payload, replace(fabric, ranks=1, nodes=1), shipped(name), kernels=("custom",) if custom else ()) == 0.0  # type: ignore[arg-type]


@given(ops, names, fabrics, st.floats(0, 1e9), st.floats(1, 100), st.booleans())
def test_more_bytes_never_take_less_time(op: str, name: str, fabric: Fabric, payload: float, factor: float, custom: bool) -> None:
    less = collective_s(op, payload, fabric, shipped(name), kernels=("custom",) if custom else ())  # type: ignore[arg-type]
    more = collective_s(op, payload * factor, fabric, shipped(name), kernels=("custom",) if custom else ())  # type: ignore[arg-type]
    assert less <= more * (1 + 1e-12)


@given(ops, names, fabrics, st.floats(0, 1e9), st.floats(1, 10), st.booleans())
def test_more_bandwidth_never_takes_longer(op: str, name: str, fabric: Fabric, payload: float, factor: float, custom: bool) -> None:
    faster = replace(fabric, bytes_per_s=fabric.bytes_per_s * factor, point_bytes_per_s=fabric.point_bytes_per_s * factor)
    slow, fast = (collective_s(op, payload, f, shipped(name), kernels=("custom",) if custom else ()) for f in (fabric, faster))  # type: ignore[arg-type]
    assert fast <= slow * (1 + 1e-12)


@given(st.integers(1, 64), st.integers(1, 200))
def test_more_ranks_never_take_fewer_steps(known: int, ranks: int) -> None:
    assert 0 <= more_ranks(ranks, known) <= more_ranks(ranks + 1, known)


@given(names, fabrics, st.floats(0, 1e9))
def test_custom_kernels_never_slow_an_all_reduce_down(name: str, fabric: Fabric, payload: float) -> None:
    with_own = collective_s("all_reduce", payload, fabric, shipped(name), kernels=("custom",))
    assert with_own <= collective_s("all_reduce", payload, fabric, shipped(name), kernels=())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_lines_are_possible(path: Path) -> None:
    for key, reach in calibration(path.stem).wires:
        assert 0 < reach.bandwidth <= 1.11, key  # NVLS adds in the switch and may pass what a ring could
        assert 1e-6 <= reach.alpha_s < 500e-6, key
        assert reach.alpha_per_rank_s >= 0, key
        assert reach.provenance.source, key
