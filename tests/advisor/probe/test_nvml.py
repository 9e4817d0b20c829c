"""NVML from recorded machines: each as expected, and every call failing in every way without a traceback or a wrong "no NVLink"."""

from __future__ import annotations

import subprocess
import sys

import pytest

from advisor.catalog.machines import device_for_reading, list_devices
from advisor.errors import AdvisorError
from advisor.probe.readings import Readings
from advisor.probe.redact import redacted
from advisor.probe.topology import cluster_from
from advisor.report.topology import data, page, verdict

from .replay import MACHINES, Replay, machine, read

NVLINK_MACHINES = [name for name in MACHINES if machine(name)["expect"].get("islands")]
ERRORS = (1, 2, 3, 4, 6, 9, 10, 13, 15, 16, 17, 18, 999)


def test_there_are_at_least_25_machines() -> None:
    assert len(MACHINES) >= 25


@pytest.mark.parametrize("name", MACHINES)
def test_a_recorded_machine_is_read_as_it_is(name: str) -> None:
    readings, expect = read(name), machine(name)["expect"]
    checks = {
        "count": lambda: len(readings.gpus),
        "islands": lambda: [list(i) for i in readings.islands],
        "best": lambda: readings.best[0].cell if readings.best else None,
        "worst": lambda: readings.worst.cell if readings.worst else None,
        "kinds": lambda: [g.kind for g in readings.gpus],
        "platform": lambda: readings.platform,
        "visible": lambda: [g.visible_as for g in readings.gpus],
        "healthy": lambda: sum(not g.problem for g in readings.gpus),
        "free": lambda: readings.gpus[0].free_bytes,
        "busy": lambda: readings.gpus[0].busy_processes,
        "fabric": lambda: list(readings.gpus[0].fabric) if readings.gpus[0].fabric else None,
        "p2p": lambda: readings.pairs[0].p2p,
        "visible_uuid": lambda: all(g.visible_as == g.uuid for g in readings.gpus),
    }
    for key, check in checks.items():
        if key in expect:
            assert check() == expect[key], key
    if "reason" in expect:
        assert expect["reason"] in readings.reason
    if "problem" in expect:
        assert any(expect["problem"] in g.problem for g in readings.gpus)


@pytest.mark.parametrize("name", MACHINES)
def test_a_recorded_machine_makes_a_cluster_and_a_page(name: str) -> None:
    readings, expect = read(name), machine(name)["expect"]
    if not readings.gpus or expect.get("cluster") is False:
        with pytest.raises(AdvisorError):
            cluster_from(readings, list_devices(), find=device_for_reading)
        return
    cluster = cluster_from(readings, list_devices(), find=device_for_reading)
    node = cluster.node
    assert len(node.devices) == sum(not g.problem for g in readings.gpus)
    if "device" in expect:
        assert {d.name for d in node.devices} == {expect["device"]}
    if "device_prefix" in expect:
        assert all(d.name.startswith(expect["device_prefix"]) for d in node.devices)
    if "kind" in expect:
        assert node.link(0, 1).kind == expect["kind"]
    text = page(readings, cluster)
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "\x1b" not in text
    if "said" in expect:
        assert expect["said"] in " ".join(verdict(readings, cluster))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["dgx_h100", "a6000_crossed_pairs", "mig_two_instances", "rtx4090_no_p2p", "v100_cube_mesh"])
def test_every_call_may_fail_and_none_says_there_is_no_nvlink(name: str, error: int) -> None:
    whole = read(name)
    calls = Replay(machine(name))
    from advisor.probe.nvml import Host, read_nvml

    read_nvml(call=calls, host=Host(environment={}))
    for call in calls.called:
        readings = read(name, faults={call: error})
        check_no_wrong_answer(whole, readings, call)
        page(readings, None) if readings.gpus else None


def check_no_wrong_answer(whole: Readings, readings: Readings, call: str) -> None:
    """A pair joined by NVLink is still joined, or unknown; a missing machine has a reason."""
    if not readings.gpus:
        assert readings.reason, call
        return
    if len(readings.gpus) != len(whole.gpus):
        return
    for pair in whole.pairs:
        now = readings.pair(pair.a, pair.b)
        if pair.nvlinks or pair.joined:
            assert now.nvlinks or now.joined or now.kind == "unknown", (call, pair, now)


@pytest.mark.parametrize("name", NVLINK_MACHINES)
def test_all_link_calls_failing_leaves_the_links_unknown(name: str) -> None:
    faults = dict.fromkeys(("nvmlDeviceGetNvLinkState", "nvlinkStateField", "nvmlDeviceGetP2PStatus"), 3)
    readings = read(name, faults=faults)
    assert readings.islands == ()
    assert all(p.kind == "unknown" for p in readings.all_pairs)
    assert "does not mean there is no NVLink" in " ".join(verdict(readings, None))
    found = data(readings, None, None)
    assert found["islands"] is None
    assert found["best_link"] is None


def test_a_call_that_the_driver_lacks_costs_one_field() -> None:
    readings = read("dgx_h100", faults={"nvmlDeviceGetEccMode": 13})
    assert readings.gpus[0].ecc is None
    assert readings.gpus[0].memory_bytes is not None


def test_idle_generation_is_not_asked_for() -> None:
    calls = Replay(machine("dgx_h100"))
    from advisor.probe.nvml import Host, read_nvml

    read_nvml(call=calls, host=Host(environment={}))
    assert "nvmlDeviceGetCurrPcieLinkGeneration" not in calls.called


def test_a_narrow_slot_halves_the_bandwidth() -> None:
    cluster = cluster_from(read("l4_x8_slots"), list_devices(), find=device_for_reading)
    assert cluster.node.link(0, 1).bytes_per_s == pytest.approx(8 * 1.969e9)


def test_a_taken_gpu_counts_its_free_memory() -> None:
    cluster = cluster_from(read("busy_gpu"), list_devices(), find=device_for_reading)
    assert cluster.node.usable_bytes(0) == 20 * 2**30


def test_a_lost_gpu_is_left_out_and_named() -> None:
    cluster = cluster_from(read("lost_gpu"), list_devices(), find=device_for_reading)
    assert len(cluster.node.devices) == 7
    assert "5" not in cluster.node.ids
    assert "GPU 5" in cluster.assumed


def test_redacted_readings_name_no_card() -> None:
    for name in MACHINES:
        text = repr(redacted(read(name)))
        assert "GPU-0000" not in text
        assert "MIG-0000" not in text
        assert ":00.0" not in text


def test_sysfs_tells_the_numa_node_where_nvml_does_not() -> None:
    from advisor.probe.nvml import Host, read_nvml

    call = Replay(machine("dgx_h100"), {"nvmlDeviceGetMemoryAffinity": 3})
    readings = read_nvml(call=call, host=Host(environment={}, numa_of=lambda address: 1 if address == "0000:10:00.0" else -1))
    assert [g.numa for g in readings.gpus] == [1] + [None] * 7


def test_without_a_driver_the_probe_is_quick_and_says_why() -> None:
    # In a process of its own: other tests of this worker may have loaded the library.
    code = (
        "import sys, time; from advisor.probe import probe; start = time.process_time(); found = probe(); "
        "print(int(bool(found.gpus)), time.process_time() - start, int('pynvml' in sys.modules), found.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    gpus, cpu_s, loaded, reason = done.stdout.strip().split(" ", 3)
    if int(gpus):
        pytest.skip("this machine has a GPU")
    assert float(cpu_s) < 0.5
    assert reason.endswith(".")
    assert "library" not in reason or not int(loaded)
