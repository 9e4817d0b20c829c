"""One bash script for machines that have the engine installed: run it on the node, or on each of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from advisor.errors import QuestionError
from advisor.launch import shell as sh
from advisor.launch import words as c
from advisor.launch.patience import start_s
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile, header
from advisor.launch.template import lines
from advisor.launch.words import Raw, quoted
from advisor.specs.cluster import NVLINKS

NAME = "start.sh"
RESTART_BALANCER = ['RESTART[balancer]="start_balancer $*"']


def render(request: Request) -> tuple[ScriptFile, ...]:
    """The script that starts every server of the plan on the node it runs on."""
    if request.options.ray and request.spans and request.balanced:
        raise QuestionError("--ray is written for one replica over several nodes; leave it out for this plan.")
    request = replace(request, from_head=request.command.per_rank)
    parts = Parts(
        name=NAME,
        variables=tuple(variables(request)),
        functions=(*start_server(request, _run_lines(request)), "", *_balancer(request), *_ray_functions(request)),
        checks=tuple(_checks(request)),
    )
    return (assemble(request, parts),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What differs between a script for installed engines and one for containers, as lines."""

    name: str
    variables: tuple[str, ...]
    functions: tuple[str, ...]
    checks: tuple[str, ...]
    before_restart: tuple[str, ...] = ()
    after_stop: tuple[str, ...] = ()


def assemble(request: Request, parts: Parts) -> ScriptFile:
    """The whole script: what to expect and to change, what is started, the helpers, and the course of events."""
    opening = header(request.problem, request.prediction, what="Start", use=use(request, parts.name))
    text = lines(
        "script.sh", opening=sh.comment(opening), variables=parts.variables, functions=parts.functions,
        helpers=helpers(request, before_restart=parts.before_restart, after_stop=parts.after_stop), lock=lines("lock.sh"),
        traps=lines("traps.sh"), checks=[*demands(request), *parts.checks], port_checks=port_checks(request),
        environment=environment(request), config=config_lines(request), calls=_calls(request),
        until_ready=until_ready(request), until_end=lines("until_end.sh"),
    )  # fmt: skip
    return ScriptFile(name=parts.name, text="\n".join([*text, ""]), executable=True)


def helpers(request: Request, *, before_restart: Sequence[str] = (), after_stop: Sequence[str] = ()) -> list[str]:
    """The functions that all scripts share."""
    indices = ["", *lines("gpu_indices.sh")] if by_index(request) else []
    common = lines(
        "helpers.sh", count_gpus=request.vendor.count_gpus(), before_restart=before_restart, after_stop=after_stop
    )  # fmt: skip
    return [*common, *indices]


def by_index(request: Request) -> bool:
    """Whether GPU ids have to become indices: SGLang's own all-reduce reads CUDA_VISIBLE_DEVICES as numbers and is off else."""
    return bool(request.ids) and request.problem.engine.name == "sglang"


def demands(request: Request) -> list[str]:
    """What has to be set before anything starts: checked after `stop`, which needs none of it."""
    found = [] if request.checkpoint else [sh.required("MODEL", request.wanted)]
    if request.nodes > 1:
        found.append(
            sh.required("HOSTS", f'the addresses of the {request.nodes} nodes, in order: HOSTS="{example_hosts(request)}"')
        )
        if not request.from_head:
            found.append(sh.required("NODE_RANK", f"the place of this node in HOSTS, 0 to {request.nodes - 1}"))
    return found


def refusals(request: Request, *, launcher: bool) -> list[str]:
    """What the engine, or TensorRT-LLM's `launcher` of ranks, cannot take, said before it starts."""
    found = []
    if launcher:
        found.append(
            '[[ ! $MODEL =~ [[:space:]] ]] || die "trtllm-llmapi-launch splits a path at its spaces; give MODEL a path without"'
        )
    if not request.engine.CHECKS_KEY and not request.balanced:
        found.append('[[ -z $API_KEY ]] || die "trtllm-serve checks no API key; unset it, or put a proxy that checks it in front"')
        found.append('[[ -z $TLS_CERT ]] || die "trtllm-serve has no TLS; unset TLS_CERT, or put a proxy with it in front"')
    return found


