from __future__ import annotations

import csv
import gzip
import random
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog.devices import device_for_reading, device_sheet, load_device
from advisor.catalog.machine_schema import DeviceSheet
from advisor.catalog.machines import list_networks, list_nodes
from advisor.catalog.nodes import carries, node_sheet
from advisor.catalog.shipped import known_names, plain, sheet_names, sheet_text
from advisor.errors import AdvisorError, ProfileError, QuestionError
from advisor.specs.cluster import Device

MEASURED = Path(__file__).parents[4] / "shared" / "measured"
SHEETS = sheet_names("hardware")
# The GPUs that the issue asks for, as people type them.
ASKED = (  # noqa: SIM905
    "v100 t4 a10 a10g a30 a40 a100-40g-sxm a100-80g-sxm a100-40g-pcie a100-80g-pcie a800 l4 l20 l40 l40s 3090 4090 5090 a6000 "
    "6000-ada pro-6000 h100-sxm h100-pcie h100-nvl h800 h20 h200-sxm h200-nvl gh200 b200 b300 gb200 gb300 mi250x mi300x mi325x "
    "mi355x rtx-2080-ti 3070 3080 3080ti 3090ti 4070ti 4080 4090d 5080 a4000 a5000 4000-ada 5000-ada pro-6000-max-q gb10 mi210"
).split()


@pytest.mark.parametrize("name", SHEETS)
def test_a_sheet_is_complete_and_possible(name: str) -> None:
    device = load_device(name)
    sheet = device_sheet(name)
    assert device.name == name
    assert device.memory_bytes > 7 * 2**30
    assert device.memory_bytes_per_s > 200e9  # a GDDR card of 2018
    assert device.sms >= 20
    # Tensor cores double with every halving of the format (int8 and fp8 on the same footing), never less than stay equal.
    rates = [device.peak(key) for key in ("fp32", "bf16", "fp8", "nvfp4") if device.peak(key)]
    assert rates == sorted(rates)
    # A dense rate: flop per SM and clock are powers of two, and the clock that they give is one that GPUs run at.
    clock = device.peak("bf16") / device.sms
    per_clock = {"volta": 1024, "turing": 1024, "ampere": 1024, "ada": 1024, "hopper": 4096, "blackwell": 8192}
    if device.architecture in per_clock and not name.startswith("h20-"):
        base = 2048 if name.startswith(("a100", "a800", "a30")) else per_clock[device.architecture]
        ghz = [clock / base / 1e9 * halved for halved in (1, 2, 4, 8)]  # GeForce halves; sm_86 and sm_12x have smaller cores
        assert any(1.0 < g < 3.0 for g in ghz)
    assert (device.link_kind is None) == (device.link_bytes_per_s == 0) == (device.link_count == 0)
    for source in sheet.sources.values():
        assert source.link.startswith("https://")
    if sheet.price:
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", device.price_date)
        assert 0.1 < sheet.price.value < 20


def test_the_gpus_asked_for_are_there() -> None:
    assert len(SHEETS) >= 45
    assert len({load_device(name).name for name in ASKED}) == len(ASKED)


def test_well_known_figures() -> None:
    h100, h200, b200 = load_device("h100"), load_device("h200"), load_device("b200")
    assert (h100.peak("bf16"), h100.peak("fp8"), h100.memory_bytes_per_s) == (989.4e12, 1978.9e12, 3.35e12)
    assert (h200.memory_bytes_per_s, b200.peak("nvfp4"), b200.link_bytes_per_s) == (4.8e12, 9e15, 900e9)
    assert load_device("a100").peak("fp8") == 0.0
    assert load_device("t4").peak("bf16") == 65e12
    assert not load_device("4090").p2p
    assert load_device("a6000").p2p
    assert load_device("3090").link_bytes_per_s == 56.25e9
    # GeForce halves the rate with FP32 accumulate, the professional board with the same chip does not.
    assert load_device("rtx-6000-ada").peak("bf16") / load_device("4090").peak("bf16") > 2


def test_names_of_every_kind_find_their_sheet() -> None:
    for text, name in {
        "NVIDIA A100-SXM4-80GB": "a100-80g-sxm", "NVIDIA GeForce RTX 4090": "rtx4090", "RTX 4090": "rtx4090", "4090": "rtx4090",
        "H100 80GB HBM3": "h100-80g-sxm", "a100": "a100-80g-sxm", "h20": "h20-96g", "gh200-480g": "gh200-96g", "mi250": "mi250",
        "mi250x-1gcd": "mi250x", "DGX Spark": "gb10", "rtx pro 6000 blackwell": "rtx-pro-6000", "A10": "a10", "a10g": "a10g",
        "Tesla V100-SXM2-32GB": "v100-32g-sxm",
    }.items():  # fmt: skip
        assert load_device(text).name == name


@pytest.mark.skipif(not MEASURED.exists(), reason="the shared measurements lie beside the repository, not in it")
def test_every_hardware_name_of_the_measured_tables_is_known() -> None:
    with (MEASURED / "points.csv").open() as points:
        names = {row["hardware"] for row in csv.DictReader(points)}
    for table in ("gemm", "attention_prefill", "attention_decode", "collectives", "mla_decode", "mla_prefill", "moe"):
        with gzip.open(MEASURED / f"{table}.csv.gz", "rt") as file:
            names |= {row["hardware"] for row in csv.DictReader(file)}
    assert len(names) > 30
    for name in names:
        load_device(name)


