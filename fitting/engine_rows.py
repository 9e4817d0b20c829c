"""Engine figures that lie beside the points, in tables of their own, as rows of the points file.

`amd_vllm_mi300x.csv` (vLLM 0.10 on eight MI300X, ROCm's own page) and `percentiles.csv` (InferenceX runs with their distribution;
those of one pool of workers without speculation). The tables are not shipped.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

Row = dict[str, str | None]

OWNERS = {"Llama-3.1-70B": "meta-llama/Llama-3.1-70B", "Llama-3.1-405B": "meta-llama/Llama-3.1-405B"}
OWNERS |= {"DeepSeek-R1": "deepseek-ai/DeepSeek-R1"}
FRAMEWORKS = {"sglang": "sglang", "trt": "trtllm", "vllm": "vllm"}
INFERENCEX = "inferencex-percentiles"
ROCM_VLLM = ("rocm-vllm-dev-docker", "https://github.com/ROCm/vllm/blob/040de12d/docs/dev-docker/README.md", "0.10.0")
_RELEASE = re.compile(r"v(\d+\.\d+\.\d+)")


def engine_rows(folder: Path) -> list[Row]:
    """The rows of both tables; none of a table that is absent."""
    return [*_rocm_rows(folder / "amd_vllm_mi300x.csv"), *_percentile_rows(folder / "percentiles.csv")]


def _read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []


def _rocm_rows(path: Path) -> Iterator[Row]:
    source, url, version = ROCM_VLLM
    for number, row in enumerate(_read(path)):
        name, _, dtype = row["model"].partition(" ")
        yield {
            "id": f"rocm-{number}", "source": source, "url": url, "date": "2025-08", "hardware": "mi300x", "nodes": "1",
            "gpus": "8", "engine": "vllm", "engine_version": version, "model": OWNERS[name], "weight_dtype": dtype,
            "kv_dtype": "fp8", "tp": row["tp"], "mode": row["mode"].split(" ")[0], "load": row["batch_or_prompts"],
            "input_tokens": row["input_tokens"], "output_tokens": row["output_tokens"], "latency_s": row["latency_s"],
            "output_tokens_per_s": row["output_tokens_per_s"],
        }  # fmt: skip


def _percentile_rows(path: Path) -> Iterator[Row]:
    for number, row in enumerate(_read(path)):
        engine = FRAMEWORKS.get(row["framework"])
        if engine is None or row["disagg"] != "0" or row["spec"] != "none" or row["d_dp_attention"] != "0":
            continue
        dtype = row["precision"] if row["precision"] != "fp4" else "mxfp4" if row["hardware"].startswith("mi") else "nvfp4"
        release = _RELEASE.search(row["image"])
        yield {
            "id": f"percentile-{number}", "source": INFERENCEX, "url": "https://inferencex.com", "date": row["date"],
            "hardware": row["hardware"], "nodes": "1", "gpus": row["d_gpus"], "engine": engine,
            "engine_version": release[1] if release else "", "model": OWNERS[row["model"]], "weight_dtype": dtype,
            "tp": row["d_tp"], "ep": row["d_ep"], "mode": "closed_loop", "load": row["concurrency"], "input_tokens": row["isl"],
            "output_tokens": row["osl"], "ttft_s": row["ttft_mean_s"] or row["ttft_median_s"],
            "tpot_s": row["tpot_mean_s"] or row["tpot_median_s"], "speculation": row["spec"],
        }  # fmt: skip
