"""Public kernel tables, row by row, as the same Work that the prediction uses, with the seconds that were measured.

The tables (samples of those that ship with NVIDIA's aiconfigurator 0.12, Apache-2.0) are not shipped; `docs/physics.md` says
where they come from and which rows are left out.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from advisor.catalog.models import load_model
from advisor.errors import ProfileError
from advisor.roofline.work import (
    SKEW,
    DecodeAttention,
    Experts,
    Gemm,
    IndexScores,
    Kernel,
    LatentDecode,
    LatentPrefill,
    PrefillAttention,
    Rule,
    StateScan,
    StateUpdate,
    ranks_reached,
)
from advisor.specs.formats import FORMATS
from advisor.specs.keys import Op
from advisor.specs.model import LatentAttention

# What the tables call a number format -> ours.
FORMAT = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_static": "fp8",
    "fp8_block": "fp8-block",
    "int8_wo": "int8-wo",
    "int4_wo": "int4",
    "sq": "int8",
    "nvfp4": "nvfp4",
    "w4a16_mxfp4": "mxfp4",
    "w4a8_mxfp4_mxfp8": "mxfp4-mxfp8",
}
# Tables of experts: the second one holds the MXFP4 rows of every engine beside others of the same sweep.
EXPERT_TABLES = ("moe", "moe_mxfp4")
# DeepSeek-V3 (arXiv:2412.19437, section 4.2), the model of both MLA tables: latent 512, RoPE 64, head 128 + 64, value 128.
MLA_RANK, MLA_ROPE, MLA_HEAD, MLA_VALUE = 512, 64, 192, 128
HELD_OUT = 4  # one shape in four is kept for the report


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measured kernel. `source` is the engine and kernel that ran it; `held_out` shapes are never fitted on. `beside` are the
    kernels that were timed with it, whose own coefficients say what they took."""

    hardware: str
    key: str
    work: Kernel
    seconds: float
    source: str
    held_out: bool
    beside: tuple[Kernel, ...] = ()

    @property
    def engine(self) -> str:
        """The engine that ran it."""
        return self.source.split(" ", 1)[0]


def rows(folder: Path, table: str) -> Iterator[dict[str, str]]:
    """Rows of one table. Raises ProfileError when it is missing."""
    path = folder / f"{table}.csv.gz"
    try:
        with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)
    except OSError as error:
        raise ProfileError(
            f"cannot read the table {path}: {error.strerror or error}; give the folder that holds the tables."
        ) from None


def _held_out(*shape: object) -> bool:
    """The same shapes on every machine and in every run: a checksum of the shape decides."""
    return zlib.crc32("/".join(map(str, shape)).encode()) % HELD_OUT == 0


def gemms(folder: Path) -> Iterator[Sample]:
    """GEMM rows; the best-of-a-scan rows (no latency) are left to `peak_reach`."""
    for row in rows(folder, "gemm"):
        if not row["latency_us"] or row["dtype"] not in FORMAT:
            continue
        m, n, k, weights = int(row["m"]), int(row["n"]), int(row["k"]), FORMAT[row["dtype"]]
        note = re.sub(r"^anomaly=[^;]*; ?", "", row["notes"]).split(";")[0]
        yield Sample(
            hardware=row["hardware"],
            key=f"gemm/{weights}",
            work=Gemm(name="gemm", m=m, n=n, k=k, weights=weights),
            seconds=float(row["latency_us"]) * 1e-6,
            source=" ".join(note.split()[:2]),
            held_out=_held_out(m, n, k),
        )


def peak_reach(folder: Path) -> Iterator[tuple[str, str, float]]:
    """(hardware, format, flop/s) of the best GEMM that a scan over shapes found (ml-engineering, MAMF)."""
    for row in rows(folder, "gemm"):
        if not row["latency_us"]:
            yield row["hardware"], {"bf16": "bf16", "fp8": "fp8"}[row["dtype"]], float(row["tflops"]) * 1e12