def use(request: Request, name: str) -> list[str]:
    """How the script is used."""
    if request.from_head:
        where = [f"Use, on the first of {request.nodes} nodes only; the others need ssh without a password, and the engine:"]
    elif request.nodes > 1:
        where = [f"Use, on each of {request.nodes} nodes:"]
    else:
        where = ["Use:"]
    prefix = f'HOSTS="{example_hosts(request)}" ' if request.nodes > 1 else ""
    prefix += "NODE_RANK=0 " if request.nodes > 1 and not request.from_head else ""
    return [
        *where,
        f"  {prefix}./{name}        starts, waits until it answers, and stays; Ctrl-C stops all of it",
        f"  {prefix}./{name} stop   stops it from another terminal",
        "A gated model takes its token from HF_TOKEN in the environment; it is never written here.",
    ]


def example_hosts(request: Request) -> str:
    """As many example addresses as there are nodes, or the first of them."""
    shown = " ".join(f"10.0.0.{node + 1}" for node in range(min(request.nodes, 4)))
    return shown + (" ..." if request.nodes > 4 else "")


def model_variable(request: Request) -> list[str]:
    """MODEL with its default; none where the user has to say it."""
    return [sh.setting("MODEL", request.checkpoint, "a model id of the hub, or a folder")]


def node_variables(request: Request) -> list[str]:
    """What a script on several nodes has to be told."""
    if request.nodes == 1:
        return []
    found = [sh.setting("HOSTS", "", f"the addresses of the {request.nodes} nodes, in order, on a network of their own")]
    if not request.from_head:
        found.append(sh.setting("NODE_RANK", "", f"the place of this node in HOSTS, 0 to {request.nodes - 1}"))
    if request.spans:
        if request.command.per_rank:
            found.append(sh.setting("SSH_PORT", "22" if request.from_head else "2233", "of the other nodes"))
        else:
            found.append(sh.setting("DIST_PORT", "29500", "where the nodes meet"))
        found.append(sh.setting("IFNAME", "", "network interface between the nodes; empty: the one that routes to them"))
    return found


def variables(request: Request, own: tuple[str, ...] = ()) -> list[str]:
    """The settings at the top; `own` ones of the target come after the model."""
    run = '"$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/run"'
    ports = f"the {len(request.servers)} servers take the ports after it" if request.balanced else ""
    each = '"-$(uname -n)"' if request.nodes > 1 and not request.from_head else ""
    return [
        *model_variable(request),
        *own,
        sh.setting("PORT", str(request.options.port), ports),
        sh.setting("LISTEN", "127.0.0.1", "0.0.0.0 to serve the network; then with API_KEY"),
        *access_variables(),
        *node_variables(request),
        *time_variables(request),
        f"RUN_DIR=${{RUN_DIR:-{run}}}{each} # logs and lock",
    ]


def access_variables() -> list[str]:
    """The key and the certificate, from the environment only."""
    return [
        "API_KEY=${API_KEY:-${VLLM_API_KEY:-}}      # clients send it as a bearer token; from the environment, never written here",
        sh.setting("TLS_CERT", "", "certificate chain for https, and with it"),
        sh.setting("TLS_KEY", "", "its key"),
    ]


def time_variables(request: Request) -> list[str]:
    """How long things may take, and how often a crash is mended."""
    gigabytes = request.stored_bytes / 1e9
    return [
        sh.setting(
            "READY_SECONDS", str(start_s(request.stored_bytes)), f"how long a start may take, {gigabytes:,.0f} GB downloaded"
        ),
        sh.setting("STOP_SECONDS", "60", "how long stopping may take before it is forced"),
        sh.setting("RESTARTS", "3", "how often a server that crashed is started again"),
    ]


