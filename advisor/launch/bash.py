"""One bash script for machines that have the engine installed: run it on the node, or on each of several."""

from __future__ import annotations

from advisor.errors import QuestionError
from advisor.launch import shell as sh
from advisor.launch import words as c
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile, header
from advisor.launch.words import quoted

NAME = "start.sh"


def render(request: Request) -> tuple[ScriptFile, ...]:
    """The script that starts every server of the plan on the node it runs on."""
    if request.options.ray and request.spans and request.balanced:
        raise QuestionError("--ray is written for one replica over several nodes; leave it out for this plan.")
    lines = ["#!/usr/bin/env bash", *sh.comment(header(request.problem, request.prediction, what="Start", use=use(request, NAME)))]
    lines += ["set -euo pipefail", "", *_variables(request), ""]
    lines += [sh.HELPERS.replace("\n  @AFTER_STOP@", ""), "", *start_server(request, _run_lines(request)), ""]
    if request.balanced:
        lines += [*_balancer(request), ""]
    if _ray(request):
        lines += [*_ray_functions(request), ""]
    lines += ["# ---- start, stop, or nothing to do", sh.LOCK, "", *_main(request), ""]
    return (ScriptFile(name=NAME, text="\n".join(lines), executable=True),)


def use(request: Request, name: str) -> list[str]:
    """How the script is used."""
    if request.command.per_rank:
        where = [f"Use, on the first of {request.nodes} nodes only; the others need ssh without a password, and the engine:"]
    elif request.nodes > 1:
        where = [f"Use, on each of {request.nodes} nodes:"]
    else:
        where = ["Use:"]
    prefix = 'HOSTS="10.0.0.1 10.0.0.2" ' if request.nodes > 1 else ""
    prefix += "NODE_RANK=0 " if request.nodes > 1 and not request.command.per_rank else ""
    return [
        *where,
        f"  {prefix}./{name}        starts, waits until it answers, and stays; Ctrl-C stops all of it",
        f"  {prefix}./{name} stop   stops it from another terminal",
        "A gated model takes its token from HF_TOKEN in the environment; it is never written here.",
    ]


def model_variable(request: Request) -> list[str]:
    """MODEL with its default, or the demand to set it."""
    if request.checkpoint:
        return [sh.setting("MODEL", request.checkpoint, "a model id of the hub, or a folder")]
    return [sh.required("MODEL", request.wanted)]


def node_variables(request: Request) -> list[str]:
    """What a script on several nodes has to be told."""
    if request.nodes == 1:
        return []
    lines = [sh.required("HOSTS", f'the addresses of the {request.nodes} nodes, in order: HOSTS="10.0.0.1 10.0.0.2"')]
    if not request.command.per_rank:
        lines.append(sh.required("NODE_RANK", f"the place of this node in HOSTS, 0 to {request.nodes - 1}"))
    if request.spans:
        if not request.command.per_rank:
            lines.append(sh.setting("DIST_PORT", "29500", "where the nodes meet"))
        lines.append(sh.setting("IFNAME", "", "network interface between the nodes; empty: the one that routes to them"))
    return lines


def _variables(request: Request) -> list[str]:
    port = str(request.options.port)
    run = '"$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/run"'
    ports = f"the {len(request.servers)} servers take the ports after it" if request.balanced else ""
    per_node = request.nodes > 1 and not request.command.per_rank
    return [
        "# ---- what you may change, here or in the environment",
        *model_variable(request),
        sh.setting("PORT", port, ports),
        sh.setting("LISTEN", "0.0.0.0", "127.0.0.1 to serve this machine only"),
        *node_variables(request),
        sh.setting("READY_SECONDS", "3600", "how long loading may take"),
        sh.setting("STOP_SECONDS", "60", "how long stopping may take before it is forced"),
        f"RUN_DIR=${{RUN_DIR:-{run}}}{'-$NODE_RANK' if per_node else ''} # logs, lock",
        *(["SSH_PORT=${SSH_PORT:-22}"] if request.command.per_rank else []),
        "ANSWER=${LISTEN/#0.0.0.0/127.0.0.1} # where this machine finds it",
    ]


def start_server(request: Request, run_lines: list[str]) -> list[str]:
    """The function that starts one server, and what it needs to know about it."""
    several = request.balanced
    what = "server number, its GPUs in rank order" + (", rank of this node in it, address of its head" if request.spans else "")
    lines = [f"start_server() {{ # {what}", "  local server=$1 gpus=$2"]
    if request.command.per_rank or (request.spans and request.options.ray):
        lines.append("  local rank=$3")
    elif request.spans:
        lines.append("  local rank=$3 head=$4 dist_port=$((DIST_PORT + 10 * server))")
    if any(word == c.START_RANK for flag in request.command.worker_flags for word in (flag.value,)):
        each = len(request.servers[0].gpus[0]) // (request.plan.tp * request.plan.pp)
        lines.append(f"  local start_rank=$(({each} * rank))")
    if several:
        where = "127.0.0.1" if request.nodes == 1 else "0.0.0.0"
        lines.append(f"  local listen={where} port=$((PORT + 1 + server))")
    else:
        lines.append("  local listen=$LISTEN port=$PORT")
    command = request.bound({**sh.LOCAL})
    lines += sh.array("command", command)
    lines += sh.more("command", command.worker_flags)
    return [*lines, *run_lines, "}"]


