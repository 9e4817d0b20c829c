"""A serving engine, one version: what it can split, how it spends host time, schedules, admits and fills memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from advisor.specs.calibration import Spread
from advisor.specs.keys import ScaleKey
from advisor.specs.plan import SplitRule


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTime:
    """CPU time around a step, in seconds, fitted on published points.

    A step costs the host `step_s` + `sequence_s` * B (scheduling, input preparation, sampling, detokenisation), `context_s` for
    each cached token of the batch (block tables), `ranks_s` where a stage has several ranks (inputs sent to their processes), and
    `prefill_s` more when it carries a prefill chunk (eager launches, attention metadata). The share `overlap` of it runs beside
    the GPU, the rest adds. `request_s` is paid once a request before its first token (HTTP, tokeniser, first scheduling) and
    `admit_s` is the part of it that one request makes the next wait for; both stretch by 1 / (1 - `token_s` * tokens per second)
    because the same process streams the tokens out. `wait_steps` of the running batch pass before a new request is seen
    (asynchronous scheduling). `kernel_s` is the launch of one kernel outside a CUDA graph. `stage_s` is what each boundary between
    pipeline stages adds to the way of a token beside the transfer: from the end of one stage's kernels to the launch of the next's.
    """

    step_s: float
    sequence_s: float
    request_s: float
    overlap: float
    kernel_s: float
    admit_s: float = 0.0
    token_s: float = 0.0
    wait_steps: float = 0.0
    prefill_s: float = 0.0
    context_s: float = 0.0
    ranks_s: float = 0.0
    stage_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRule:
    """How the engine turns a GPU's memory into KV cache.

    `of` "total" (vLLM): KV = total * fraction - weights - activations - other. "free" (TensorRT-LLM): KV = (free after weights,
    activations and other) * fraction. "static" (SGLang): weights + KV = total * fraction, activations and graphs live in the rest.
    `fraction` 0 is the engine's own choice, (M2) of docs/physics.md with `reserve_bytes_per_token` for each token of a step. Other:
    `context_bytes` (CUDA context, allocator), `collective_bytes` a rank in a group, `graph_bytes`. Activations
    peak at `logit_copies` fp32 logits of all sequences plus `hidden_copies` hidden rows a token beside the widest inner row.
    """

    of: Literal["total", "free", "static"]
    fraction: float
    context_bytes: float
    collective_bytes: float
    graph_bytes: float
    logit_copies: float
    hidden_copies: float
    reserve_bytes_per_token: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallGpu:
    """The engine's defaults on GPUs of less than `below_bytes`, and on those whose name begins with one of `names`."""

    below_bytes: float
    max_sequences: int
    token_budget: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """How the engine chooses what a step carries: a family of rules (one file each in `serving/schedulers`) and its parameters.

    `chunked_prefill`: a prompt longer than what a step's token budget leaves is cut. `mixed_steps` False: a step with prompts
    carries no decodes (vLLM before v1, SGLang, engines with one static batch). vLLM: `reserve_prompt` admits only where blocks for
    the whole prompt are free, `watermark` is the share of blocks that an admission leaves free. SGLang: `max_prefill_tokens`
    bounds a prefill batch beside the chunk. TensorRT-LLM: `guaranteed_no_evict` reserves prompt and output of every request, else
    (MAX_UTILIZATION) requests are admitted by what they need now and paused when the cache is full. `prefix_cache`: blocks of ended
    requests are found again by prompts that begin the same.
    """

    family: Literal["vllm", "sglang", "trtllm", "slots"]
    chunked_prefill: bool
    mixed_steps: bool
    reserve_prompt: bool = True
    watermark: float = 0.0
    max_prefill_tokens: int = 0
    prefix_cache: bool = False
    guaranteed_no_evict: bool = True

    @property
    def reserves_output(self) -> bool:
        """Whether a request is admitted only where its whole output fits, and is never preempted."""
        return self.family == "slots" or (self.family == "trtllm" and self.guaranteed_no_evict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine profile. `axes` are the degrees it can use; `version` is the year whose releases it stands for.

    `graphs_up_to` is the largest decode batch in a CUDA graph (0: eager). `fused_elementwise` scales the memory passes and
    kernels of norms, activations and RoPE that the engine does not fuse away. Every `polling_steps` the scheduler looks for new
    requests.
    Prompts pass through pipeline stages in pieces of `piece_tokens` (0: whole). `all_reduces` are its own all-reduce kernels beside
    NCCL's: "custom" (one- and two-shot through peer memory, vLLM's and SGLang's), "rocm" (the same on AMD), "lamport"
    (TensorRT-LLM's; FlashInfer has them).

    `experts_as` names experts that the engine computes otherwise than their format says: (major compute capability, stored
    format, format computed in). mxfp4 experts are multiplied with mxfp8 activations where an engine quantises them itself.

    On the architectures of `paged_kernels_on` its decode attention has a block for every query head, which reads the cache once
    for each of them (vLLM's PagedAttention kernels: no FlashAttention there).

    What it can split: `expert_degrees` are one expert group or one for every rank ("one_or_all"), or any divisor of the ranks
    ("divisors"); `attention_dp` in groups of several tp ranks ("groups") or of one each ("all_ranks"); `uneven_layers` says
    whether stages may be given layers one by one; the kernels of the formats `whole_blocks` refuse a shard that cuts a block of
    scales (vLLM issues 54178 and 52997), others pad it.

    `scales` multiply parts of a step in this engine against the bare kernels: "decode", "prefill", "collective", "experts",
    "attention" (in decode), and what an architecture or a format on it adds ("prefill/blackwell", "prefill/blackwell/fp8"), or a
    device whose kernels nobody measured ("prefill/mi300x", also "host/mi300x"): all names that match multiply.
    "attention/unsplit" is that of paged kernels on large batches. `fitted_on` names the devices whose rows were fitted,
    `fitted_families` the families of models (`ModelSpec.family`). `spreads` are the residuals of rows left out of the fit by figure
    and closeness ("tpot/fitted", "tpot/lent", "tpot/device", "tpot/family", "tpot/default"), and of each family or of families
    left out ("tpot/fitted/MoE", "tpot/fitted/unseen"). `image` is its container for NVIDIA GPUs, `rocm_images` those for AMD's by
    the beginning of their target (gfx942). `source` says where the figures are from.
    """

    name: str
    version: str
    axes: tuple[str, ...]
    host: HostTime
    memory: MemoryRule
    page_tokens: int
    scheduler: Scheduler
    max_sequences: int
    token_budget: int
    graphs_up_to: int
    fused_elementwise: float
    all_reduces: tuple[str, ...]
    source: str
    layer_split: SplitRule = "last_spared"
    expert_degrees: Literal["one_or_all", "divisors"] = "divisors"
    attention_dp: Literal["groups", "all_ranks"] = "groups"
    uneven_layers: bool = False
    whole_blocks: tuple[str, ...] = ("fp8-block", "int4", "nvfp4")
    polling_steps: int = 1
    piece_tokens: int = 0
    paged_kernels_on: tuple[str, ...] = ()
    experts_as: tuple[tuple[str, str, str], ...] = ()
    small_gpu: SmallGpu | None = None
    scales: tuple[tuple[ScaleKey, float], ...] = ()
    spreads: tuple[tuple[str, Spread], ...] = ()
    fitted_on: tuple[str, ...] = ()
    fitted_families: tuple[str, ...] = ()
    points: int = 0
    residual_median: float | None = None
    residual_p90: float | None = None
    flags_version: str = ""
    image: str = ""
    rocm_images: tuple[tuple[str, str], ...] = ()