def test_the_scan_for_aliases_finds_what_the_parser_does_and_none_is_taken_twice() -> None:
    owner: dict[str, str] = {}
    for name in SHEETS:
        for alias in device_sheet(name).aliases:
            assert owner.setdefault(plain(alias), name) == name, alias
            assert known_names("hardware")[plain(alias)] == name
        for driver in device_sheet(name).driver_names:
            assert plain(driver) in known_names("hardware")


def test_sheets_name_nodes_and_networks_that_exist_and_carry_them() -> None:
    nodes = {sheet.name for sheet in list_nodes()}
    networks = {sheet.name for sheet in list_networks()}
    for name in SHEETS:
        sheet = device_sheet(name)
        assert set(sheet.nodes) <= nodes
        assert sheet.network in networks
        assert all(carries(node_sheet(node), sheet) for node in sheet.nodes)
    for node in list_nodes():
        assert set(node.gpus) <= set(SHEETS)


@pytest.mark.parametrize("name", ["", " ", "h1oo", "nvidia", "../x", "x" * 10_000, "h100.yaml", "8x h100", "ü"])
def test_unknown_names_get_the_nearest(name: str) -> None:
    with pytest.raises(QuestionError) as caught:
        load_device(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_nearest_names_are_near() -> None:
    for typed, meant in {"h10": "h100", "rtx4091": "rtx4090", "b20": "b200", "a100-80gb-pci": "a100-80g-pcie"}.items():
        with pytest.raises(QuestionError, match=meant):
            load_device(typed)


def test_readings_find_their_sheet_by_name_and_memory() -> None:
    gib = 2.0**30

    def found(name: str, memory: float | None) -> str | None:
        device = device_for_reading(name, memory)
        return device.name if device else None

    assert found("NVIDIA H100 80GB HBM3", 79.65 * gib) == "h100-80g-sxm"
    assert found("NVIDIA H20", 95.58 * gib) == "h20-96g"
    assert found("NVIDIA H20", 140.4 * gib) == "h20-141g"
    assert found("NVIDIA L40S-48C", 47.5 * gib) == "l40s"
    assert found("NVIDIA A10-8Q", 8 * gib) is None
    assert found("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 39.25 * gib) is None
    assert found("NVIDIA Graphics Device", 80 * gib) is None
    assert found("NVIDIA H200", None) == "h200-141g-sxm"
    modified = device_for_reading("NVIDIA GeForce RTX 4090", 47.99 * gib)
    assert modified is not None
    assert modified.memory_bytes == 47.99 * gib
    for name in SHEETS:
        for driver in device_sheet(name).driver_names:
            assert found(driver, load_device(name).memory_bytes) == name


def test_a_new_gpu_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(sheet_text("hardware", "l40s").replace("name: l40s", "name: l41").replace("864 GB/s", "900 GB/s"))
    device = load_device(str(path))
    assert (device.name, device.memory_bytes_per_s) == ("l41", 900e9)
    path.write_text(sheet_text("hardware", "l40s"))
    with pytest.raises(ProfileError, match="name of its own"):
        load_device(str(path))


def _mutated(data: object, rng: random.Random) -> object:
    """The data with one node of its tree changed into something that does not belong there."""
    wrong: list[object] = [
        None,
        -1,
        0,
        1e400,
        float("nan"),
        "",
        "x" * 2000,
        [],
        {},
        "-3 GB/s",
        "1e999 GB/s",
        "3",
        True,
        ["a"],
        {"a": 1},
    ]
    if isinstance(data, dict) and data and rng.random() < 0.9:
        key = rng.choice(list(data))
        action = rng.random()
        if action < 0.15:
            return {k: v for k, v in data.items() if k != key}
        if action < 0.25:
            return {**data, rng.choice(["extra", "Name", "x" * 300]): rng.choice(wrong)}
        return {**data, key: _mutated(data[key], rng)}
    return rng.choice(wrong)


@given(st.sampled_from(SHEETS), st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_mutated_sheets_load_or_are_refused_in_a_sentence(tmp_path_factory: pytest.TempPathFactory, name: str, seed: int) -> None:
    rng = random.Random(seed)
    data = yaml.safe_load(sheet_text("hardware", name).replace("name: ", "name: my-", 1))
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(yaml.safe_dump(_mutated(data, rng), width=1e6))
    device = None
    sentence = ""
    try:
        device = load_device(str(path))
    except AdvisorError as error:
        sentence = str(error)
    assert (device is None) == bool(sentence)
    assert "\n" not in sentence
    assert len(sentence) < 700
    if device:
        assert isinstance(device, Device)
        assert device.memory_bytes > 0
        assert device.memory_bytes_per_s > 0


def test_a_figure_needs_its_source_and_its_unit(tmp_path: Path) -> None:
    text = sheet_text("hardware", "l40s").replace("name: l40s", "name: l41")
    path = tmp_path / "mine.yaml"
    for old, new, why in [
        ("source: l40s-ds}", "source: elsewhere}", "elsewhere"),
        ("864 GB/s", "864", "unit"),
        ("864 GB/s", "-864 GB/s", "possible"),
        ("sources:", "sorces:", "sources"),
        ("  bf16:", "  fp64:", "fp64"),
        ("8.9", "nine", "compute_capability"),
    ]:
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ProfileError, match=why):
            load_device(str(path))


def test_the_schema_forbids_what_it_does_not_know() -> None:
    assert DeviceSheet.model_config["extra"] == "forbid"
