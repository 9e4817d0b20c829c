"""A small world in code: one model of each kind, one machine, one engine, so that tests need no catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from advisor.specs.cluster import Cluster, Device, Link, Network, Node
from advisor.specs.model import DenseFfn, GroupedAttention, Layer, ModelSpec, MoeFfn
from advisor.specs.plan import Plan
from advisor.specs.prediction import Estimate, Prediction, RankMemory, Share, StepTime

GIB = 2.0**30


@pytest.fixture(scope="session")
def h100() -> Device:
    # NVIDIA H100 data sheet (SXM5): 80 GB, 3.35 TB/s, 989 TFLOP/s dense bf16, 900 GB/s NVLink both ways.
    return Device(
        name="h100-80g-sxm", architecture="hopper", vendor="nvidia", compute_capability="9.0", memory_bytes=80 * GIB,
        memory_bytes_per_s=3.35e12, peak_flop_per_s=(("bf16", 989e12), ("fp8", 1979e12), ("int8", 1979e12)), sms=132, l2_bytes=50e6,
        link_kind="nvswitch", link_bytes_per_s=450e9, pcie_bytes_per_s=64e9, p2p=True, power_w=700, price_usd_per_hour=3.0,
        price_date="2026-01",
    )  # fmt: skip


@pytest.fixture(scope="session")
def box(h100: Device) -> Callable[..., Cluster]:
    """A cluster of so many H100s in so many nodes."""

    def build(gpus: int = 8, nodes: int = 1, device: Device = h100) -> Cluster:
        node = Node(name="hgx", devices=(device,) * gpus, default_link=Link(kind="nvswitch", bytes_per_s=450e9))
        network = Network(name="ib-400g", bytes_per_s=50e9, latency_s=5e-6, rdma=True) if nodes > 1 else None
        return Cluster(node=node, nodes=nodes, network=network)

    return build


def _model(name: str, hidden: int, layers: int, heads: int, kv: int, width: int, vocab: int = 128256) -> ModelSpec:
    layer = Layer(mixer=GroupedAttention(heads=heads, kv_heads=kv, head_dim=128), ffn=DenseFfn(width=width))
    return ModelSpec(
        name=name, source="test", hidden_size=hidden, vocab_size=vocab, layers=(layer,) * layers, max_context_tokens=131072
    )


@pytest.fixture(scope="session")
def llama_70b() -> ModelSpec:
    # Llama 3 paper (arXiv 2407.21783), table 3.
    return _model("llama-3.1-70b", 8192, 80, 64, 8, 28672)


@pytest.fixture(scope="session")
def llama_8b() -> ModelSpec:
    # Llama 3 paper (arXiv 2407.21783), table 3.
    return _model("llama-3.1-8b", 4096, 32, 32, 8, 14336)


@pytest.fixture(scope="session")
def mixtral() -> ModelSpec:
    # Mixtral paper (arXiv 2401.04088), table 1.
    layer = Layer(mixer=GroupedAttention(heads=32, kv_heads=8, head_dim=128), ffn=MoeFfn(experts=8, top_k=2, expert_width=14336))
    return ModelSpec(
        name="mixtral-8x7b", source="test", hidden_size=4096, vocab_size=32000, layers=(layer,) * 32, max_context_tokens=32768
    )


def estimate(value: float, *, independent: float = 0.02, width: float = 1.2) -> Estimate:
    return Estimate(value=value, low=value / width, high=value * width, independent=independent)


@pytest.fixture(scope="session")
def prediction() -> Callable[..., Prediction]:
    """A prediction put together by hand: TPOT, load and what else matters to order and pages."""

    def build(
        label: str, *, tpot_s: float = 0.02, rate: float = 1000.0, ttft_s: float = 0.2, independent: float = 0.02,
        within: bool = True, parts: tuple[tuple[str, float], ...] = (("weights", 0.012), ("all-reduce", 0.004), ("host", 0.004)),
        outputs: float = 512.0, kv_tokens: int = 400_000,
    ) -> Prediction:  # fmt: skip
        plan = Plan.parse(label)
        shares = tuple(Share(name=name, amount=amount) for name, amount in parts)
        step = StepTime(total_s=sum(s.amount for s in shares), parts=shares, flop=1e12, hbm_bytes=2e10, wire_bytes=1e6)
        memory = RankMemory(
            device_bytes=80 * GIB, weights_bytes=35 * GIB, activations_bytes=5 * GIB, other_bytes=1 * GIB, kv_bytes=32 * GIB,
            reserved_bytes=7 * GIB, kv_bytes_per_token=81920.0, kv_tokens=kv_tokens // plan.dp,
        )  # fmt: skip
        each = lambda value: estimate(value, independent=independent)  # noqa: E731
        return Prediction(
            plan=plan, ttft_s=each(ttft_s), tpot_s=each(tpot_s), latency_s=each(ttft_s + tpot_s * (outputs - 1)),
            decode_tokens_per_s=each(rate * 1.1), output_tokens_per_s=each(rate), total_tokens_per_s=each(rate * 3),
            requests_per_s=each(rate / outputs), sequences=rate * tpot_s, kv_tokens=kv_tokens, max_sequences=kv_tokens // 1536,
            memory=memory, decode=step, prefill=replace(step, total_s=step.total_s), bottleneck="weights", within_limits=within,
            usd_per_million_tokens=3.0 * plan.world / 3600 / rate * 1e6, calibration="test",
        )  # fmt: skip

    return build
