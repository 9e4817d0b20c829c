"""Problems and predictions made by hand for the launch tests: two models, any machine, any plan."""

from __future__ import annotations

from dataclasses import replace

from advisor.specs.cluster import Cluster, Device, Link, Network, Node
from advisor.specs.engine import Engine, HostTime, MemoryRule, Scheduler
from advisor.specs.model import DenseFfn, GroupedAttention, Layer, ModelSpec, MoeFfn, WeightFormats
from advisor.specs.plan import Plan, Settings
from advisor.specs.prediction import Estimate, Prediction, RankMemory, StepTime
from advisor.specs.problem import Problem
from advisor.specs.workload import Workload

FLAGS = {"vllm": "0.33.0", "sglang": "0.5.23", "trtllm": "1.4"}
IMAGES = {
    "vllm": "vllm/vllm-openai:v0.33.0",
    "sglang": "lmsysorg/sglang:v0.5.23",
    "trtllm": "nvcr.io/nvidia/tensorrt-llm/release:1.2.0",
}
SETTINGS = Settings(max_sequences=256, token_budget=8192, max_context_tokens=4096, memory_fraction=0.9)
DEVICE = Device(
    name="h100-80g-sxm", architecture="hopper", vendor="nvidia", compute_capability="9.0", memory_bytes=80 * 2**30,
    memory_bytes_per_s=3.35e12, peak_flop_per_s=(("bf16", 989e12),), sms=132, l2_bytes=50e6, link_kind="nvswitch",
    link_bytes_per_s=450e9, pcie_bytes_per_s=64e9, p2p=True, power_w=700,
)  # fmt: skip


def model(
    *, moe: bool = False, repo: str = "example-org/model-70b", quantisation: str = "", weights: str = "bf16", cache: str = "bf16"
):
    attention = GroupedAttention(heads=64, kv_heads=8, head_dim=128)
    ffn = MoeFfn(experts=16, top_k=2, expert_width=2048) if moe else DenseFfn(width=8192)
    formats = WeightFormats(attention=weights, ffn=weights, experts=weights)
    return ModelSpec(
        name="model-70b", source="made by hand", hidden_size=8192, vocab_size=32000, layers=(Layer(mixer=attention, ffn=ffn),) * 32,
        max_context_tokens=131072, repo=repo, quantisation=quantisation, kv_format=cache, formats=formats,
    )  # fmt: skip


def cluster(*, gpus: int = 8, nodes: int = 1, ids: tuple[str, ...] = ()) -> Cluster:
    node = Node(name="box", devices=(DEVICE,) * gpus, default_link=Link(kind="nvswitch", bytes_per_s=450e9, count=18), ids=ids)
    network = Network(name="ib-400g", bytes_per_s=50e9, latency_s=2e-6, rdma=True) if nodes > 1 else None
    return Cluster(node=node, nodes=nodes, network=network)


def engine(name: str = "vllm") -> Engine:
    return Engine(
        name=name, version="2025", axes=("tp", "pp", "dp", "ep", "adp"),
        host=HostTime(step_s=1e-3, sequence_s=2e-5, request_s=0.03, overlap=0.0, kernel_s=4e-6),
        memory=MemoryRule(
            of="total", fraction=0.9, context_bytes=4e8, collective_bytes=4e8, graph_bytes=3e8, logit_copies=8, hidden_copies=4,
        ),
        page_tokens=16, scheduler=Scheduler(family="vllm", chunked_prefill=True, mixed_steps=True),
        max_sequences=1024, token_budget=8192, graphs_up_to=512,
        fused_elementwise=0.7, all_reduces=("custom",), source="made by hand", flags_version=FLAGS[name], image=IMAGES[name],
        rocm_images=(("gfx", f"{name}-rocm:1"),),
    )  # fmt: skip


def problem(
    name: str = "vllm", *, spec: ModelSpec | None = None, machine: Cluster | None = None, load: Workload | None = None
) -> Problem:
    load = load or Workload(input_tokens=1024, output_tokens=512, mode="closed_loop", users=64)
    return Problem(model=spec or model(), cluster=machine or cluster(), workload=load, engine=engine(name))


def prediction(plan: Plan) -> Prediction:
    def about(value: float) -> Estimate:
        return Estimate(value=value, low=value * 0.8, high=value * 1.25)

    step = StepTime(total_s=0.02, parts=(), flop=1e12, hbm_bytes=1e10, wire_bytes=1e6)
    memory = RankMemory(
        device_bytes=8e10, weights_bytes=3e10, activations_bytes=5e9, other_bytes=1e9, kv_bytes=3e10, reserved_bytes=0,
        kv_bytes_per_token=1e5, kv_tokens=300_000,
    )  # fmt: skip
    return Prediction(
        plan=plan if plan.settings else replace(plan, settings=SETTINGS), ttft_s=about(0.31), tpot_s=about(0.0214),
        latency_s=about(11.2), decode_tokens_per_s=about(46.7), output_tokens_per_s=about(2900), total_tokens_per_s=about(8700),
        requests_per_s=about(5.7), sequences=64, kv_tokens=300_000, max_sequences=195, memory=memory, decode=step, prefill=step,
        bottleneck="weights", within_limits=True, usd_per_million_tokens=None, calibration="h100-80g-sxm",
    )  # fmt: skip
