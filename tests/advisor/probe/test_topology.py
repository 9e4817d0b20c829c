"""Readings to a cluster: kinds, speeds, slices, uplinks, and what is not known said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.catalog.cluster_file import cluster_of
from advisor.catalog.machines import cluster_data, device_for_reading, list_devices, load_device
from advisor.errors import MachineError, QuestionError
from advisor.probe.nvidia_smi import read_topology_text
from advisor.probe.readings import GpuReading, PairReading, Readings
from advisor.probe.topology import cluster_from, nearest
from advisor.specs.cluster import Cluster

from .replay import read


def cluster(name: str) -> Cluster:
    return cluster_from(read(name), list_devices(), find=device_for_reading)


def pasted(rows: list[str], gpu: str) -> Cluster:
    head = "\t" + "\t".join(f"GPU{i}" for i in range(len(rows)))
    text = "\n".join([head, *(f"GPU{i}\t" + "\t".join(row.split()) for i, row in enumerate(rows))])
    return cluster_from(read_topology_text(text), [], device=load_device(gpu))


def test_bridges_run_at_the_speed_of_their_generation() -> None:
    assert cluster("a6000_crossed_pairs").node.link(0, 3).bytes_per_s == pytest.approx(56.25e9)
    assert cluster("a100_pcie_pairs").node.link(0, 1).bytes_per_s == pytest.approx(300e9)
    assert cluster("v100_cube_mesh").node.link(0, 2).bytes_per_s == pytest.approx(50e9)
    assert cluster("dgx_b200").node.link(0, 7).bytes_per_s == pytest.approx(900e9)


def test_a_gpu_of_a_generation_to_come_has_the_links_of_its_sheet() -> None:
    new = replace(load_device("b300"), name="r300", compute_capability="13.0", link_count=36, link_bytes_per_s=1.8e12)
    text = "\tGPU0\tGPU1\nGPU0\tX\tNV18\nGPU1\tNV18\tX"
    found = cluster_from(read_topology_text(text), [], device=new).node.link(0, 1)
    assert (found.kind, found.count, found.bytes_per_s) == ("nvlink", 18, 900e9)
    with pytest.raises(QuestionError, match="its sheet has none; add `link:`"):
        cluster_from(read_topology_text(text), [], device=replace(new, link_count=0))


def test_a_mesh_is_told_from_a_switch_by_the_number_of_links() -> None:
    four = ["X NV4 NV4 NV4", "NV4 X NV4 NV4", "NV4 NV4 X NV4", "NV4 NV4 NV4 X"]
    assert pasted(four, "a100-80g-sxm").node.link(0, 1).kind == "nvlink"
    twelve = [row.replace("NV4", "NV12") for row in four]
    assert pasted(twelve, "a100-80g-sxm").node.link(0, 1).kind == "nvswitch"


def test_switches_share_an_uplink() -> None:
    rows = ["X PIX NODE SYS", "PIX X NODE SYS", "NODE NODE X SYS", "SYS SYS SYS X"]
    assert pasted(rows, "l40s").node.uplinks == ((0, 1),)
    trees = ["X PIX PXB", "PIX X PXB", "PXB PXB X"]
    assert pasted(trees, "l40s").node.uplinks == ((0, 1), (0, 1, 2))


def test_cards_without_peer_access_say_so() -> None:
    assert not pasted(["X PIX", "PIX X"], "rtx4090").node.link(0, 1).p2p
    assert pasted(["X PIX", "PIX X"], "l40s").node.link(0, 1).p2p
    assert not cluster("rtx4090_no_p2p").node.link(0, 1).p2p


def test_a_mig_instance_is_its_slices_of_the_gpu() -> None:
    whole, part = load_device("a100-80g-sxm"), cluster("mig_two_instances").node.devices[0]
    assert part.peak("bf16") == pytest.approx(whole.peak("bf16") * 3 / 7)
    assert part.memory_bytes_per_s == pytest.approx(whole.memory_bytes_per_s / 2)
    assert part.memory_bytes < whole.memory_bytes / 1.9


def test_a_virtual_gpu_has_its_own_memory() -> None:
    readings = read("vgpu_l40s_48c")
    small = replace(readings, gpus=tuple(replace(g, name="NVIDIA L40S-12C", memory_bytes=12 * 2.0**30) for g in readings.gpus))
    device = cluster_from(small, list_devices(), find=device_for_reading).node.devices[0]
    assert device.memory_bytes == 12 * 2**30
    assert device.memory_bytes_per_s == load_device("l40s").memory_bytes_per_s


def test_unknown_links_are_said_and_taken_as_slow() -> None:
    found = cluster("wsl2_mixed")
    assert found.node.link(0, 1).kind == "unknown"
    assert not found.node.link(0, 1).p2p
    assert "host memory" in found.assumed


def test_joined_without_a_count_uses_what_the_gpu_has() -> None:
    gpus = tuple(GpuReading(index=i, name="NVIDIA H100 80GB HBM3") for i in range(2))
    readings = Readings(source="nvml", gpus=gpus, pairs=(PairReading(a=0, b=1, joined="nvlink"),))
    assert cluster_from(readings, list_devices(), find=device_for_reading).node.link(0, 1).bytes_per_s == pytest.approx(450e9)


def test_gpus_that_are_not_named_or_not_known_are_a_sentence() -> None:
    readings = read_topology_text("\tGPU0\tGPU1\nGPU0\tX\tPIX\nGPU1\tPIX\tX\n")
    with pytest.raises(QuestionError, match="--gpu"):
        cluster_from(readings, list_devices())
    odd = replace(readings, gpus=tuple(replace(g, name="CF-NG-HZZ1-O") for g in readings.gpus))
    with pytest.raises(QuestionError, match="CF-NG-HZZ1-O"):
        cluster_from(odd, list_devices(), find=device_for_reading)
    with pytest.raises(MachineError):
        cluster_from(Readings(source="nvml", reason="No GPU."), list_devices())


@pytest.mark.parametrize(
    ("name", "sheet"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80g-sxm"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", "l40"),
        ("NVIDIA A100-SXM4-80GB", "a100-80g-sxm"),
    ],
)
def test_names_are_found_without_the_catalogue_too(name: str, sheet: str) -> None:
    found = nearest(name, None, list_devices())
    assert found is not None
    assert found.name == sheet


@pytest.mark.parametrize(
    "name", ["dgx_h100", "a6000_crossed_pairs", "mig_two_instances", "lost_gpu", "mixed_3090_5090", "busy_gpu", "l40s_switches"]
)
def test_what_is_written_reads_back(name: str) -> None:
    before = cluster(name)
    after = cluster_of(cluster_data(before), origin="probe")
    assert after.node == replace(before.node, name=after.node.name)