def prefills(folder: Path) -> Iterator[Sample]:
    """Causal attention over at least 16 new tokens."""
    for row in rows(folder, "attention_prefill"):
        batch, new, heads, kv = (int(row[c]) for c in ("batch_size", "isl", "num_heads", "num_key_value_heads"))
        dim, window, cache = int(row["head_dim"]), int(float(row["window_size"] or 0)), FORMAT[row["kv_cache_dtype"]]
        if new < 16:
            continue
        work = PrefillAttention(
            name="attention", batch=batch, new=new, past=0, heads=heads, kv_heads=kv,
            head_dim=dim, value_dim=dim, window=window, cache=cache,
        )  # fmt: skip
        yield _sample(row, f"attention_prefill/{cache}", work, (batch, new, heads, kv, dim, window))


def decodes(folder: Path) -> Iterator[Sample]:
    """One query token a sequence, up to 512 sequences; `step` cached tokens and the new one."""
    for row in rows(folder, "attention_decode"):
        batch, heads, kv, past = (int(row[c]) for c in ("batch_size", "num_heads", "num_key_value_heads", "step"))
        dim, window, cache = int(row["head_dim"]), int(float(row["window_size"] or 0)), FORMAT[row["kv_cache_dtype"]]
        if batch > 512:
            continue
        work = DecodeAttention(
            name="attention", batch=batch, context=past + 1, heads=heads, kv_heads=kv,
            head_dim=dim, value_dim=dim, window=window, cache=cache,
        )  # fmt: skip
        yield _sample(row, f"attention_decode/{cache}", work, (batch, past, heads, kv, dim, window))


def latent_prefills(folder: Path) -> Iterator[Sample]:
    """MLA over at least 16 new tokens, keys and values expanded."""
    for row in rows(folder, "mla_prefill"):
        batch, new, heads, cache = int(row["batch_size"]), int(row["isl"]), int(row["num_heads"]), FORMAT[row["kv_cache_dtype"]]
        if new < 16:
            continue
        work = LatentPrefill(
            name="attention", batch=batch, new=new, past=0, heads=heads, head_dim=MLA_HEAD, value_dim=MLA_VALUE,
            kv_rank=MLA_RANK, rope_dim=MLA_ROPE, cache=cache,
        )  # fmt: skip
        yield _sample(row, f"mla_prefill/{cache}", work, (batch, new, heads))


def latent_decodes(folder: Path) -> Iterator[Sample]:
    """MLA decode with absorbed projections, up to 512 sequences."""
    for row in rows(folder, "mla_decode"):
        batch, heads, past, cache = int(row["batch_size"]), int(row["num_heads"]), int(row["step"]), FORMAT[row["kv_cache_dtype"]]
        if batch > 512:
            continue
        work = LatentDecode(
            name="attention", batch=batch, context=past + 1, heads=heads, kv_rank=MLA_RANK, rope_dim=MLA_ROPE, cache=cache
        )
        yield _sample(row, f"mla_decode/{cache}", work, (batch, past, heads))


def experts(folder: Path) -> Iterator[Sample]:
    """MoE layers: the grouped GEMMs with the routing around them; three matrices an expert, two without a gate."""
    for row in (row for table in EXPERT_TABLES for row in rows(folder, table)):
        tokens, hidden, width, top_k, total = (
            int(row[c]) for c in ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts")
        )
        tp, ep, weights = int(row["moe_tp_size"]), int(row["moe_ep_size"]), FORMAT.get(row["moe_dtype"])
        if weights is None:
            continue
        work = Experts(
            name="experts", tokens=tokens, top_k=top_k, experts=total, local_experts=total / ep, hidden=hidden, width=width / tp,
            matrices=2 if "nongated" in row["kernel_source"] else 3, weights=weights,
            skew=None if row["distribution"] == "balanced" else SKEW,
        )  # fmt: skip
        yield _sample(row, f"experts/{weights}", work, (tokens, hidden, width, top_k, total, tp, ep))


# The core kernel of each rule and phase; the convolution beside it is element-wise traffic. Mamba-2's table has only that.
STATE_KERNELS = {
    ("gdn", "generation"): ("fused_recurrent_gated_delta_rule", "fused_recurrent_gated_delta_rule_packed_decode"),
    ("kda", "generation"): ("fused_recurrent_kda_packed_decode", "kda_fused_decode", "fused_kda_decode"),
    ("gdn", "context"): ("chunk_gated_delta_rule", "chunk_gated_delta_rule_flashinfer", "chunk_gated_delta_rule_triton"),
    ("kda", "context"): ("chunk_kda", "flashkda_fwd", "chunk_kda_with_fused_gate"),
}
RULES: dict[str, Rule] = {"gdn": "gated-delta", "kda": "kda"}


