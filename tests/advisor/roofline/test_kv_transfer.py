"""(D4) and (D5) by hand, and what must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from advisor.catalog.calibrations import load_calibration
from advisor.catalog.models import load_model
from advisor.roofline.comm import Lines
from advisor.roofline.fabric import LinkGraph, group_fabric
from advisor.roofline.kv_transfer import lanes, prompt_cache_bytes, transfer_s
from advisor.specs.cluster import Cluster
from advisor.specs.deployment import Deployment
from advisor.specs.model import ModelSpec


def pools(prefill: str, decode: str) -> Deployment:
    return Deployment.parse(f"prefill: {prefill}; decode: {decode}")


def test_a_prompt_of_grouped_heads_by_hand(llama_70b: ModelSpec) -> None:
    # docs/physics.md (D4): 80 layers x 8 heads x 256 values x 2 bytes = 327,680 bytes a token; 8,192 tokens are 2.68 GB.
    assert prompt_cache_bytes(llama_70b, 8192) == 8192 * 327_680


def test_a_prompt_of_latents_by_hand() -> None:
    # docs/physics.md (D4): 61 layers x 576 values x 2 bytes = 70,272 bytes a token.
    model = replace(load_model("deepseek-r1", online=False).spec, kv_format="bf16")
    assert prompt_cache_bytes(model, 1000) == 1000 * 70_272


def test_heads_travel_over_as_many_pairs_as_the_smaller_side_has(llama_70b: ModelSpec) -> None:
    assert lanes(llama_70b, pools("tp=4", "tp=8")) == 4
    assert lanes(llama_70b, pools("tp=8", "tp=8")) == 8
    assert lanes(llama_70b, pools("tp=4,pp=2", "tp=16")) == 8  # more ranks than key-value heads hold copies
    latent = load_model("deepseek-r1", online=False).spec
    assert lanes(latent, pools("tp=8", "tp=8")) == 1


def test_the_transfer_by_hand(llama_70b: ModelSpec, box: Callable[..., Cluster]) -> None:
    # docs/physics.md (D5): 2.68 GB over 8 pairs are 335.5 MB each: 6.7 ms at the 50 GB/s of the sheet, more at what it reaches.
    cluster = box(8, 2)
    fabric = group_fabric(LinkGraph(cluster), (0, 15))
    lines = Lines(load_calibration(cluster.device, local=False))
    seconds = transfer_s(llama_70b, pools("tp=8", "tp=8"), 8192, fabric, lines)
    assert 6.7e-3 < seconds < 2 * 6.7e-3
    assert transfer_s(llama_70b, pools("tp=4", "tp=8"), 8192, fabric, lines) == pytest.approx(2 * seconds, rel=0.02)
    near = group_fabric(LinkGraph(cluster), (0, 7))
    assert transfer_s(llama_70b, pools("tp=8", "tp=8"), 8192, near, lines) < seconds / 4
