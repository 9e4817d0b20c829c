"""One pod: a replica, or one node's share of it. Where it may run, what it asks for, and what it starts."""

from __future__ import annotations

from advisor.launch import words as c
from advisor.launch import yaml_text as y
from advisor.launch.patience import load_s
from advisor.launch.request import Request
from advisor.launch.storage import CACHE, Storage
from advisor.launch.template import lines
from advisor.launch.words import Flag, Raw, Variable, Word
from advisor.launch.yaml_text import Node, Noted

DIST_PORT = 29500
SSH_PORT = 2233
LEADER = "$(LWS_LEADER_ADDRESS)"
RANK = "$(LWS_WORKER_INDEX)"
# vLLM documentation, CPU resources for GPU deployments: 2 physical cores and one more for each GPU.
SPARE_CORES, THREADS_A_CORE = 2, 2
MEMORY_GIB_A_GPU = 16  # requestMemory beside requestGPU 1 in the vLLM production stack's own examples
KEY_SECRET: dict[str, Node] = {"secretKeyRef": {"name": "llm-api-key", "key": "key", "optional": True}}
TOKEN_SECRET: dict[str, Node] = {"secretKeyRef": {"name": "hf-token", "key": "token", "optional": True}}


def pod(request: Request, name: str, storage: Storage, *, head: bool) -> list[str]:
    """The pod's specification; the head of a group answers requests, the others do not."""
    gpus = len(request.servers[0].gpus[0]) // request.servers[0].replicas
    mounts, volumes = list(storage.mounts), list(storage.volumes)
    if request.command.config:
        mounts.append({"name": "config", "mountPath": "/etc/advisor"})
        volumes.append({"name": "config", "configMap": {"name": name}})
    if request.command.per_rank:
        mounts.append({"name": "ssh", "mountPath": "/root/.ssh-keys", "readOnly": True})
        secret: dict[str, Node] = {"secretName": "mpi-ssh", "defaultMode": 256}
        volumes.append({"name": "ssh", "secret": Noted(secret, "Keys between the pods: id_rsa, id_rsa.pub, authorized_keys.")})
    rights = Noted({"capabilities": {"add": ["IPC_LOCK"]}}, "RDMA pins memory.")
    return lines(
        "pod.yaml", image=request.image, placement=y.mapping(_placement(request)), download=storage.download(request.image),
        environment=y.sequence(_environment(request)), process=y.mapping(_process(request, head=head)),
        ports=y.mapping({"ports": [{"name": "http", "containerPort": request.options.port}]} if head else {}),
        cpus=str(THREADS_A_CORE * (SPARE_CORES + gpus)), memory=f"{MEMORY_GIB_A_GPU * gpus}Gi",
        resources=y.mapping(_resources(request, gpus)), claims=y.mapping({"claims": [{"name": "imex"}]} if trays(request) else {}),
        mounts=y.sequence(mounts), probes=_probes(request) if head else [],
        security=y.mapping({"securityContext": rights} if request.spans else {}), volumes=y.sequence(volumes),
    )  # fmt: skip


def trays(request: Request) -> bool:
    """Whether a replica spans the hosts of one NVLink domain."""
    node = request.problem.cluster.node
    return request.spans and node.gpus_per_host < len(node.devices)