def states(folder: Path) -> Iterator[Sample]:
    """Recurrent states: updated by one token of each sequence, or scanned over prompts of at least 16 tokens."""
    for row in rows(folder, "linear_attention"):
        op, phase = row["op_name"], row["phase"]
        if row["kernel_source"] not in STATE_KERNELS.get((op, phase), ()):
            continue
        batch, new, heads = int(row["batch_size"]), int(row["seq_len"]), float(row["num_v_heads"])
        values, rule = float(row["head_k_dim"]) * float(row["head_v_dim"]), RULES[op]
        shape = (batch, new, row["num_k_heads"], row["num_v_heads"])
        if phase == "context" and new >= 16:
            scan = StateScan(name="state", batch=batch, new=new, heads=heads, head_values=values, rule=rule)
            yield _sample(row, f"state_scan/{rule}", scan, shape)
        elif phase == "generation" and batch <= 512:
            update = StateUpdate(name="state", batch=batch, heads=heads, head_values=values, rule=rule)
            yield _sample(row, f"state_update/{rule}", update, shape)


def index_scores(folder: Path) -> Iterator[Sample]:
    """The indexer of sparse attention: what whole attention modules take beyond equal ones that reuse another layer's choice."""
    whole: dict[tuple[str, ...], dict[str, str]] = {}
    without: dict[tuple[str, ...], dict[str, str]] = {}
    same = ("hardware", "engine", "model", "kv_cache_dtype", "gemm_type", "num_heads", "batch_size", "isl", "tp_size", "step")
    for row in rows(folder, "sparse_attention_modules"):
        if row["op_name"].startswith("dsa_"):
            part = without if row["op_name"].endswith("_skip_indexer") else whole
            part[(row["op_name"].removesuffix("_skip_indexer"), *(row[name] for name in same))] = row
    for key in sorted(whole.keys() & without.keys()):
        row, seconds = whole[key], (float(whole[key]["latency_ms"]) - float(without[key]["latency_ms"])) * 1e-3
        spec = load_model(row["model"], online=False).spec
        mixer = next(x.mixer for x in spec.layers if isinstance(x.mixer, LatentAttention))
        batch, new, past = int(row["batch_size"]), int(row["isl"]), int(row["step"])
        if batch > 512 or seconds <= 0:
            continue
        tokens, width = batch * new, mixer.index_heads * mixer.index_head_dim
        pairs, keys = batch * (new * past + new * (new + 1) / 2), batch * (past + new)
        work = IndexScores(
            name="index", queries=tokens, pairs=pairs, keys=keys, heads=mixer.index_heads, head_dim=mixer.index_head_dim
        )
        yield Sample(
            hardware=row["hardware"],
            key="index_scores/fp8",
            work=work,
            seconds=seconds,
            source=f"{row['engine']} {row['engine_version']} indexer",
            held_out=_held_out(batch, new, past, row["tp_size"]),
            beside=(
                Gemm(name="index", m=tokens, n=width, k=mixer.q_rank, weights="bf16"),
                Gemm(name="index_keys", m=tokens, n=mixer.index_heads + mixer.index_head_dim, k=spec.hidden_size, weights="bf16"),
            ),
        )


