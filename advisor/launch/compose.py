"""One compose file a node: a service a server, and a balancer where there are several."""

from __future__ import annotations

import json

from advisor.errors import QuestionError
from advisor.launch import shell as sh
from advisor.launch import words as c
from advisor.launch import yaml_text as y
from advisor.launch.docker import NGINX_IMAGE, needs_image
from advisor.launch.layout import Server
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile, header
from advisor.launch.template import lines
from advisor.launch.words import Command, Flag, Raw, Variable, Word
from advisor.launch.yaml_text import MERGE, Alias, Node, Noted

NAME = "compose.yaml"
DIST_PORT = 29500
SSH_PORT = 2233


def render(request: Request) -> tuple[ScriptFile, ...]:
    """`compose.yaml`, or `compose-node0.yaml` and so on where the plan uses several nodes."""
    needs_image(request)
    if request.nodes > 64:
        raise QuestionError(f"compose needs a file for each of {request.nodes} nodes; use --target slurm or kubernetes.")
    if request.nodes == 1:
        return (_file(request, 0, NAME),)
    used = sorted({node for server in request.servers for node in server.nodes} | ({0} if request.balanced else set()))
    return tuple(_file(request, node, f"compose-node{node}.yaml") for node in used)


def _file(request: Request, node: int, name: str) -> ScriptFile:
    several = request.nodes > 1
    where = f", on node {node}" if several else ""
    use = [f"Use{where}: docker compose -f {name} up --detach --wait", f"     docker compose -f {name} down"]
    if several:
        use.append(f"Set HOST_0 to HOST_{request.nodes - 1} in the environment or in .env to the addresses of the nodes.")
    use.append("A gated model takes its token from HF_TOKEN in the environment; it is never written here.")
    if not request.checkpoint:
        use.append(f"Set MODEL to {request.wanted}.")
    opening = header(request.problem, request.prediction, what="Start", use=use)
    if several:
        opening[-1] += f" node={node}"
    here = [(s, s.nodes.index(node)) for s in request.servers if node in s.nodes]
    services: dict[str, Node] = {f"server-{s.index}": _service(request, s, rank, node) for s, rank in here}
    if request.balanced and node == 0:
        services["balancer"] = _balancer(request)
    configs = _configs(request, node)
    text = lines(
        "compose.yaml", opening=sh.comment(opening), model=_model(request), image=_escaped(request.image),
        volumes=y.sequence(_more_volumes(request)), common=y.mapping(_common(request)), name=request.name,
        services=y.mapping(services), configs=y.mapping({"configs": configs} if configs else {}),
    )  # fmt: skip
    return ScriptFile(name=name, text="\n".join([*text, ""]))


def _model(request: Request) -> str:
    if not request.checkpoint:
        return "${MODEL:?set MODEL to the checkpoint that the head of this file names}"
    return _escaped(request.checkpoint)


def _escaped(text: str) -> str:
    """Compose reads `$` as the start of a variable; `$$` is a dollar."""
    return text.replace("$", "$$")


def _host(node: int) -> str:
    return f"${{HOST_{node}:?set HOST_{node} to the address of node {node}}}"


def _service(request: Request, server: Server, rank: int, node: int) -> dict[str, Node]:
    port = _port(request, server)
    command = request.bound(_values(request, server, rank, port))
    flags = command.flags + (command.worker_flags if rank else ())
    environment: dict[str, Node] = {
        "HF_TOKEN": Noted(None, "Taken from the environment of `docker compose`."),
        "CUDA_VISIBLE_DEVICES": Noted(request.gpu_list(server, rank), "GPUs in rank order."),
    }
    environment |= {name: Noted(str(word), "Layers of each pipeline stage.") for name, word in command.env}
    if request.spans:
        environment |= _network(request, node)
    service: dict[str, Node] = {MERGE: Alias("server"), "environment": environment}
    service |= _process(request, server, rank, command, flags)
    return service | ({"healthcheck": _health(request, port)} if rank == 0 else {})


def _common(request: Request) -> dict[str, Node]:
    common: dict[str, Node] = {}
    if request.command.config:
        common["configs"] = [{"source": "trtllm", "target": "/etc/advisor/trtllm.yaml"}]
    if request.spans:
        common |= {"cap_add": ["IPC_LOCK"], "devices": Noted(["/dev/infiniband:/dev/infiniband"], "Leave out without InfiniBand.")}
    return common


def _process(request: Request, server: Server, rank: int, command: Command, flags: tuple[Flag, ...]) -> dict[str, Node]:
    program = [_item(word) for word in command.program]
    arguments: list[Node] = [node for flag in flags for node in _arguments(flag)]
    if not command.per_rank:
        split = len(request.engine.PROGRAM)
        return {"entrypoint": program[:split], "command": [*program[split:], *arguments]}
    if rank:
        sshd = f"mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -p {SSH_PORT}"
        return {"command": Noted(["bash", "-c", sshd], "The head starts this node's ranks through ssh.")}
    each = len(server.gpus[0])
    places = ",".join(f"{_host(node)}:{each}" for node in server.nodes)
    mpi: list[Node] = ["mpirun", "--allow-run-as-root", "-n", str(sum(map(len, server.gpus))), "-H", places]
    mpi += ["--mca", "plm_rsh_args", f"-p {SSH_PORT} -o StrictHostKeyChecking=accept-new"]
    mpi += ["-x", "CUDA_VISIBLE_DEVICES", "-x", "HF_TOKEN", "-x", "NCCL_SOCKET_IFNAME", "trtllm-llmapi-launch"]
    return {"command": [*mpi, *program, *arguments]}


