"""One compose file a node: a service a server, and a balancer where there are several."""

from __future__ import annotations

import json

from advisor.errors import QuestionError
from advisor.launch import shell as sh
from advisor.launch import words as c
from advisor.launch import yaml_text as y
from advisor.launch.docker import NGINX_IMAGE, needs_image
from advisor.launch.layout import Server
from advisor.launch.patience import start_s
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile, header
from advisor.launch.template import lines
from advisor.launch.vendor import AMD
from advisor.launch.words import Command, Flag, Raw, Variable, Word
from advisor.launch.yaml_text import MERGE, Alias, Node, Noted

NAME = "compose.yaml"
DIST_PORT = 29500
SSH_PORT = 2233
INTERFACE = "${IFNAME:?set IFNAME to the network interface between the nodes}"
LISTEN = "${LISTEN:-127.0.0.1}"


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
    use += [
        "Only this machine is served; LISTEN=0.0.0.0 in the environment or in .env serves the network.",
        "API_KEY there is what clients send as a bearer token; without it, whoever reaches the port may use the model.",
    ]
    if not request.engine.CHECKS_KEY and not request.balanced:
        use[-1] = "trtllm-serve checks no key: whoever reaches the port may use the model."
    if several:
        use.append("The ports between the nodes take no key: keep their addresses on a network of their own.")
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
        volumes=y.sequence(_more_volumes(request)), gpus=y.mapping(_gpus(request)), common=y.mapping(_common(request)),
        name=request.name, services=y.mapping(services), configs=y.mapping({"configs": configs} if configs else {}),
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
        "HF_TOKEN": Noted(None, "Taken from the environment of `docker compose`, as the next ones."),
        **dict.fromkeys(("HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")),
        request.vendor.visible: Noted(request.gpu_list(server, rank), "GPUs in rank order."),
    }
    environment |= dict(request.vendor.environment)
    if request.engine.CHECKS_KEY:
        name = "VLLM_API_KEY" if request.problem.engine.name == "vllm" else "API_KEY"
        environment[name] = "${API_KEY:-}"
    environment |= {name: Noted(str(word), "Layers of each pipeline stage.") for name, word in command.env}
    if request.spans:
        environment |= _network(request, node)
    service: dict[str, Node] = {MERGE: Alias("server"), "environment": environment}
    service |= _process(request, server, rank, command, flags)
    return service | ({"healthcheck": _health(request, server, port)} if rank == 0 else {})


def _common(request: Request) -> dict[str, Node]:
    common: dict[str, Node] = {}
    if request.command.config:
        common["configs"] = [{"source": "trtllm", "target": "/etc/advisor/trtllm.yaml"}]
    rights = [*(["SYS_PTRACE"] if request.vendor is AMD else []), *(["IPC_LOCK"] if request.spans else [])]
    devices: list[Node] = ["/dev/kfd:/dev/kfd", "/dev/dri:/dev/dri"] if request.vendor is AMD else []
    if request.spans:
        devices.append(Noted("/dev/infiniband:/dev/infiniband", "Leave out without InfiniBand."))
    return common | ({"cap_add": rights} if rights else {}) | ({"devices": devices} if devices else {})


