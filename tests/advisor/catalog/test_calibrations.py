from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor import files
from advisor.catalog.calibrations import load_calibration, local_calibration_path, read_calibration, write_calibration
from advisor.catalog.devices import load_device
from advisor.catalog.shipped import sheet_names
from advisor.errors import AdvisorError, MachineError, ProfileError, QuestionError
from advisor.specs.wire import to_data

H100 = load_device("h100")
SHIPPED = [name for name in sheet_names("calibration") if name != "default"]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_are_sound_and_their_devices_own(name: str) -> None:
    calibration = load_calibration(load_device(name))
    assert calibration.device == name
    assert calibration.kernels
    assert calibration.wires


def test_every_gpu_has_one_and_says_how_near_it_is() -> None:
    for name in sheet_names("hardware"):
        device = load_device(name)
        calibration = load_calibration(device)
        assert calibration.device == name
        worst = {reach.provenance.closeness for _, reach in calibration.kernels}
        if name not in SHIPPED:
            assert "device" not in worst
    assert load_calibration(load_device("4090")).name == "rtx4090 as l40s"
    assert load_calibration(load_device("5090")).name == "rtx5090 as rtx-pro-6000-server"
    assert load_calibration(load_device("h800")).name.endswith("as h100-80g-sxm")
    borrowed = load_calibration(load_device("v100"))
    assert {reach.provenance.closeness for _, reach in borrowed.kernels} == {"default"}
    assert "default set" in borrowed.kernels[0][1].provenance.source


def test_written_and_read_back(tmp_path: Path) -> None:
    calibration = replace(load_calibration(H100), name="mine", scales=(("decode", 1.04),))
    path = tmp_path / "deep" / "mine.yaml"
    write_calibration(calibration, path)
    assert read_calibration(path, H100) == calibration
    assert [p.name for p in path.parent.iterdir()] == ["mine.yaml"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    first = replace(load_calibration(H100), name="first")
    write_calibration(first, path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(MachineError, match="No space left"):
        write_calibration(replace(first, name="second"), path)
    assert read_calibration(path, H100) == first
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["mine.yaml"]
    (tmp_path / "file").write_text("")
    with pytest.raises(QuestionError, match="cannot be written"):
        write_calibration(first, tmp_path / "file" / "below.yaml")


def test_this_machines_own_wins_and_a_damaged_one_is_named_and_left_out() -> None:
    path = local_calibration_path(H100)
    own = replace(load_calibration(H100), name="this machine", scales=(("prefill", 0.9),))
    write_calibration(own, path)
    assert load_calibration(H100) == own
    assert load_calibration(H100, local=False).name != "this machine"
    path.write_text(path.read_text()[:5000])
    left = load_calibration(H100)
    assert left.kernels == load_calibration(H100, local=False).kernels
    assert "left out" in left.notes[-1]
    assert str(path) in left.notes[-1]


def _data() -> dict[str, Any]:
    data: dict[str, Any] = to_data(load_calibration(H100, local=False))
    return data


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "version 2"),
        ({"version": None}, "version"),
        ({"device": "b200-180g"}, "measured on b200"),
        ({"kernels": 5}, "kernels"),
        ({"scales": [["decode", -1.0]]}, "scale decode"),
        ({"spreads": [["ttft", {"bias": 0.0, "shared": -0.1, "independent": 0.1, "points": 3}]]}, "ttft shared"),
    ],
)
def test_files_of_another_version_or_gpu_or_nonsense(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(_data() | change))
    with pytest.raises(ProfileError, match=why):
        read_calibration(path, H100)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory", -0.1),
        ("memory", 1.6),
        ("memory", math.nan),
        ("compute", 0.0),
        ("launch_s", -1e-6),
        ("sharpness", 0.0),
        ("launch_s", 3.0),
    ],
)
def test_impossible_reach(tmp_path: Path, field: str, value: float) -> None:
    data = _data()
    data["kernels"][0][1][field] = value
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ProfileError, match=f"{data['kernels'][0][0]} {field}"):
        read_calibration(path, H100)


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_truncated_and_scrambled_files_are_refused_in_a_sentence_or_sound(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = random.Random(seed)
    text = TEXT
    if rng.random() < 0.5:
        text = text[: rng.randrange(len(text))]
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(["-", "{", "&a ", "'", "\n", ": ", "9e9", "\x01", "nan", "]"]) + text[at + rng.randrange(3) :]
    path = tmp_path_factory.getbasetemp() / "scrambled.yaml"
    path.write_text(text)
    sentence, found = "", None
    try:
        found = read_calibration(path, H100)
    except AdvisorError as error:
        sentence = str(error)
    assert (found is None) == bool(sentence)
    assert "\n" not in sentence


TEXT = yaml.safe_dump(_data(), width=120)