def _more_volumes(request: Request) -> list[Node]:
    volumes: list[Node] = []
    if request.checkpoint.startswith("/"):
        folder = _escaped(request.checkpoint)
        volumes.append({"type": "bind", "source": folder, "target": folder, "read_only": True})
    if request.command.per_rank:
        volumes.append(Noted("~/.ssh:/root/.ssh:ro", "Keys between the containers, owned by root."))
    return volumes


def _network(request: Request, node: int) -> dict[str, Node]:
    interface = "${IFNAME:?set IFNAME to the network interface between the nodes}"
    found: dict[str, Node] = {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    if request.problem.engine.name == "vllm":
        found["VLLM_HOST_IP"] = Noted(_host(node), "Each node's own; vLLM may pick the wrong interface.")
    return found


def _port(request: Request, server: Server) -> int:
    return request.options.port + (server.index + 1 if request.balanced else 0)


def _values(request: Request, server: Server, rank: int, port: int) -> dict[Variable, Word]:
    dist = str(DIST_PORT + 10 * server.index)
    head = _host(server.nodes[0])
    local = request.balanced and request.nodes == 1
    ranks = len(server.gpus[0]) // (request.plan.tp * request.plan.pp) if request.spans else 0
    return {
        c.MODEL: c.MODEL,
        c.HOST: "127.0.0.1" if local else "0.0.0.0",
        c.PORT: str(port),
        c.NODE_RANK: str(rank),
        c.START_RANK: str(ranks * rank),
        c.HEAD_ADDRESS: Raw(head),
        c.DIST_PORT: dist,
        c.DIST_ADDRESS: Raw(f"{head}:{dist}"),
        c.CONFIG: "/etc/advisor/trtllm.yaml",
    }


def _item(word: Word) -> Node:
    if word == c.MODEL:
        return Alias("model")
    return word.text if isinstance(word, Raw) else _escaped(str(word))


def _arguments(flag: Flag) -> list[Node]:
    """`--flag=value` on one line; the model, which is an alias, on a line of its own."""
    if flag.value == c.MODEL:
        return [flag.name, Alias("model")]
    text = flag.name
    if flag.value is not None:
        text += f"={flag.value.text if isinstance(flag.value, Raw) else _escaped(str(flag.value))}"
    return [Noted(text, f"{flag.why[0].upper()}{flag.why[1:]}.") if flag.why else text]


def _health(request: Request, port: int) -> Node:
    ask = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}{request.engine.HEALTH}', timeout=5)"
    return {
        "test": ["CMD", "python3", "-c", ask],
        "interval": "5s",
        "timeout": "10s",
        "retries": 3,
        "start_period": Noted("3600s", "How long loading may take."),
    }


def _ends(request: Request) -> list[str]:
    return [f"{'127.0.0.1' if request.nodes == 1 else _host(s.nodes[0])}:{_port(request, s)}" for s in request.servers]


def _balancer(request: Request) -> Node:
    after: dict[str, Node] = {f"server-{s.index}": {"condition": "service_healthy"} for s in request.servers if s.nodes[0] == 0}
    service: dict[str, Node] = {"network_mode": "host", "depends_on": after, "restart": "unless-stopped"}
    if request.engine.BALANCER == "nginx":
        return {"image": NGINX_IMAGE, "configs": [{"source": "nginx", "target": "/etc/nginx/nginx.conf"}], **service}
    command: list[Node] = ["python3", "-m", "sglang_router.launch_router", "--host", "0.0.0.0", "--port", str(request.options.port)]
    command += ["--policy", Noted("cache_aware", "Requests that share a prefix go to the same server."), "--worker-urls"]
    return {"image": Alias("image"), "command": [*command, *(f"http://{end}" for end in _ends(request))], **service}


def _configs(request: Request, node: int) -> dict[str, Node]:
    found: dict[str, Node] = {}
    if request.command.config:
        rows = [f"{key}: {json.dumps(value)}" for key, value in request.command.config.items()]
        found["trtllm"] = {"content": "\n".join(rows) + "\n"}
    if request.balanced and node == 0 and request.engine.BALANCER == "nginx":
        found["nginx"] = {"content": nginx(_ends(request), request.options.port)}
    return found


def nginx(ends: list[str], port: int) -> str:
    """nginx's configuration in front of `ends`."""
    return "\n".join(lines("nginx.conf", servers=[f"server {end};" for end in ends], port=port)) + "\n"