def _gpus(request: Request) -> dict[str, Node]:
    """All GPUs: the variable chooses and orders them."""
    if request.vendor is AMD:
        return {"group_add": ["video"], "security_opt": ["seccomp=unconfined"]}
    why = "All of them: CUDA_VISIBLE_DEVICES chooses and orders, device_ids would lose the order."
    device: Node = {"driver": "nvidia", "count": Noted("all", why), "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}


def _process(request: Request, server: Server, rank: int, command: Command, flags: tuple[Flag, ...]) -> dict[str, Node]:
    program = [_item(word) for word in command.program]
    arguments: list[Node] = [node for flag in flags for node in _arguments(flag)]
    if not command.per_rank:
        split = len(request.engine.PROGRAM)
        if request.problem.engine.name == "sglang":
            start = 'exec "$$@" $${API_KEY:+--api-key "$$API_KEY"}'  # the flag is there where the key is
            return {"entrypoint": ["bash", "-c", start, "bash"], "command": [*program, *arguments]}
        return {"entrypoint": program[:split], "command": [*program[split:], *arguments]}
    if rank:
        sshd = "\n".join(lines("sshd.sh")).replace("$", "$$")
        return {"command": Noted(["bash", "-c", sshd, str(SSH_PORT)], "The head starts this node's ranks through ssh.")}
    each = len(server.gpus[0])
    places = ",".join(f"{_host(node)}:{each}" for node in server.nodes)
    mpi: list[Node] = ["mpirun", "--allow-run-as-root", "-n", str(sum(map(len, server.gpus))), "-H", places]
    mpi += ["--mca", "plm_rsh_args", f"-p {SSH_PORT} -o StrictHostKeyChecking=accept-new"]
    mpi += ["--mca", "btl_tcp_if_include", INTERFACE, "--mca", "oob_tcp_if_include", INTERFACE]
    names = ("PATH", "LD_LIBRARY_PATH", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "HF_TOKEN", "NCCL_SOCKET_IFNAME")
    mpi += [word for name in names for word in ("-x", name)]
    mpi.append("trtllm-llmapi-launch")
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
    found: dict[str, Node] = {"NCCL_SOCKET_IFNAME": INTERFACE, "GLOO_SOCKET_IFNAME": INTERFACE}
    if request.problem.engine.name == "vllm":
        found["VLLM_HOST_IP"] = Noted(_host(node), "Each node's own; vLLM may pick the wrong interface.")
    return found


def _port(request: Request, server: Server) -> int:
    return request.options.port + (server.index + 1 if request.balanced else 0)


def _values(request: Request, server: Server, rank: int, port: int) -> dict[Variable, Word]:
    dist = str(DIST_PORT + 10 * server.index)
    head = _host(server.nodes[0])
    behind = "127.0.0.1" if request.nodes == 1 else _host(server.nodes[0])
    ranks = request.ranks_a_node if request.spans else 0
    return {
        c.MODEL: c.MODEL,
        c.HOST: Raw(behind if request.balanced else LISTEN),
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
    if flag.more:
        return [flag.name, *(_escaped(str(word)) for word in (flag.value, *flag.more))]
    text = flag.name
    if flag.value is not None:
        text += f"={flag.value.text if isinstance(flag.value, Raw) else _escaped(str(flag.value))}"
    return [Noted(text, f"{flag.why[0].upper()}{flag.why[1:]}.") if flag.why else text]


def _health(request: Request, server: Server, port: int) -> Node:
    at = LISTEN if not request.balanced else "127.0.0.1" if request.nodes == 1 else _host(server.nodes[0])
    ask = f"import urllib.request; urllib.request.urlopen('http://{at}:{port}{request.engine.HEALTH}', timeout=5)"
    return {
        "test": ["CMD", "python3", "-c", ask],
        "interval": "5s",
        "timeout": "10s",
        "retries": 3,
        "start_period": Noted(f"{start_s(request.stored_bytes)}s", "How long downloading and loading may take."),
    }


def _ends(request: Request) -> list[str]:
    return [f"{'127.0.0.1' if request.nodes == 1 else _host(s.nodes[0])}:{_port(request, s)}" for s in request.servers]


def _balancer(request: Request) -> Node:
    after: dict[str, Node] = {f"server-{s.index}": {"condition": "service_healthy"} for s in request.servers if s.nodes[0] == 0}
    service: dict[str, Node] = {"network_mode": "host", "depends_on": after, "restart": "unless-stopped"}
    if request.engine.BALANCER == "nginx":
        return {"image": NGINX_IMAGE, "configs": [{"source": "nginx", "target": "/etc/nginx/nginx.conf"}], **service}
    start = "\n".join(lines("router.python"))
    command: list[Node] = ["python3", "-c", start, "--host", LISTEN, "--port", str(request.options.port)]
    command += ["--prometheus-host", "127.0.0.1"]
    command += ["--policy", Noted("cache_aware", "Requests that share a prefix go to the same server."), "--worker-urls"]
    key: dict[str, Node] = {"environment": {"API_KEY": "${API_KEY:-}"}}
    return {"image": Alias("image"), "entrypoint": command[:1], "command": [*command[1:], *_urls(request)], **key, **service}


def _urls(request: Request) -> list[Node]:
    return [f"http://{end}" for end in _ends(request)]


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
