"""SGLang 0.5.23: `sglang serve`.

`--tp-size` counts all ranks of a stage, attention-DP groups included. With attention-DP, SGLang divides
`--max-running-requests` and `--chunked-prefill-size` by the number of groups (server_args.py), so both are given as totals.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.launch import words as c
from advisor.launch.drafting import sglang_flags
from advisor.launch.layout import Span
from advisor.launch.script import Options
from advisor.launch.words import Command, Flag, refuse
from advisor.specs.model import ModelSpec
from advisor.specs.plan import Plan
from advisor.specs.problem import Problem
from advisor.specs.speculation import Speculation

VERSIONS = ("0.5.23",)
PROGRAM = ("sglang", "serve")
HEALTH = "/health"
METRICS = "/metrics"
REQUESTS_METRICS = ("sglang:num_running_reqs", "sglang:num_queue_reqs")
METRIC_NAMES = {  # docs.sglang.io, production metrics
    "ttft": "sglang:time_to_first_token_seconds",
    "tpot": "sglang:inter_token_latency_seconds",
    "tokens": "sglang:generation_tokens_total",
    "cache": "sglang:token_usage",
}
BALANCER = "sglang-router"
ONLINE_FP8 = True
SPLIT_VARIABLE = "SGLANG_PP_LAYER_PARTITION"
INSTALL = "sglang=={version}"
CHECKS_KEY = True
# A file that only the user can read: a process list shows every user the words of a command.
KEY_EXPORTS = ('[[ -z $API_KEY ]] || printf \'api-key: "%s"\\n\' "$API_KEY" >"$RUN_DIR/sglang.yaml"',)
KEY_LINES = ('[[ -z $API_KEY ]] || command+=(--config "$RUN_DIR/sglang.yaml")',)
_CACHE = {"bf16": "auto", "fp16": "auto", "fp8": "fp8_e4m3", "nvfp4": "nvfp4"}


def joins_replicas(model: ModelSpec, plan: Plan) -> bool:
    """Never: SGLang's documentation recommends its router over `--dp-size` for replicas."""
    return False


def rank_order(plan: Plan) -> tuple[int, ...]:
    """The plan's own order: stage, attention-DP group, tp rank."""
    return tuple(range(plan.replica_gpus))


def serve(problem: Problem, plan: Plan, span: Span, *, ray: bool = False) -> Command:
    """The command of one server. Raises PlanError for what SGLang cannot do."""
    model = problem.model
    if ray and span.nodes > 1:
        raise refuse("sglang", "it has no Ray mode here; leave out --ray")
    return Command(
        program=(*PROGRAM,),
        flags=(
            Flag(name="--model-path", value=c.MODEL),
            Flag(name="--host", value=c.HOST),
            Flag(name="--port", value=c.PORT),
            *_degrees(plan),
            *_nodes(span),
            *_settings(problem, plan),
            *_formats(model),
        ),
        env=((SPLIT_VARIABLE, ",".join(map(str, plan.layer_split))),) if plan.layer_split else (),
    )


def _degrees(plan: Plan) -> list[Flag]:
    flags = []
    if plan.stage_gpus > 1:
        flags.append(Flag(name="--tp-size", value=str(plan.stage_gpus), why="all GPUs of a stage" if plan.adp > 1 else ""))
    if plan.pp > 1:
        flags.append(Flag(name="--pp-size", value=str(plan.pp)))
    if plan.adp > 1:
        why = f"attention in {plan.adp} groups of {plan.tp}, each on its own sequences"
        flags.append(Flag(name="--attn-dp-size", value=str(plan.adp), why=why))
    if plan.ep > 1:
        flags.append(Flag(name="--ep-size", value=str(plan.ep), why="groups of GPUs that hold whole experts"))
    return flags


def _nodes(span: Span) -> list[Flag]:
    if span.nodes == 1:
        return []
    return [
        Flag(name="--nnodes", value=str(span.nodes)),
        Flag(name="--node-rank", value=c.NODE_RANK),
        Flag(name="--dist-init-addr", value=c.DIST_ADDRESS),
    ]


