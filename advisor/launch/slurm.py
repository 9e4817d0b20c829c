"""One sbatch file: the batch host starts a job step for each server, waits for them, and balances where there are several."""

from __future__ import annotations

from advisor.launch import shell as sh
from advisor.launch import words as c
from advisor.launch.bash import (
    RESTART_BALANCER,
    access_variables,
    config_lines,
    exports,
    helpers,
    model_variable,
    pcie_hint,
    refusals,
    secure_flags,
    time_variables,
)
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile, header
from advisor.launch.template import lines
from advisor.launch.words import Raw, Variable, Word

NAME = "job.sbatch"
SCHEME = "scheme=http${TLS_CERT:+s}"
LOCAL: dict[Variable, Word] = {
    c.PORT: Variable("port"),
    c.HEAD_ADDRESS: Variable("head"),
    c.DIST_PORT: Variable("dist_port"),
    c.DIST_ADDRESS: Raw('"$head:$dist_port"'),
    c.CONFIG: Raw('"$RUN_DIR/trtllm.yaml"'),
}


def render(request: Request) -> tuple[ScriptFile, ...]:
    """The batch file of the plan."""
    use = [
        f"Use: sbatch {NAME}; its log says when the servers answer, and where. scancel ends it.",
        "Variables go along: sbatch --export=ALL,MODEL=/data/model job.sbatch",
        "A gated model takes its token from HF_TOKEN in the environment; it is never written here.",
    ]
    opening = header(request.problem, request.prediction, what="Start", use=use)
    text = lines(
        "job.sbatch.sh", opening=sh.comment(opening), directives=_directives(request), variables=_variables(request),
        start_server=_start_server(request), balancer=_balancer(request), helpers=helpers(request),
        traps=lines("traps.sh"), checks=_checks(request), environment=_environment(request), config=config_lines(request),
        calls=_calls(request), until_ready=_until_ready(request), until_end=lines("until_end.sh"),
    )  # fmt: skip
    return (ScriptFile(name=NAME, text="\n".join([*text, ""])),)


def _directives(request: Request) -> list[str]:
    tasks = 1
    if _tasks(request):
        tasks = max(sum(len(s.gpus[0]) for s in request.servers if node in s.nodes) for node in range(request.nodes))
    gpus = request.problem.cluster.node.gpus_per_host
    return lines("slurm_directives.sh", name=request.name, nodes=request.nodes, tasks=tasks, gpus=gpus)


def _tasks(request: Request) -> bool:
    """Whether a step runs a task for each GPU: TensorRT-LLM with more than one, under Slurm."""
    return request.problem.engine.name == "trtllm" and sum(map(len, request.servers[0].gpus)) > 1


def _variables(request: Request) -> list[str]:
    ports = f"the {len(request.servers)} servers take the ports after it" if request.balanced else ""
    found = [
        *model_variable(request),
        sh.setting("PORT", str(request.options.port), ports),
        sh.setting("LISTEN", "0.0.0.0", "the network reaches the job's node; with API_KEY only who has the key may use it"),
        *access_variables(),
        sh.setting("IMAGE", request.options.image, "an image for pyxis (--container-image); empty: the engine is on the nodes"),
        "HF_HOME=${HF_HOME:-$HOME/.cache/huggingface} # where the weights are kept, on every node",
    ]
    if request.spans and not request.command.per_rank:
        found.append(sh.setting("DIST_PORT", "29500", "where the nodes meet"))
    if request.spans:
        found.append(sh.setting("IFNAME", "", "network interface between the nodes; empty: NCCL chooses"))
    return [
        *found,
        *time_variables(request),
        'RUN_DIR=${RUN_DIR:-"${SLURM_SUBMIT_DIR:-$PWD}/run-${SLURM_JOB_ID:-0}"} # logs, on storage that all nodes share',
    ]


def _start_server(request: Request) -> list[str]:
    what = "server number, its GPUs in rank order, its nodes" + (", address of its head" if request.spans else "")
    port = "$((PORT + 1 + server))" if request.balanced else "$PORT"
    found = [f"start_server() {{ # {what}", "  local server=$1 gpus=$2 nodes=$3", f"  local port={port}"]
    if request.spans and not request.command.per_rank:
        found.append("  local head=$4 dist_port=$((DIST_PORT + 10 * server))")
    host = Raw("0.0.0.0") if request.balanced else Variable("LISTEN")
    command = request.bound({**LOCAL, c.HOST: host})
    # Each task fills in its own rank.
    flags = tuple(flag for flag in command.flags if flag.value != c.NODE_RANK)
    found += pcie_hint(request)
    found += sh.array("command", type(command)(program=command.program, flags=flags))
    mpi = ["--mpi=pmix # TensorRT-LLM's ranks find each other through MPI"] if _tasks(request) else []
    tasks, count = len(request.servers[0].gpus[0]) if _tasks(request) else 1, len(request.servers[0].nodes)
    found += sh.indented(secure_flags(request))
    if not request.spans:
        found.append('  RESTART["server-$server"]="start_server $*"')
    found += sh.indented(lines("slurm_step.sh", nodes=count, all_tasks=count * tasks, tasks=tasks, mpi=mpi))
    return [*found, *_step(request), "}"]


