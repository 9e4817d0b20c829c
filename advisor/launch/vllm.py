"""vLLM 0.33: `vllm serve`.

Rank order is data-parallel rank, stage, tp rank (the tp rank fastest). `--data-parallel-size` replicates a dense model but
shares the experts of an MoE model over all of its ranks, so replicas of an MoE model that share nothing are separate servers.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.launch import words as c
from advisor.launch.drafting import vllm_flags
from advisor.launch.layout import Span
from advisor.launch.script import Options
from advisor.launch.words import Command, Flag, refuse
from advisor.specs.model import ModelSpec
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.speculation import Speculation

VERSIONS = ("0.33",)
PROGRAM = ("vllm", "serve")
HEALTH = "/health"
METRICS = "/metrics"
REQUESTS_METRICS = ("vllm:num_requests_running", "vllm:num_requests_waiting")
METRIC_NAMES = {  # docs.vllm.ai, production metrics
    "ttft": "vllm:time_to_first_token_seconds",
    "tpot": "vllm:request_time_per_output_token_seconds",
    "tokens": "vllm:generation_tokens_total",
    "cache": "vllm:kv_cache_usage_perc",
}
BALANCER = "nginx"
ONLINE_FP8 = True
SPLIT_VARIABLE = "VLLM_PP_LAYER_PARTITION"
INSTALL = "vllm=={version}"
CHECKS_KEY = True  # vLLM reads VLLM_API_KEY itself
KEY_EXPORTS = ("[[ -z $API_KEY ]] || export VLLM_API_KEY=$API_KEY",)
KEY_LINES = ()
_CACHE = {"bf16": "auto", "fp16": "auto", "fp8": "fp8", "nvfp4": "nvfp4"}


def joins_replicas(model: ModelSpec, plan: Plan) -> bool:
    """Whether one server holds several replicas: dense models only, whose data-parallel ranks share nothing."""
    return not model.is_moe and plan.adp == 1


def rank_order(plan: Plan) -> tuple[int, ...]:
    """The plan's ranks of one replica in vLLM's order: an attention-DP rank holds all of its stages."""
    return tuple(
        (stage * plan.adp + group) * plan.tp + rank
        for group in range(plan.adp)
        for stage in range(plan.pp)
        for rank in range(plan.tp)
    )


def serve(problem: Problem, plan: Plan, span: Span, *, ray: bool = False) -> Command:
    """The command of one server. Raises PlanError for what vLLM cannot do."""
    model = problem.model
    if plan.adp > 1 and not model.is_moe:
        raise refuse(
            "vllm", f"adp={plan.adp} needs experts, its data-parallel ranks of a dense model are replicas; use dp={plan.adp}"
        )
    if plan.ep not in (1, plan.stage_gpus):
        raise refuse("vllm", f"ep={plan.ep} on {plan.stage_gpus} ranks; its expert parallelism is over all of them or none")
    return Command(
        program=(*PROGRAM, c.MODEL),
        flags=(
            Flag(name="--host", value=c.HOST),
            Flag(name="--port", value=c.PORT),
            *_degrees(plan, span),
            *_nodes(plan, span, ray=ray),
            *_settings(plan),
            *_formats(model),
        ),
        env=((SPLIT_VARIABLE, ",".join(map(str, plan.layer_split))),) if plan.layer_split else (),
        worker_flags=_worker_flags(plan, span, ray=ray),
    )


def _degrees(plan: Plan, span: Span) -> list[Flag]:
    flags = []
    if plan.tp > 1:
        flags.append(Flag(name="--tensor-parallel-size", value=str(plan.tp)))
    if plan.pp > 1:
        flags.append(Flag(name="--pipeline-parallel-size", value=str(plan.pp)))
    if plan.adp > 1:
        why = "attention on separate sequences in each rank, experts shared by all of them"
        flags.append(Flag(name="--data-parallel-size", value=str(plan.adp), why=why))
    elif span.replicas > 1:
        why = f"{span.replicas} replicas behind this one port, balanced by vLLM"
        flags.append(Flag(name="--data-parallel-size", value=str(span.replicas), why=why))
    if plan.ep > 1:
        flags.append(Flag(name="--enable-expert-parallel", why=f"whole experts, spread over all {plan.ep} GPUs of a stage"))
    return flags


def _local_ranks(plan: Plan, span: Span) -> int:
    """Attention-DP ranks on each node of a spanning server; 0 where a rank itself is larger than a node's share."""
    rank = plan.tp * plan.pp
    return span.gpus_per_node // rank if plan.adp > 1 and span.gpus_per_node % rank == 0 else 0