def start_server(request: Request, run_lines: list[str]) -> list[str]:
    """The function that starts one server, and what it needs to know about it."""
    what = "server number, its GPUs in rank order" + (", rank of this node in it, address of its head" if request.spans else "")
    found = [f"start_server() {{ # {what}", "  local server=$1 gpus=$2"]
    if by_index(request):
        found.append('  gpus=$(gpu_indices "$gpus")')
    if request.command.per_rank:
        found.append("  local rank=$3")
    elif request.spans and not _ray(request):
        found.append("  local rank=$3 head=$4 dist_port=$((DIST_PORT + 10 * server))")
    if any(flag.value == c.START_RANK for flag in request.command.worker_flags):
        found.append(f"  local start_rank=$(({request.ranks_a_node} * rank))")
    if request.balanced:
        own = "${hosts[rank]}" if request.from_head else "${hosts[NODE_RANK]}"
        where = "127.0.0.1" if request.nodes == 1 else own
        found.append(f"  local listen={where} port=$((PORT + 1 + server))")
    else:
        found.append("  local listen=$LISTEN port=$PORT")
    command = request.bound({**sh.LOCAL})
    found += pcie_hint(request)
    found += sh.array("command", command)
    found += sh.more("command", command.worker_flags)
    found += sh.indented(secure_flags(request))
    if not request.spans:
        found.append('  RESTART["server-$server"]="start_server $*"')
    return [*found, *run_lines, "}"]


def secure_flags(request: Request) -> list[str]:
    """The key and the certificate in the engine's words, where it is given them; its balancer has the certificate else."""
    found = list(request.engine.KEY_LINES)
    if not request.balanced and request.engine.CHECKS_KEY:
        found.append('[[ -z $TLS_CERT ]] || command+=(--ssl-certfile "$TLS_CERT" --ssl-keyfile "$TLS_KEY")')
    return found


def pcie_hint(request: Request) -> list[str]:
    """What to try where peer-to-peer copies over PCIe hang; never a default (vllm issue 33041, nccl issue 2079)."""
    if request.plan.stage_gpus == 1 or request.problem.cluster.node.default_link.kind in NVLINKS:
        return []
    flag = "" if request.problem.engine.name == "trtllm" else " and add --disable-custom-all-reduce"
    return [f"  # Where the start hangs (ACS or IOMMU between the PCIe slots): export NCCL_P2P_DISABLE=1{flag}."]


def _run_lines(request: Request) -> list[str]:
    if not request.command.per_rank:
        return [f'  run "server-$server" env {request.vendor.visible}="$gpus" "${{command[@]}}"']
    first = request.servers[0]
    each = len(first.gpus[0])
    return sh.indented(lines("mpirun.sh", nodes=len(first.nodes), each=each, ranks=each * len(first.nodes)))


def _ray(request: Request) -> bool:
    return request.options.ray and request.spans


def _ray_functions(request: Request) -> list[str]:
    if not _ray(request):
        return []
    return lines("ray.sh", each=len(request.servers[0].gpus[0]), total=request.plan.world)


def _balancer(request: Request) -> list[str]:
    if not request.balanced:
        return []
    if request.engine.BALANCER == "nginx":
        run = ['run balancer nginx -p "$RUN_DIR" -c nginx.conf -e stderr']
        return [*lines("balancer_nginx.sh", pid="nginx.pid", folder="tmp", restart=RESTART_BALANCER, run_nginx=run), ""]
    router = ["export API_KEY", 'run balancer python3 "${command[@]}"']
    return [*lines("balancer_router.sh", start=lines("router.python"), restart=RESTART_BALANCER, run_router=router), ""]


def exports(request: Request) -> list[str]:
    """What every engine process finds in its environment."""
    found = [f"export {name}=${{{name}:-{value}}}" for name, value in request.vendor.environment]
    found += [f"export {name}={quoted(word)} # layers of each pipeline stage" for name, word in request.command.env]
    return [*found, *request.engine.KEY_EXPORTS]


def environment(request: Request) -> list[str]:
    """Exports that the engine reads, and the addresses of the nodes."""
    found = exports(request)
    if request.nodes > 1:
        found += lines("hosts.sh", nodes=request.nodes)
        found.append('say "note: the ports between the nodes take no key; keep HOSTS on a network of their own"')
        if not request.from_head:
            last = request.nodes - 1
            place = f"[[ $NODE_RANK =~ ^(0|[1-9][0-9]*)$ && $NODE_RANK -le {last} ]]"
            found.append(f'{place} || die "NODE_RANK is 0 to {last}"')
    if request.spans:
        here = "${hosts[0]}" if request.from_head else "${hosts[NODE_RANK]}"
        found += lines("interface.sh", peer=Raw("${hosts[1]}" if request.from_head else "${hosts[NODE_RANK == 0]}"))
        if request.problem.engine.name == "vllm":
            found.append(f"export VLLM_HOST_IP={here} # each node's own; vLLM may pick the wrong interface")
    return found