def _step(request: Request) -> list[str]:
    if _tasks(request):
        launch = 'srun "${step[@]}" env CUDA_VISIBLE_DEVICES="$gpus" trtllm-llmapi-launch "${command[@]}"'
        return [f'  run "server-$server" {launch}']
    if not request.spans:
        return [f'  run "server-$server" srun "${{step[@]}}" env {request.vendor.visible}="$gpus" "${{command[@]}}"']
    inner = []
    if request.problem.engine.name == "vllm":
        inner.append('VLLM_HOST_IP=$(getent ahostsv4 "$SLURMD_NODENAME" | { read -r address _; echo "$address"; })')
        inner.append("export VLLM_HOST_IP # each node its own; vLLM may pick the wrong interface")
    if any(flag.value == c.START_RANK for flag in request.command.worker_flags):
        inner.append(
            f'((SLURM_PROCID == 0)) || set -- "$@" --headless --data-parallel-start-rank $(({request.ranks_a_node} * SLURM_PROCID))'
        )
    elif request.command.worker_flags:
        inner.append('((SLURM_PROCID == 0)) || set -- "$@" --headless # no API server: only the head answers requests')
    ranked = any(flag.value == c.NODE_RANK for flag in request.command.flags)
    inner.append('exec "$@"' + (' --node-rank "$SLURM_PROCID"' if ranked else ""))
    return sh.indented(lines("slurm_rank.sh", visible=Raw(request.vendor.visible), rank=inner))


def _balancer(request: Request) -> list[str]:
    if not request.balanced:
        return []
    if request.engine.BALANCER == "nginx":
        run = ['run balancer nginx -p "$RUN_DIR" -c nginx.conf -e stderr']
        return [*lines("balancer_nginx.sh", pid="nginx.pid", folder="tmp", restart=RESTART_BALANCER, run_nginx=run), ""]
    router = [
        "export API_KEY",
        'run balancer srun --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" --overlap ${IMAGE:+--container-image="$IMAGE"} \\',
        '  python3 "${command[@]}"',
    ]
    return [*lines("balancer_router.sh", start=lines("router.python"), restart=RESTART_BALANCER, run_router=router), ""]


def _checks(request: Request) -> list[str]:
    nginx = request.balanced and request.engine.BALANCER == "nginx"
    found = [] if request.checkpoint else [sh.required("MODEL", request.wanted)]
    return found + lines(
        "slurm_checks.sh", refusals=refusals(request, launcher=_tasks(request)), nodes=request.nodes, gpus=request.gpus_needed,
        program=request.engine.PROGRAM[0], install=f"{request.install}, or set IMAGE",
        balancer=["check_program nginx 'install it with the package manager'"] if nginx else [],
    )  # fmt: skip


def _environment(request: Request) -> list[str]:
    found = exports(request)
    if request.spans:
        found.append("[[ -z $IFNAME ]] || export NCCL_SOCKET_IFNAME=$IFNAME GLOO_SOCKET_IFNAME=$IFNAME")
    return [*found, *lines("slurm_mounts.sh")]


def _calls(request: Request) -> list[str]:
    found = []
    for server in request.servers:
        nodes = ",".join(f"${{hosts[{node}]}}" for node in server.nodes)
        head = f' "${{hosts[{server.nodes[0]}]}}"' if request.spans and not request.command.per_rank else ""
        found.append(f'start_server {server.index} {request.gpu_list(server, 0)} "{nodes}"{head}')
    return found


def _until_ready(request: Request) -> list[str]:
    health = request.engine.HEALTH
    if not request.balanced:
        end = f"$scheme://${{hosts[{request.servers[0].nodes[0]}]}}:$PORT"
        return [SCHEME, f'wait_ready "{end}{health}"', f'say "ready: {end}/v1"']
    ends = [f"${{hosts[{s.nodes[0]}]}}:$((PORT + {s.index + 1}))" for s in request.servers]
    return [
        *(f'wait_ready "http://{end}{health}"' for end in ends),
        "start_balancer " + " ".join(f'"{end}"' for end in ends),
        SCHEME,
        f'wait_ready "$scheme://127.0.0.1:$PORT{health}"',
        'say "ready: $scheme://${hosts[0]}:$PORT/v1"',
    ]
