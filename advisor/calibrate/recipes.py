"""How published benchmarks started their engines, where it is known and not the default, and the runs of which it is not."""

from __future__ import annotations

from dataclasses import replace

from advisor.calibrate.points import INFERENCEX, INFERENCEX_LENGTHS, Point
from advisor.specs.cluster import Device
from advisor.specs.engine import Engine

# InferenceX starts SGLang on Blackwell with --scheduler-recv-interval 10, from 16 users on 30: its scheduler looks for requests
# that rarely.
SGLANG_POLLING = (10, 30)
SGLANG_POLLING_USERS = 16
# Its DeepSeek-R1 on TensorRT-LLM: max_num_tokens of one and a little prompts beside the batch (ISL * 1.85 + batch, in 64s); with
# attention-DP a step with prompts waits for one on every rank, up to 60 steps (attention_dp_config: timeout_iters).
TRTLLM_PROMPTS = 1.85
TRTLLM_WAIT_STEPS = 60
# Its gpt-oss on Blackwell: vLLM with VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8=1, which by itself keeps 16-bit activations there.
VLLM_MXFP8 = (("10", "mxfp4", "mxfp4-mxfp8"),)
# Rows that ran under conditions they do not state, by engine, version and model. They are scored and shown, but neither fitted nor
# counted in the headlines.
_SPECULATIVE = "speculative decoding: half the TPOT of the same plan, load and engine without it"
_ONE_PROMPT = "one prompt repeated: faster than reading the experts that so many random tokens choose"
UNSTATED = {
    ("vllm", "0.12.0", "Qwen/Qwen3-235B-A22B-FP8"): "TPOT twice that of SGLang with the same kernels",
    ("vllm", "0.12.0", "nvidia/Llama-3.1-8B-Instruct-FP8"): "more prompt tokens/s than the tensor cores reach: a prefix cache",
    ("sglang", "2025", "deepseek-ai/DeepSeek-R1"): "TTFT of 5 to 9 s at any load: kernels compiled inside the run",
    ("trtllm", "1.2.0rc6.post3", "deepseek-ai/DeepSeek-R1"): _SPECULATIVE,
    ("trtllm", "1.1.0rc2.post2", "deepseek-ai/DeepSeek-R1"): _SPECULATIVE,
    ("trtllm", "1.3.0rc1", "nvidia/DeepSeek-R1-NVFP4"): "TPOT of 85 ms at any plan and load: something else than the GPU",
    ("trtllm", "2024", "mistralai/Mixtral-8x7B-v0.1"): _ONE_PROMPT,
    ("trtllm", "0.12.0", "mistralai/Mixtral-8x7B-v0.1"): _ONE_PROMPT,
}


# Qwen publishes its fp8 checkpoints in blocks of 128 x 128 (model cards of Qwen3-*-FP8 and Qwen3.5-*-FP8); NVIDIA's for
# TensorRT-LLM have one scale a tensor.
BLOCK_FP8 = ("Qwen/Qwen3",)


def stored_format(point: Point) -> str:
    """The weight format of a row; "" is the checkpoint's own."""
    if point.weight_dtype == "fp8" and point.engine in ("vllm", "sglang") and point.model.startswith(BLOCK_FP8):
        return "fp8-block"
    return point.weight_dtype


def unstated(point: Point) -> str:
    """What keeps a row out of fits and headlines: speculation that its run's recipe states, or what its figures show and its
    columns do not; "" where nothing is known to be missing."""
    if point.speculation not in ("", "none"):
        return f"speculative decoding: {point.speculation}"
    return UNSTATED.get((point.engine, point.engine_version, point.model), "")


def as_started(engine: Engine, point: Point, device: Device) -> Engine:
    """The engine with what the row's recipe set; itself where the defaults were used."""
    load = point.workload
    if point.source != INFERENCEX or (load.input_tokens, load.output_tokens) not in INFERENCEX_LENGTHS:
        return engine
    if point.engine == "sglang" and device.architecture == "blackwell":
        return replace(engine, polling_steps=SGLANG_POLLING[load.users >= SGLANG_POLLING_USERS])
    if point.engine == "vllm" and point.weight_dtype == "mxfp4":
        return replace(engine, experts_as=VLLM_MXFP8)
    if point.engine == "trtllm" and "DeepSeek-R1" in point.model:
        batch = load.users / point.plan.adp
        budget = int(TRTLLM_PROMPTS * load.input_tokens + batch + 127) // 64 * 64
        return replace(engine, token_budget=budget, polling_steps=TRTLLM_WAIT_STEPS if point.plan.adp > 1 else 1)
    return engine
