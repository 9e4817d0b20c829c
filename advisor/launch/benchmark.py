"""The script that loads the server as the workload says, and leaves a result file for `advisor compare`."""

from __future__ import annotations

from advisor.errors import QuestionError
from advisor.launch import shell as sh
from advisor.launch.bash import model_variable
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile, figures, load_words, plan_line
from advisor.launch.template import lines
from advisor.launch.words import Raw, quoted
from advisor.specs.workload import Workload

NAME = "bench.sh"
TOOLS = ("vllm", "aiperf")
REQUESTS_PER_USER = 10  # what public serving benchmarks run in a closed loop (InferenceX recipe)
LEAST_REQUESTS = 20
OPEN_LOOP_REQUESTS = 200


def render(request: Request) -> ScriptFile:
    """The benchmark with `vllm bench serve` or aiperf, whichever the options say."""
    tool = request.options.load_tool
    if tool not in TOOLS:
        raise QuestionError(f"unknown load tool {tool!r}; use {' or '.join(TOOLS)}.")
    load = request.problem.workload
    users, requests = load_size(load, request.prediction.sequences)
    name = request.problem.model.name
    top = [
        f"Load the server as the plan was ranked: {load_words(request.problem)}.",
        "Predicted:",
        *(f"  {line}" for line in figures(request.prediction)),
        "",
        f"Use: ./{NAME}, with the server running; then `advisor compare RESULT.json`, which it prints, with the options",
        f"of the question. Model: {''.join(ch for ch in name if ch.isprintable())}",
        "",
        plan_line(request.plan),
    ]
    variables = model_variable(request)
    variables.append(sh.setting("URL", f"http://127.0.0.1:{request.options.port}", "where the server answers"))
    variables.append("API_KEY=${API_KEY:-${VLLM_API_KEY:-}}      # what the server asks for, from the environment")
    if load.mode == "open_loop":
        variables.append(sh.setting("RATE", repr(float(load.rate_per_s)), "requests per second that arrive"))
    elif load.mode != "offline":
        variables.append(sh.setting("USERS", str(users), "requests kept in flight"))
    variables.append(sh.setting("REQUESTS", str(requests), "in all"))
    variables.append(sh.setting("OUT", "bench-result", "folder of the result"))
    write = _vllm if tool == "vllm" else _aiperf
    text = write(load, request.options.served_name, opening=sh.comment(top), variables=variables)
    return ScriptFile(name=NAME, text="\n".join([*text, ""]), executable=True)


def load_size(load: Workload, sequences: float) -> tuple[int, int]:
    """Requests in flight and in all: the workload's own, or what the prediction keeps in flight."""
    if load.mode == "open_loop":
        return 0, load.requests or OPEN_LOOP_REQUESTS
    users = load.users if load.mode in ("closed_loop", "static_batch", "single_stream") else max(1, round(sequences))
    if load.mode == "static_batch":
        return users, users
    return users, load.requests or max(LEAST_REQUESTS, REQUESTS_PER_USER * users)


def _lengths(load: Workload) -> tuple[int, int, int]:
    """Own prompt tokens, shared prefix tokens, output tokens."""
    prefix = round(load.prefix_cached_tokens)
    return max(1, round(load.input_tokens) - prefix), prefix, max(1, round(load.output_tokens))


def _vllm(load: Workload, served_name: str, *, opening: list[str], variables: list[str]) -> list[str]:
    own, prefix, out = _lengths(load)
    spread = (1 - load.length_spread) / (1 + load.length_spread)
    pace = {"open_loop": ['--request-rate "$RATE"'], "offline": ["--request-rate inf"]}.get(
        load.mode, ['--request-rate inf --max-concurrency "$USERS"']
    )
    middle = (1 + load.length_spread) / 2
    lengths = [f"--random-prefix-len {prefix} # found in the prefix cache"] if prefix else []
    if spread:
        lengths.append(f"--random-range-ratio {spread:.4g} # lengths drawn uniformly around the middle")
    return lines(
        "bench_vllm.sh", opening=opening, variables=variables, input_tokens=max(1, round(own * middle)),
        output_tokens=max(1, round(out * middle)), lengths=lengths, pace=pace,
        served_name=[f"--served-model-name {quoted(served_name)}"] if served_name else [],
    )  # fmt: skip


def _aiperf(load: Workload, served_name: str, *, opening: list[str], variables: list[str]) -> list[str]:
    own, prefix, out = _lengths(load)
    middle = (1 + load.length_spread) / 2
    deviation = (1 - load.length_spread) / 12**0.5  # of a uniform draw
    pace = {"open_loop": ['--request-rate "$RATE"']}.get(load.mode, ['--concurrency "$USERS"'])
    if load.mode == "offline":
        pace = ['--concurrency "$REQUESTS" # everything queued at once']
    shared = [f"--num-prefix-prompts 1 --prefix-prompt-length {prefix} # found in the prefix cache"] if prefix else []
    return lines(
        "bench_aiperf.sh", opening=opening, variables=variables, input_tokens=round(own * middle),
        input_spread=round(own * deviation), output_tokens=round(out * middle), output_spread=round(out * deviation),
        prefix=shared, pace=pace, model=Raw(quoted(served_name) if served_name else '"$MODEL"'),
        tokenizer=['--tokenizer "$MODEL"'] if served_name else [],
    )  # fmt: skip