def _sample(row: dict[str, str], key: str, work: Kernel, shape: tuple[object, ...]) -> Sample:
    return Sample(
        hardware=row["hardware"],
        key=key,
        work=work,
        seconds=float(row["latency_ms"]) * 1e-3,
        source=f"{row['engine']} {row['engine_version']} {row['kernel_source']}",
        held_out=_held_out(*shape),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WireSample:
    """One measured collective: `payload_bytes` is what one rank puts in (as in `work.Collective`)."""

    hardware: str
    op: Op
    algorithm: str
    ranks: int
    payload_bytes: float
    seconds: float
    source: str


def collectives(folder: Path) -> Iterator[WireSample]:
    """Collectives inside one node: NCCL, and engines' own all-reduce replayed in a CUDA graph (eager rows time the host);
    TensorRT-LLM's ("lamport", after the first protocol of it) apart from the others'."""
    for row in rows(folder, "collectives"):
        if row["source"] != "aiconfigurator" or not row["latency_us"]:
            continue
        name = row["algo"].split()[0]
        algorithm = {"NCCL": "nccl", "TRTLLM": "lamport"}.get(name, "custom")
        if algorithm == "custom" and not name.endswith("_graph"):
            continue
        op = cast(Op, row["op"].replace("alltoall", "all_to_all"))
        ranks, total = int(row["ranks"]), float(row["bytes"])
        yield WireSample(
            hardware=row["hardware"],
            op=op,
            algorithm=algorithm,
            ranks=ranks,
            payload_bytes=total / ranks if op == "all_gather" else total,
            seconds=float(row["latency_us"]) * 1e-6,
            source=row["algo"],
        )


# Bytes of a value on its way to an expert, by the format of the products; sums come back in 16 bits.
_DISPATCHED = {"bfloat16": 2.0, "fp8": FORMATS["fp8"].bytes_per_value, "nvfp4": FORMATS["nvfp4"].bytes_per_value}


def expert_exchanges(folder: Path) -> Iterator[WireSample]:
    """Tokens sent to their experts and back ("experts"): TensorRT-LLM's NVLink kernels within an NVL72 domain, DeepEP's low-latency
    kernels within a board of eight. Payload as in `graph.expert_work`: a token goes once to each rank that has an expert of it."""
    for row in rows(folder, "moe_all_to_all_nvl72"):
        way = row["op_name"].removeprefix("alltoall_")
        if row["kernel_source"] != "NVLinkTwoSided" or way not in ("dispatch", "combine"):
            continue
        value_bytes = 2.0 if way == "combine" else _DISPATCHED[row["moe_dtype"]]
        ranks, seconds = int(row["moe_ep_size"]), float(row["latency_ms"]) * 1e-3
        yield _exchange(row, ranks, int(row["topk"]), int(row["num_tokens"]), value_bytes, seconds)
    for row in rows(folder, "deepep_low_latency"):
        if row["node_num"] != "1" or row["hardware"].startswith("gb"):
            continue
        for column, value_bytes in (("dispatch_avg_t_us", _DISPATCHED["fp8"]), ("combine_avg_t_us", 2.0)):
            yield _exchange(row, 8, int(row["num_topk"]), int(row["num_token"]), value_bytes, float(row[column]) * 1e-6)


def _exchange(row: dict[str, str], ranks: int, top_k: int, tokens: int, value_bytes: float, seconds: float) -> WireSample:
    return WireSample(
        hardware=row["hardware"], op="all_to_all", algorithm="experts", ranks=ranks,
        payload_bytes=tokens * ranks_reached(ranks, top_k) * int(row["hidden_size"]) * value_bytes, seconds=seconds,
        source=f"{row['engine']} {row['engine_version']}",
    )  # fmt: skip


# How the table names vLLM's custom kernels for ROCm, and RCCL; of RCCL only eight ranks were timed.
ROCM_CUSTOM, RCCL = "vLLM", "RCCL 2"


def rocm_collectives(folder: Path) -> Iterator[WireSample]:
    """All-reduces between MI300X: vLLM's custom kernels with 2 and 4 ranks, RCCL with 8 (one process, eager: some of its latency is
    the launch)."""
    path = folder / "amd_all_reduce.csv"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileError(
            f"cannot read the table {path}: {error.strerror or error}; give the folder that holds the tables."
        ) from None
    for row in csv.DictReader(text.splitlines()):
        name = "nccl" if row["backend"].startswith(RCCL) else "rocm" if row["backend"].startswith(ROCM_CUSTOM) else ""
        if name:
            yield WireSample(
                hardware="mi300x",
                op="all_reduce",
                algorithm=name,
                ranks=int(row["ranks"]),
                payload_bytes=float(row["bytes"]),
                seconds=float(row["latency_us"]) * 1e-6,
                source="AMD 0",
            )


def point_to_point(folder: Path) -> Iterator[WireSample]:
    """Sends between two GPUs of one node (vidur); the launch of an eager call is in them, and there is nothing better."""
    for row in rows(folder, "collectives"):
        if row["op"] != "send_recv" or "devices_per_node=2" not in row["notes"]:
            continue
        yield WireSample(
            hardware=row["hardware"],
            op="p2p",
            algorithm="nccl",
            ranks=2,
            payload_bytes=float(row["bytes"]),
            seconds=float(row["latency_us"]) * 1e-6,
            source=row["algo"] + " 0",
        )