def _nodes(plan: Plan, span: Span, *, ray: bool) -> list[Flag]:
    if span.nodes == 1:
        return []
    local = _local_ranks(plan, span)
    if ray:
        if plan.adp > 1:
            raise refuse("vllm", "attention-DP over several nodes is not written for Ray; leave out --ray")
        return [
            Flag(name="--distributed-executor-backend", value="ray", why="the ranks are placed over the Ray cluster started below")
        ]
    if local:
        return [
            Flag(name="--data-parallel-size-local", value=str(local), why="data-parallel ranks on each node"),
            Flag(name="--data-parallel-address", value=c.HEAD_ADDRESS),
            Flag(name="--data-parallel-rpc-port", value=c.DIST_PORT),
        ]
    return [
        Flag(name="--nnodes", value=str(span.nodes)),
        Flag(name="--node-rank", value=c.NODE_RANK),
        Flag(name="--master-addr", value=c.HEAD_ADDRESS),
        Flag(name="--master-port", value=c.DIST_PORT),
    ]


def _worker_flags(plan: Plan, span: Span, *, ray: bool) -> tuple[Flag, ...]:
    if span.nodes == 1 or ray:
        return ()
    headless = Flag(name="--headless", why="no API server: only the head answers requests")
    if _local_ranks(plan, span):
        return (headless, Flag(name="--data-parallel-start-rank", value=c.START_RANK))
    return (headless,)


def _settings(plan: Plan) -> list[Flag]:
    settings = plan.settings
    if settings is None:
        return []
    if settings.token_budget < settings.max_sequences:
        raise refuse("vllm", f"a token budget of {settings.token_budget} is below its {settings.max_sequences} sequences")
    return [
        Flag(name="--max-model-len", value=str(settings.max_context_tokens), why="longest prompt and answer together, in tokens"),
        Flag(name="--max-num-seqs", value=str(settings.max_sequences), why="batch ceiling of each replica, as ranked"),
        Flag(name="--max-num-batched-tokens", value=str(settings.token_budget), why="token budget of a step, as ranked"),
        *([Flag(name="--gpu-memory-utilization", value=repr(settings.memory_fraction))] if settings.memory_fraction else []),
    ]


def _formats(model: ModelSpec) -> list[Flag]:
    flags = []
    if c.needs_online_fp8(model):
        flags.append(Flag(name="--quantization", value="fp8", why="16-bit weights become fp8 while they load"))
    dtype = {"fp16": "float16", "fp32": "float32"}.get(model.weight_format)
    if dtype:
        flags.append(Flag(name="--dtype", value=dtype))
    if model.kv_format not in _CACHE:
        raise refuse("vllm", f"it has no {model.kv_format} cache; use bf16, fp8 or nvfp4 with --kv-dtype")
    if _CACHE[model.kv_format] != "auto":
        why = f"the plan was ranked with a {model.kv_format} cache"
        flags.append(Flag(name="--kv-cache-dtype", value=_CACHE[model.kv_format], why=why))
    return flags


def drafting(speculation: Speculation, command: Command, draft_model: str) -> Command:
    """The command with speculative decoding."""
    return replace(command, flags=(*command.flags, *vllm_flags(speculation, draft_model)))


def asked(options: Options, plan: Plan) -> list[Flag]:
    """What the user asked for beside the plan. Raises PlanError where vLLM cannot have it with this plan."""
    flags = []
    if options.served_name:
        flags.append(Flag(name="--served-model-name", value=options.served_name, why="what clients call the model"))
    if options.tool_parser:
        note = c.template_note(options.chat_template)
        flags.append(Flag(name="--enable-auto-tool-choice"))
        flags.append(Flag(name="--tool-call-parser", value=options.tool_parser, why=note))
    if options.reasoning_parser:
        flags.append(Flag(name="--reasoning-parser", value=options.reasoning_parser))
    if options.loras:
        first, *rest = options.loras
        why = "adapters, chosen by a request's model name; their memory is not in the prediction"
        flags += [Flag(name="--enable-lora"), Flag(name="--max-loras", value=str(len(options.loras)))]
        flags.append(Flag(name="--lora-modules", value=first, more=tuple(rest), why=why))
    if options.kv_offload_gib:
        why = "GiB of host memory, all ranks together, for cache that the GPUs drop"
        flags.append(Flag(name="--kv-offloading-size", value=f"{options.kv_offload_gib:g}", why=why))
    if (options.expert_backend or options.balance_experts) and plan.ep == 1:
        raise refuse("vllm", "an expert back end and expert balancing need expert parallelism; choose a plan with ep")
    if options.expert_backend:
        flags.append(Flag(name="--all2all-backend", value=options.expert_backend, why="not what the prediction assumes"))
    if options.balance_experts:
        flags.append(Flag(name="--enable-eplb", why="popular experts are copied to ranks with room"))
    if options.trust_remote_code:
        flags.append(Flag(name="--trust-remote-code", why="asked for: runs Python code that comes with the checkpoint"))
    return flags