def _run_lines(request: Request) -> list[str]:
    if not request.command.per_rank:
        return ['  run "server-$server" env CUDA_VISIBLE_DEVICES="$gpus" "${command[@]}"']
    first = request.servers[0]
    return [
        f'  local at=("${{hosts[@]:rank:{len(first.nodes)}}}") forward=() list name',
        f"  printf -v list '%s:{len(first.gpus[0])},' \"${{at[@]}}\"",
        "  for name in HF_TOKEN HF_HOME NCCL_SOCKET_IFNAME; do",
        '    [[ -z ${!name:-} ]] || forward+=(-x "$name")',
        "  done",
        f'  run "server-$server" mpirun -n {sum(map(len, first.gpus))} -H "${{list%,}}" --mca plm_rsh_args "-p $SSH_PORT" \\',
        '    -x CUDA_VISIBLE_DEVICES="$gpus" "${forward[@]}" trtllm-llmapi-launch "${command[@]}"',
    ]


def _ray(request: Request) -> bool:
    return request.options.ray and request.spans


def _ray_functions(request: Request) -> list[str]:
    each, total = len(request.servers[0].gpus[0]), request.plan.world
    return [
        "start_ray() { # GPUs of this node, its rank: the head of the Ray cluster, or one that joins it",
        "  local gpus=$1 rank=$2 address=${hosts[NODE_RANK]}",
        "  if ((rank == 0)); then",
        '    run ray env CUDA_VISIBLE_DEVICES="$gpus" ray start --head --block --port "$DIST_PORT" \\',
        f'      --node-ip-address "$address" --num-gpus {each}',
        "  else",
        '    run ray env CUDA_VISIBLE_DEVICES="$gpus" ray start --block --address "${hosts[0]}:$DIST_PORT" \\',
        f'      --node-ip-address "$address" --num-gpus {each}',
        "  fi",
        "}",
        "",
        "wait_ray() { # until every node has joined",
        "  local deadline=$((SECONDS + READY_SECONDS)) seen=0",
        '  local ask=\'import ray; ray.init(address="auto", logging_level=40); print(int(ray.cluster_resources().get("GPU", 0)))\'',
        f"  until ((seen >= {total})); do",
        "    check_running",
        '    ((SECONDS < deadline)) || die "the other nodes did not join the Ray cluster within $READY_SECONDS s"',
        "    sleep 2",
        '    seen=$(python3 -c "$ask" 2>/dev/null) || seen=0',
        "  done",
        "}",
    ]


def _balancer(request: Request) -> list[str]:
    if request.engine.BALANCER == "nginx":
        return [sh.NGINX.replace("@RUN_NGINX@", 'run balancer nginx -p "$RUN_DIR" -c nginx.conf -e stderr')]
    return [sh.ROUTER.replace("@RUN_ROUTER@", "run balancer python3 -m sglang_router.launch_router")]


def environment(request: Request) -> list[str]:
    """Exports that the engine reads, and the addresses of the nodes."""
    lines = []
    for name, word in request.command.env:
        lines.append(f"export {name}={quoted(word)} # layers of each pipeline stage")
    if request.nodes > 1:
        lines += [
            'read -ra hosts <<<"$HOSTS"',
            f"((${{#hosts[@]}} == {request.nodes})) ||",
            f'  die "HOSTS has ${{#hosts[@]}} addresses and the plan uses {request.nodes} nodes"',
            'for host in "${hosts[@]}"; do',
            '  [[ $host =~ ^[A-Za-z0-9][A-Za-z0-9.:_-]*$ ]] || die "HOSTS holds $host, which is no address"',
            "done",
        ]
        if not request.command.per_rank:
            last = request.nodes - 1
            place = f"[[ $NODE_RANK =~ ^(0|[1-9][0-9]*)$ && $NODE_RANK -le {last} ]]"
            lines.append(f'{place} || die "NODE_RANK is 0 to {last}"')
    if request.spans:
        here = "${hosts[0]}" if request.command.per_rank else "${hosts[NODE_RANK]}"
        peer = "${hosts[1]}" if request.command.per_rank else "${hosts[NODE_RANK == 0]}"
        lines += [
            "if [[ -z $IFNAME ]]; then",
            f"  IFNAME=$(ip -o route get \"{peer}\" 2>/dev/null | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p') || true",
            "fi",
            "[[ -z $IFNAME ]] || export NCCL_SOCKET_IFNAME=$IFNAME GLOO_SOCKET_IFNAME=$IFNAME",
        ]
        if request.problem.engine.name == "vllm":
            lines.append(f"export VLLM_HOST_IP={here} # each node's own; vLLM may pick the wrong interface")
    return lines


