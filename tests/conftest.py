"""What holds for every test; those marked `gpu` are left out, with the reason, where there is no NVIDIA GPU."""

from __future__ import annotations

import importlib.util
import os

import pytest
from hypothesis import settings

# A law that holds slowly on a busy machine holds: time is measured by benchmarks, not by tests.
settings.register_profile("advisor", deadline=None)
settings.load_profile("advisor")

pytest_plugins = ["small_world"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=0, help="cases of tests/fuzz, with new seeds (2000 known ones otherwise)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fuzz"):  # before tests/fuzz is imported, by the workers of pytest-xdist too
        os.environ["ADVISOR_FUZZ"] = str(config.getoption("--fuzz"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    reason = "needs torch with an NVIDIA GPU"
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return
    for item in marked:
        item.add_marker(pytest.mark.skip(reason=reason))
