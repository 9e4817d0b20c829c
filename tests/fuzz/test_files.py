"""Configs, model and cluster files, calibrations and results as somebody else may have made them."""

from __future__ import annotations

import atexit
import json
import math
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml
from fuzz.limits import answer_or_sentence, command, fuzzed
from fuzz.mutate import damaged, garbled
from tiny_models import CONFIGS

from advisor.catalog.calibrations import read_calibration
from advisor.catalog.devices import load_device
from advisor.catalog.huggingface import model_from_config
from advisor.catalog.machines import cluster_data, load_cluster, read_cluster
from advisor.catalog.models import load_model
from advisor.measure.results import Results
from advisor.specs import wire
from advisor.specs.experiment import Cell, Job, Measurement, Run, Runs, Timing
from advisor.specs.plan import Plan
from advisor.untrusted import parse_json, parse_yaml

FOLDER = Path(tempfile.mkdtemp(prefix="advisor-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
PROFILES = Path(__file__).parents[2] / "profiles"
SHEETS = ("llama-3.1-8b", "mixtral-8x7b", "deepseek-v3", "gpt-oss-20b", "gemma-3-27b", "qwen3.5-35b-a3b", "nemotron-h-56b")
QUANTS: tuple[dict[str, Any], ...] = (
    {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head", "gate"]},
    {"quant_method": "gptq", "bits": 4, "group_size": 128},
    {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8",
     "exclude_modules": ["lm_head", "*self_attn*"]},
    {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
     "quantized_layers": {"model.layers.0.mlp": {"quant_algo": "FP8"}}},
)  # fmt: skip


@cache
def sheet(kind: str, name: str) -> dict[str, Any]:
    return parse_yaml((PROFILES / kind / f"{name}.yaml").read_text(encoding="utf-8"), origin=name)


def as_text(data: Any, dice: Random, *, kind: str) -> str:
    """The data as a file holds it, sometimes garbled on top."""
    try:
        text = json.dumps(data) if kind == "json" else yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    except (yaml.YAMLError, UnicodeError):
        text = json.dumps(data)
    return garbled(text, dice) if dice.random() < 0.3 else text


def put(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@fuzzed(500)
def test_configs(seed: int) -> None:
    dice = Random(seed)
    config = (
        dict(sheet("models", dice.choice(SHEETS))["config"]) if dice.random() < 0.7 else dict(dice.choice(list(CONFIGS.values())))
    )
    if dice.random() < 0.4:
        config["quantization_config"] = dice.choice(QUANTS)
    text = as_text(damaged(config, dice), dice, kind="json")
    model = answer_or_sentence(lambda: model_from_config(parse_json(text, origin="config.json"), None, name="m", source="test"))
    if model is not None:
        assert 0 < model.active_params <= model.params < 1e15
        assert all(math.isfinite(layer.params(model.hidden_size)) for layer in set(model.layers))


@fuzzed(150)
def test_model_sheets(seed: int) -> None:
    dice = Random(seed)
    path = put(FOLDER / "model.yaml", as_text(damaged(sheet("models", dice.choice(SHEETS)), dice), dice, kind="yaml"))
    answer_or_sentence(lambda: load_model(str(path), online=False))


@cache
def clusters() -> tuple[dict[str, Any], ...]:
    machines = (
        load_cluster(gpu="h100-80g-sxm", gpus=8), load_cluster(gpu="l40s", gpus=4),
        load_cluster(gpu="h100-80g-sxm", gpus=8, nodes=4),
        load_cluster(gpu="mi300x", gpus=8), load_cluster(gpu="rtx-4090", gpus=2),
    )  # fmt: skip
    return tuple(cluster_data(machine) for machine in machines)


@fuzzed(250)
def test_clusters(seed: int) -> None:
    """A damaged machine is refused, or can be planned for and written again."""
    dice = Random(seed)
    kind = dice.choice(("json", "yaml"))
    path = put(FOLDER / f"cluster.{kind}", as_text(damaged(dice.choice(clusters()), dice), dice, kind=kind))
    machine = answer_or_sentence(lambda: read_cluster(path))
    if machine is not None:
        answer_or_sentence(lambda: cluster_data(machine))


@fuzzed(40)
def test_clusters_are_planned_for(seed: int) -> None:
    dice = Random(seed)
    path = put(FOLDER / "cluster.yaml", as_text(damaged(dice.choice(clusters()), dice, times=2), dice, kind="yaml"))
    model = dice.choice(("llama-3.1-8b", "mixtral-8x7b", "deepseek-v3"))
    command(["recommend", "--model", model, "--cluster", str(path), "--offline"])


@fuzzed(150)
def test_calibrations(seed: int) -> None:
    dice = Random(seed)
    data = sheet("calibration", "h100-80g-sxm")
    data = {**data, "kernels": data["kernels"][:6], "wires": data["wires"][:6], "entries": None}
    del data["entries"]
    path = put(FOLDER / "own.yaml", as_text(damaged(data, dice), dice, kind="yaml"))
    device = load_device("h100-80g-sxm")
    found = answer_or_sentence(lambda: read_calibration(path, device))
    if found is not None and seed % 8 == 0:
        command(["estimate", "--model", "8b", "--gpu", "h100-80g-sxm", "--gpus", "2", "--plan", "tp=2", "--calibration", str(path)])


@cache
def results() -> Any:
    model = model_from_config(CONFIGS["llama"], None, name="tiny", source="test")
    cell = Cell(phase="decode", batch=4, context_tokens=128)
    timing = Timing(
        cell=cell, median_s=0.01, low_s=0.009, high_s=0.02, repeats=10, achieved_flop_per_s=1e12, achieved_bytes_per_s=1e11,
        notes=("a note",), bubble=0.1, naive_s=0.02,
    )  # fmt: skip
    measured = Measurement(
        job_id="a", plan=Plan(tp=2), status="ok", reason="", timings=(timing,), kv_tokens=100, weights_bytes=1e9, device_name="gpu",
        driver="1", software="torch", date="2026-01-01",
    )  # fmt: skip
    job = Job(id="a", model=model, plan=Plan(tp=2), cells=(cell,))
    return wire.to_data(Runs(version=1, runs=(Run(job=job, measurement=measured),)))


@fuzzed(120)
def test_results(seed: int) -> None:
    dice = Random(seed)
    path = put(FOLDER / "results.json", as_text(damaged(results(), dice), dice, kind="json"))
    found = answer_or_sentence(lambda: Results.open(path, fresh=False))
    for run in found.runs.runs if found is not None else ():
        assert all(0 < timing.median_s < math.inf for timing in run.measurement.timings)
        assert run.measurement.reason.isprintable()


def test_an_undamaged_file_of_each_kind_is_read(tmp_path: Path) -> None:
    """What the cases start from is sound, so that they do not all stop at the first line."""
    for number, data in enumerate(clusters()):
        assert read_cluster(put(tmp_path / f"{number}.yaml", yaml.safe_dump(data))).gpus >= 2
    assert Results.open(put(tmp_path / "results.json", json.dumps(results())), fresh=False).runs.runs
    for name in SHEETS:
        path = put(tmp_path / f"{name}.yaml", yaml.safe_dump(sheet("models", name)))
        assert load_model(str(path), online=False).spec.params > 1e9