def server_calls(request: Request) -> list[str]:
    """The servers, by node where there are several."""
    if request.nodes == 1:
        return [f"start_server {s.index} {request.gpu_list(s, 0)}" for s in request.servers]
    if request.from_head:
        return [f'start_server {s.index} {request.gpu_list(s, 0)} {s.nodes[0]} "${{hosts[{s.nodes[0]}]}}"' for s in request.servers]
    found = ["case $NODE_RANK in"]
    for node in range(request.nodes):
        calls = []
        for s in request.servers:
            for rank, at in enumerate(s.nodes):
                if at != node:
                    continue
                tail = f' {rank} "${{hosts[{s.nodes[0]}]}}"' if request.spans else ""
                calls.append(f"start_server {s.index} {request.gpu_list(s, rank)}{tail}")
        body = calls or ['say "this node has no part in the plan"', "exit 0"]
        found += [f"  {node})", *(f"    {call}" for call in body), "    ;;"]
    return [*found, "esac"]


def _calls(request: Request) -> list[str]:
    if not _ray(request):
        return server_calls(request)
    server = request.servers[0]
    found = ["case $NODE_RANK in"]
    for rank, node in enumerate(server.nodes):
        found.append(f"  {node}) start_ray {request.gpu_list(server, rank)} {rank} ;;")
    found += ["esac", f"if ((NODE_RANK == {server.nodes[0]})); then", "  wait_ray"]
    gpus = request.gpu_list(server, 0)
    return [*found, f'  start_server {server.index} {gpus} 0 "${{hosts[{server.nodes[0]}]}}"', "fi"]


def _checks(request: Request) -> list[str]:
    found = [
        f"check_program {request.engine.PROGRAM[0]} {quoted(request.install)}",
        "check_program curl 'install it with the package manager'",
    ]
    if request.balanced and request.engine.BALANCER == "nginx":
        found.append("check_program nginx 'install it with the package manager'")
    elif request.balanced:
        found.append("python3 -c 'import sglang_router' 2>/dev/null || die 'the router is missing: pip install sglang-router'")
    if request.command.per_rank:
        found.append("check_program mpirun 'install Open MPI'")
    if _ray(request):
        found.append("check_program ray 'pip install ray'")
    return [*found, f"check_gpus {request.gpus_needed}", "check_model"]


def config_lines(request: Request) -> list[str]:
    """Writes the engine's YAML file where it needs one."""
    return sh.config_file(request.command)


def port_checks(request: Request) -> list[str]:
    """The address is one, and the ports are free on this node."""
    check = ['check_address "$LISTEN" "$PORT"', "check_access", *refusals(request, launcher=request.command.per_rank)]
    if not request.balanced:
        return [*check, 'check_port "$PORT"']
    return [*check, f'for ((port = PORT; port <= PORT + {len(request.servers)}; port++)); do check_port "$port"; done']


def until_ready(request: Request) -> list[str]:
    """Wait for this node's servers, then for all of them, then start the balancer in front."""
    health = request.engine.HEALTH
    ready = 'say "ready: $(reach)/v1"'
    if request.nodes == 1 and not request.balanced:
        return [f'wait_ready "$(reach){health}"', ready]
    if request.nodes == 1:
        ports = [f"$((PORT + {s.index + 1}))" for s in request.servers]
        waits = [f'wait_ready "http://127.0.0.1:{port}{health}"' for port in ports]
        return [
            *waits,
            "start_balancer " + " ".join(f'"127.0.0.1:{p}"' for p in ports),
            f'wait_ready "$(reach){health}"',
            ready,
        ]
    first = [] if request.from_head else ["if ((NODE_RANK == 0)); then"]
    last = [] if request.from_head else ["fi"]
    pad = "  " if first else ""
    if not request.balanced:
        return [*first, f'{pad}wait_ready "$(reach){health}"', f"{pad}{ready}", *last]
    ends = [f"${{hosts[{s.nodes[0]}]}}:$((PORT + {s.index + 1}))" for s in request.servers]
    return [
        *first,
        *(f'{pad}wait_ready "http://{end}{health}"' for end in ends),
        f"{pad}start_balancer " + " ".join(f'"{end}"' for end in ends),
        f'{pad}wait_ready "$(reach){health}"',
        f"{pad}{ready}",
        *last,
    ]
