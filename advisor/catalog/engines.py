"""Engine profiles: which one a name and a version mean."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from advisor.catalog.shipped import sheet_names, sheet_text
from advisor.errors import ProfileError, QuestionError, unknown
from advisor.specs.engine import Engine
from advisor.specs.wire import from_data
from advisor.untrusted import parse_yaml, read_text

# What people call an engine, without case and punctuation -> its name in the profiles.
_NAMES = {
    "tensorrtllm": "trtllm",
    "trt": "trtllm",
    "tensorrt": "trtllm",
    "sgl": "sglang",
    "ggml": "llamacpp",
    "gptfast": "gpt-fast",
}
# All-reduce kernels that engines bring beside NCCL's and RCCL's, as calibrations name their lines.
ALL_REDUCES = ("custom", "lamport", "rocm")
# The first release of a profile's year, where a version is given as the engine numbers it. Dates: the release pages of
# vllm-project/vllm (0.7.0: January 2025), sgl-project/sglang (0.4.2: January 2025), NVIDIA/TensorRT-LLM (0.18: March 2025; 0.17 of
# January 2025 was tuned as the 2024 line; 1.1: November 2025, the line of 2026).
_FIRST_RELEASE = {
    "vllm": ((2025, (0, 7)),),
    "sglang": ((2025, (0, 4, 2)),),
    "trtllm": ((2025, (0, 18)), (2026, (1, 1))),
}


def load_engine(name: str, version: str = "") -> Engine:
    """The profile of an engine, the newest unless `version` names a year, a release ("0.6.1", "v0.19") or a nightly build.

    A version between two profiles takes the older one; one before all of them takes the first. `name` may be the path of an engine
    YAML. Raises QuestionError for an unknown name or a version that is none.
    """
    if name.endswith((".yaml", ".yml")):
        return _checked(from_data(parse_yaml(read_text(Path(name)), origin=name), Engine, origin=name), name)
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    word = _NAMES.get(word, word)
    years = _profiles().get(word)
    if years is None:
        raise unknown("engine", name, _profiles())
    wanted = _year(word, version.strip().lower())
    if wanted is None:
        raise QuestionError(
            f"{version[:60]!r} is not a version of {word}; use {', '.join(map(str, years))}, or a release like 0.19.0."
        )
    year = max((y for y in years if y <= wanted), default=min(years))
    return _shipped(years[year])


def list_engines() -> list[Engine]:
    """Every shipped profile, by name and version."""
    return [_shipped(sheet) for years in _profiles().values() for _, sheet in sorted(years.items())]


def reload() -> None:
    """Read the sheets again: a fit has just written some."""
    _profiles.cache_clear()
    _shipped.cache_clear()


@cache
def _profiles() -> dict[str, dict[int, str]]:
    """Engine name -> year -> sheet, from the sheets' file names `<engine>-<year>`."""
    found: dict[str, dict[int, str]] = {}
    for sheet in sheet_names("engines"):
        engine, _, year = sheet.rpartition("-")
        if engine and year.isdigit():
            found.setdefault(engine.replace("-", "") if engine != "gpt-fast" else engine, {})[int(year)] = sheet
    return found


@cache
def _shipped(sheet: str) -> Engine:
    origin = f"engine profile {sheet}"
    return _checked(from_data(parse_yaml(sheet_text("engines", sheet), origin=origin), Engine, origin=origin), origin)


def _year(engine: str, version: str) -> int | None:
    """The year that a version belongs to; far in the future for "newest"; None when the text is not a version."""
    if version in ("", "latest", "newest") or version.startswith(("nightly", "main", "dev")):
        return 9999
    if re.fullmatch(r"20\d\d(-\d\d(-\d\d)?)?", version):
        return int(version[:4])
    release = re.match(r"v?(\d+(?:\.\d+)+)", version)
    if not release:
        return None
    number = tuple(int(part[:6]) for part in release[1].split("."))
    return max((year for year, first in _FIRST_RELEASE.get(engine, ()) if number >= first), default=0)


def _checked(engine: Engine, origin: str) -> Engine:
    """Figures that no engine has are refused: they would turn times negative or memory into nonsense."""
    host, memory = engine.host, engine.memory
    times = (host.step_s, host.sequence_s, host.request_s, host.kernel_s)
    sizes = (memory.context_bytes, memory.collective_bytes, memory.graph_bytes, memory.logit_copies, memory.hidden_copies)
    problem = ""
    if not all(0 <= value < 10 for value in times) or not 0 <= host.overlap <= 1:
        problem = "host times are seconds from 0 to 10, and overlap is a share"
    elif not all(0 <= value < 1e12 for value in sizes) or not 0 <= memory.fraction <= 1:
        problem = "memory sizes are 0 or more, and fraction is a share"
    elif engine.page_tokens < 1 or engine.max_sequences < 1 or engine.token_budget < 1 or engine.graphs_up_to < 0:
        problem = "page_tokens, max_sequences and token_budget are at least 1"
    elif not 0 <= engine.fused_elementwise <= 10 or not all(0 < factor < 100 for _, factor in engine.scales):
        problem = "fused_elementwise and scales are factors above 0"
    elif unknown := sorted({*engine.all_reduces} - {*ALL_REDUCES}):
        problem = f"{unknown[0]!r} is not an all-reduce kernel, choose from {', '.join(ALL_REDUCES)}"
    if problem:
        raise ProfileError(f"{origin} holds a figure that no engine has: {problem}.")
    return engine