def server_calls(request: Request) -> list[str]:
    """The servers, by node where there are several."""
    if request.nodes == 1:
        return [f"start_server {s.index} {request.gpu_list(s, 0)}" for s in request.servers]
    if request.command.per_rank:
        return [f'start_server {s.index} {request.gpu_list(s, 0)} {s.nodes[0]} "${{hosts[{s.nodes[0]}]}}"' for s in request.servers]
    lines = ["case $NODE_RANK in"]
    for node in range(request.nodes):
        calls = []
        for s in request.servers:
            for rank, at in enumerate(s.nodes):
                if at != node:
                    continue
                tail = f' {rank} "${{hosts[{s.nodes[0]}]}}"' if request.spans else ""
                calls.append(f"start_server {s.index} {request.gpu_list(s, rank)}{tail}")
        body = calls or ['say "this node has no part in the plan"', "exit 0"]
        lines += [f"  {node})", *(f"    {call}" for call in body), "    ;;"]
    return [*lines, "esac"]


def _calls(request: Request) -> list[str]:
    if not _ray(request):
        return server_calls(request)
    server = request.servers[0]
    lines = ["case $NODE_RANK in"]
    for rank, node in enumerate(server.nodes):
        lines.append(f"  {node}) start_ray {request.gpu_list(server, rank)} {rank} ;;")
    lines += ["esac", f"if ((NODE_RANK == {server.nodes[0]})); then", "  wait_ray"]
    gpus = request.gpu_list(server, 0)
    return [*lines, f'  start_server {server.index} {gpus} 0 "${{hosts[{server.nodes[0]}]}}"', "fi"]


def _main(request: Request) -> list[str]:
    lines = [
        f"check_program {request.engine.PROGRAM[0]} {quoted(request.install)}",
        "check_program curl 'install it with the package manager'",
    ]
    if request.balanced:
        if request.engine.BALANCER == "nginx":
            lines.append("check_program nginx 'install it with the package manager'")
        else:
            lines.append(
                "python3 -c 'import sglang_router' 2>/dev/null || die 'the router is not installed: pip install sglang-router'"
            )
    if request.command.per_rank:
        lines.append("check_program mpirun 'install Open MPI'")
    if _ray(request):
        lines.append("check_program ray 'pip install ray'")
    lines += [f"check_gpus {request.gpus_needed}", "check_model", *port_checks(request), "", *environment(request)]
    lines += sh.config_file(request.bound(dict(sh.LOCAL)))
    lines += ["", *_calls(request), "", *until_ready(request), sh.FOREVER]
    return lines


def port_checks(request: Request) -> list[str]:
    """The ports that have to be free on this node."""
    if not request.balanced:
        return ['check_port "$PORT"']
    last = len(request.servers)
    return [f'for ((port = PORT; port <= PORT + {last}; port++)); do check_port "$port"; done']


def until_ready(request: Request) -> list[str]:
    """Wait for this node's servers, then for all of them, then start the balancer in front."""
    health = request.engine.HEALTH
    ready = 'say "ready: http://$ANSWER:$PORT/v1"'
    if request.nodes == 1 and not request.balanced:
        return [f'wait_ready "http://$ANSWER:$PORT{health}"', ready]
    if request.nodes == 1:
        ports = [f"$((PORT + {s.index + 1}))" for s in request.servers]
        waits = [f'wait_ready "http://127.0.0.1:{port}{health}"' for port in ports]
        return [
            *waits,
            "start_balancer " + " ".join(f'"127.0.0.1:{p}"' for p in ports),
            f'wait_ready "http://$ANSWER:$PORT{health}"',
            ready,
        ]
    first = [] if request.command.per_rank else ["if ((NODE_RANK == 0)); then"]
    last = [] if request.command.per_rank else ["fi"]
    pad = "  " if first else ""
    if not request.balanced:
        return [*first, f'{pad}wait_ready "http://$ANSWER:$PORT{health}"', f"{pad}{ready}", *last]
    ends = [f"${{hosts[{s.nodes[0]}]}}:$((PORT + {s.index + 1}))" for s in request.servers]
    return [
        *first,
        *(f'{pad}wait_ready "http://{end}{health}"' for end in ends),
        f"{pad}start_balancer " + " ".join(f'"{end}"' for end in ends),
        f'{pad}wait_ready "http://$ANSWER:$PORT{health}"',
        f"{pad}{ready}",
        *last,
    ]
