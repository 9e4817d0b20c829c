"""TensorRT-LLM 1.2 to 1.4: `trtllm-serve`, and the YAML file for what has no flag in all of these versions.

Attention-DP is all or nothing: every rank of a stage has its own sequences. Several nodes, or several GPUs under Slurm, start
one process a GPU through `trtllm-llmapi-launch` under MPI.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.launch import words as c
from advisor.launch.drafting import trtllm_config
from advisor.launch.layout import Span
from advisor.launch.script import Options
from advisor.launch.words import Command, Flag, refuse
from advisor.specs.model import ModelSpec
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.speculation import Speculation

VERSIONS = ("1.2", "1.3", "1.4")
PROGRAM = ("trtllm-serve",)
LAUNCHER = "trtllm-llmapi-launch"
HEALTH = "/health"
METRICS = "/prometheus/metrics"
REQUESTS_METRICS = ()
METRIC_NAMES: dict[str, str] = {}
BALANCER = "nginx"
ONLINE_FP8 = False
SPLIT_VARIABLE = ""
INSTALL = "tensorrt-llm=={version}"
CHECKS_KEY = False
KEY_EXPORTS = ()
KEY_LINES = ()
CONFIG_FLAG = Flag(name="--config", value=c.CONFIG, why="the settings that have no flag")
_CACHE = {"bf16": "auto", "fp16": "auto", "fp8": "fp8", "nvfp4": "nvfp4"}


def joins_replicas(model: ModelSpec, plan: Plan) -> bool:
    """Never: replicas are separate servers."""
    return False


def rank_order(plan: Plan) -> tuple[int, ...]:
    """The plan's own order: stage, attention-DP group, tp rank."""
    return tuple(range(plan.replica_gpus))


def serve(problem: Problem, plan: Plan, span: Span, *, ray: bool = False) -> Command:
    """The command of one server. Raises PlanError for what TensorRT-LLM cannot do."""
    if plan.adp > 1 and plan.tp > 1:
        raise refuse("trtllm", f"its attention-DP is on all ranks or none; use tp=1,adp={plan.stage_gpus}")
    if ray and span.nodes > 1:
        raise refuse("trtllm", "several nodes are started through MPI; leave out --ray")
    config = _config(problem, plan)
    return Command(
        program=(*PROGRAM, c.MODEL),
        flags=(
            Flag(name="--host", value=c.HOST),
            Flag(name="--port", value=c.PORT),
            *_degrees(plan, span),
            *_settings(problem, plan),
            *([CONFIG_FLAG] if config else []),
        ),
        config=config,
        per_rank=span.nodes > 1,
    )


def _degrees(plan: Plan, span: Span) -> list[Flag]:
    flags = []
    if plan.stage_gpus > 1:
        flags.append(Flag(name="--tp_size", value=str(plan.stage_gpus), why="all GPUs of a stage" if plan.adp > 1 else ""))
    if plan.pp > 1:
        flags.append(Flag(name="--pp_size", value=str(plan.pp)))
    if plan.ep > 1:
        flags.append(Flag(name="--ep_size", value=str(plan.ep), why="groups of GPUs that hold whole experts"))
    if span.nodes > 1:
        flags.append(Flag(name="--gpus_per_node", value=str(span.gpus_per_node)))
    return flags


def _settings(problem: Problem, plan: Plan) -> list[Flag]:
    settings = plan.settings
    if settings is None:
        return []
    chunked = Flag(name="--enable_chunked_prefill", why="long prompts share a step with decodes, as ranked")
    return [
        Flag(name="--max_seq_len", value=str(settings.max_context_tokens), why="longest prompt and answer together, in tokens"),
        Flag(name="--max_batch_size", value=str(settings.max_sequences), why="batch ceiling of each replica, as ranked"),
        Flag(name="--max_num_tokens", value=str(settings.token_budget), why="token budget of a step, as ranked"),
        *_memory(settings.memory_fraction),
        *([chunked] if problem.engine.scheduler.chunked_prefill else []),
    ]


def _memory(fraction: float) -> list[Flag]:
    why = "share of the memory that is free after the weights loaded"
    return [Flag(name="--free_gpu_memory_fraction", value=repr(fraction), why=why)] if fraction else []


def _config(problem: Problem, plan: Plan) -> dict[str, object]:
    model: ModelSpec = problem.model
    if model.kv_format not in _CACHE:
        raise refuse("trtllm", f"it has no {model.kv_format} cache; use bf16, fp8 or nvfp4 with --kv-dtype")
    config: dict[str, object] = {}
    if plan.adp > 1:
        config["enable_attention_dp"] = True
    graphs = min(problem.engine.graphs_up_to, plan.settings.max_sequences) if plan.settings else 0
    if graphs:
        # As predicted. By default graphs end at a batch of 128, and a batch between two sizes has none.
        config["cuda_graph_config"] = {"enable_padding": True, "max_batch_size": graphs}
    if plan.layer_split:
        config["pp_partition"] = list(plan.layer_split)
    if _CACHE[model.kv_format] != "auto":
        config["kv_cache_config"] = {"dtype": _CACHE[model.kv_format]}
    dtype = {"fp16": "float16", "fp32": "float32"}.get(model.weight_format)
    if dtype:
        config["dtype"] = dtype
    return config


def drafting(speculation: Speculation, command: Command, draft_model: str) -> Command:
    """The command with speculative decoding, which is a setting of the YAML file."""
    config = {**command.config, "speculative_config": trtllm_config(speculation, draft_model)}
    return replace(command, config=config, flags=command.flags if command.config else (*command.flags, CONFIG_FLAG))


def asked(options: Options, plan: Plan) -> list[Flag]:
    """What the user asked for beside the plan. Raises PlanError for what has no flag in TensorRT-LLM 1.2 to 1.4."""
    unknown = {
        "--served-name": options.served_name, "--lora": options.loras, "--kv-offload": options.kv_offload_gib,
        "--expert-backend": options.expert_backend, "--balance-experts": options.balance_experts,
    }  # fmt: skip
    if missing := [name for name, value in unknown.items() if value]:
        raise refuse("trtllm", f"{missing[0]} is written for vllm and sglang; leave it out")
    flags = []
    if options.tool_parser:
        flags.append(Flag(name="--tool_parser", value=options.tool_parser))
    if options.reasoning_parser:
        flags.append(Flag(name="--reasoning_parser", value=options.reasoning_parser))
    if options.trust_remote_code:
        flags.append(Flag(name="--trust_remote_code", why="asked for: runs Python code that comes with the checkpoint"))
    return flags