def _settings(problem: Problem, plan: Plan) -> list[Flag]:
    settings = plan.settings
    if settings is None:
        return []
    total = f"{plan.adp} groups together" if plan.adp > 1 else "as ranked"
    graphs = min(problem.engine.graphs_up_to, settings.max_sequences)
    return [
        Flag(name="--context-length", value=str(settings.max_context_tokens), why="longest prompt and answer together, in tokens"),
        Flag(name="--max-running-requests", value=str(settings.max_sequences * plan.adp), why=f"batch ceiling, {total}"),
        Flag(name="--chunked-prefill-size", value=str(settings.token_budget * plan.adp), why=f"token budget of a step, {total}"),
        *(
            [Flag(name="--cuda-graph-max-bs-decode", value=str(graphs), why="largest batch in a CUDA graph, as predicted")]
            if graphs
            else []
        ),
        *([Flag(name="--mem-fraction-static", value=repr(settings.memory_fraction))] if settings.memory_fraction else []),
    ]


def _formats(model: ModelSpec) -> list[Flag]:
    flags = []
    if c.needs_online_fp8(model):
        flags.append(Flag(name="--quantization", value="fp8", why="16-bit weights become fp8 while they load"))
    dtype = {"fp16": "float16", "fp32": "float32"}.get(model.weight_format)
    if dtype:
        flags.append(Flag(name="--dtype", value=dtype))
    if model.kv_format not in _CACHE:
        raise refuse("sglang", f"it has no {model.kv_format} cache; use bf16, fp8 or nvfp4 with --kv-dtype")
    if _CACHE[model.kv_format] != "auto":
        why = f"the plan was ranked with a {model.kv_format} cache"
        flags.append(Flag(name="--kv-cache-dtype", value=_CACHE[model.kv_format], why=why))
    return flags


def drafting(speculation: Speculation, command: Command, draft_model: str) -> Command:
    """The command with speculative decoding."""
    return replace(command, flags=(*command.flags, *sglang_flags(speculation, draft_model)))


def asked(options: Options, plan: Plan) -> list[Flag]:
    """What the user asked for beside the plan, and the metrics. Raises PlanError where SGLang cannot have it with this plan."""
    flags = [Flag(name="--enable-metrics", why="for Prometheus, at /metrics")]
    if options.served_name:
        flags.append(Flag(name="--served-model-name", value=options.served_name, why="what clients call the model"))
    if options.tool_parser:
        flags.append(Flag(name="--tool-call-parser", value=options.tool_parser, why=c.template_note(options.chat_template)))
    if options.reasoning_parser:
        flags.append(Flag(name="--reasoning-parser", value=options.reasoning_parser))
    if options.loras:
        first, *rest = options.loras
        why = "adapters, chosen by a request's model name; their memory is not in the prediction"
        flags += [Flag(name="--enable-lora"), Flag(name="--max-loras-per-batch", value=str(len(options.loras) + 1))]
        flags.append(Flag(name="--lora-paths", value=first, more=tuple(rest), why=why))
    if options.kv_offload_gib:
        flags += [
            Flag(name="--enable-hierarchical-cache", why="cache that the GPUs drop goes to host memory"),
            Flag(
                name="--hicache-size", value=str(max(1, round(options.kv_offload_gib / plan.replica_gpus))), why="GB for each rank"
            ),
        ]
    if (options.expert_backend or options.balance_experts) and plan.ep == 1:
        raise refuse("sglang", "an expert back end and expert balancing need expert parallelism; choose a plan with ep")
    if options.expert_backend:
        flags.append(Flag(name="--moe-a2a-backend", value=options.expert_backend, why="not what the prediction assumes"))
    if options.balance_experts:
        flags.append(Flag(name="--enable-eplb", why="popular experts are copied to ranks with room"))
    if options.trust_remote_code:
        flags.append(Flag(name="--trust-remote-code", why="asked for: runs Python code that comes with the checkpoint"))
    return flags