def beyond_domain(request: Request) -> bool:
    """Whether a replica uses the network: its ranks lie in several NVLink domains, or nodes."""
    cluster = request.problem.cluster
    hosts = -(-len(cluster.node.devices) // cluster.node.gpus_per_host)
    return any(len({node // hosts for node in server.nodes}) > 1 for server in request.servers)


def _placement(request: Request) -> dict[str, Node]:
    """Only nodes with the GPUs that were ranked, tainted for GPU work or not; and the IMEX channel of the domain."""
    vendor = request.vendor
    names = dict.fromkeys(label for d in request.problem.cluster.node.devices for label in d.driver_names)
    values: list[Node] = [name.replace(" ", vendor.dash) for name in names]
    found: dict[str, Node] = {}
    if values:
        match: Node = [{"key": vendor.product, "operator": "In", "values": values}]
        terms: Node = {"nodeSelectorTerms": [{"matchExpressions": match}]}
        where: Node = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
        found["affinity"] = Noted(where, "Nodes with the GPU that was ranked, as GPU feature discovery labels them.")
    found["tolerations"] = [{"key": vendor.resource, "operator": "Exists", "effect": "NoSchedule"}]
    if trays(request):
        found["resourceClaims"] = [{"name": "imex", "resourceClaimTemplateName": channel(request)}]
    return found


def channel(request: Request) -> str:
    """The claim template of the compute domain."""
    return f"{request.name}-channel"


def _resources(request: Request, gpus: int) -> dict[str, Node]:
    found: dict[str, Node] = {request.vendor.resource: str(gpus)}
    network = request.problem.cluster.network
    if request.spans and beyond_domain(request) and network and network.rdma:
        found[request.options.rdma] = Noted("1", "The network adapters; NCCL goes through slow TCP without them.")
    return found


def _environment(request: Request) -> list[Node]:
    found: list[Node] = [
        Noted({"name": "MODEL", "value": escaped(request.checkpoint)}, "A model id of the hub, or a folder of the nodes."),
        {"name": "HF_HOME", "value": CACHE},
        {"name": "HF_TOKEN", "valueFrom": TOKEN_SECRET},
    ]
    if request.engine.CHECKS_KEY:
        name = "VLLM_API_KEY" if request.problem.engine.name == "vllm" else "API_KEY"
        found.append(Noted({"name": name, "valueFrom": KEY_SECRET}, "Clients send it as a bearer token."))
    found += [{"name": name, "value": value} for name, value in request.vendor.environment]
    if order := _order(request):
        found.append(Noted({"name": request.vendor.visible, "value": order}, "GPUs in rank order."))
    for name, word in request.command.env:
        found.append(Noted({"name": name, "value": str(word)}, "Layers of each pipeline stage."))
    if request.spans:
        if request.problem.engine.name == "vllm":
            own: dict[str, Node] = {"name": "VLLM_HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
            found.append(Noted(own, "Each pod's own; vLLM may pick the wrong interface."))
        for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
            found.append({"name": name, "value": "eth0"})
    return found


def _order(request: Request) -> str:
    """The order of the GPUs in a pod that has a whole node; empty where it is 0, 1, 2, ..."""
    each = request.problem.cluster.node.gpus_per_host
    orders = {gpus for server in request.servers for gpus in server.gpus}
    if len(orders) != 1 or request.servers[0].replicas > 1:
        return ""
    (order,) = orders
    return ",".join(map(str, order)) if len(order) == each and list(order) != sorted(order) else ""


def _values(request: Request) -> dict[Variable, Word]:
    return {
        c.MODEL: Raw("$(MODEL)"),
        c.HOST: "0.0.0.0",
        c.PORT: str(request.options.port),
        c.NODE_RANK: Raw(RANK),
        c.HEAD_ADDRESS: Raw(LEADER),
        c.DIST_PORT: str(DIST_PORT),
        c.DIST_ADDRESS: Raw(f"{LEADER}:{DIST_PORT}"),
        c.CONFIG: "/etc/advisor/trtllm.yaml",
    }


def escaped(text: str) -> str:
    """Kubernetes expands `$(NAME)` in arguments and values; `$$` is a dollar."""
    return text.replace("$", "$$")


def _process(request: Request, *, head: bool) -> dict[str, Node]:
    command = request.bound(_values(request))
    flags = command.flags + (() if head else command.worker_flags)
    words: list[Node] = [_text(word) for word in command.program]
    if command.per_rank:
        return _mpi(request, [*words, *_arguments(flags)], head=head)
    # What only the pod knows is worked out by a shell: its key, or its place among the data-parallel ranks.
    more = ' ${API_KEY:+--api-key "$API_KEY"}' if request.problem.engine.name == "sglang" else ""
    if any(flag.value == c.START_RANK for flag in flags):
        more += f" --data-parallel-start-rank=$((LWS_WORKER_INDEX * {request.ranks_a_node}))"
        flags = tuple(flag for flag in flags if flag.value != c.START_RANK)
    if more:
        start = f'exec "$@"{more}'.replace("$(", "$$(")
        return {"command": ["bash", "-c", start], "args": ["bash", *words, *_arguments(flags)]}
    split = len(request.engine.PROGRAM)
    return {"command": words[:split], "args": [*words[split:], *_arguments(flags)]}


def _mpi(request: Request, words: list[Node], *, head: bool) -> dict[str, Node]:
    """TensorRT-LLM over MPI: the workers offer ssh, the leader starts a rank for each GPU."""
    if not head:
        return {"command": ["bash", "-c", "\n".join(lines("mpi_worker.sh", ssh_port=SSH_PORT))]}
    size, each = len(request.servers[0].nodes), len(request.servers[0].gpus[0])
    # LWS names the pods of a group LEADER-0 ... : LEADER is the leader's own host name, its workers add -1, -2, ... to it.
    text = "\n".join(lines("mpi_leader.sh", each=each, workers=size - 1, ssh_port=SSH_PORT, ranks=size * each))
    return {"command": ["bash", "-c", text.replace("$(", "$$(")], "args": ["bash", *words]}


def _arguments(flags: tuple[Flag, ...]) -> list[Node]:
    found: list[Node] = []
    for flag in flags:
        if flag.value is not None and flag.more:
            found += [flag.name, *(_text(word) for word in (flag.value, *flag.more))]
            continue
        text = flag.name if flag.value is None else f"{flag.name}={_text(flag.value)}"
        found.append(Noted(text, f"{flag.why[0].upper()}{flag.why[1:]}.") if flag.why else text)
    return found


def _text(word: Word) -> str:
    return word.text if isinstance(word, Raw) else escaped(str(word))


def _probes(request: Request) -> list[str]:
    seconds = load_s(request.stored_bytes)
    gigabytes = round(request.stored_bytes / 1e9)
    return lines("probes.yaml", health=request.engine.HEALTH, gigabytes=gigabytes, tries=-(-seconds // 10))
