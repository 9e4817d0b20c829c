"""One manifest: a Deployment and its Service, or a LeaderWorkerSet where a replica is larger than a node.

A pod is one replica; the Service spreads connections over the replicas (Kubernetes' own balancer takes nginx's place). The
device plugin gives a pod its GPUs, so their order can be kept only where a pod has all GPUs of its node.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.errors import QuestionError
from advisor.launch import shell as sh
from advisor.launch import words as c
from advisor.launch import yaml_text as y
from advisor.launch.docker import needs_image
from advisor.launch.layout import Span
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile, header, slug
from advisor.launch.template import lines
from advisor.launch.words import Command, Flag, Raw, Variable, Word
from advisor.launch.yaml_text import Node, Noted

NAME = "kubernetes.yaml"
DIST_PORT = 29500
SSH_PORT = 2233
LEADER = "$(LWS_LEADER_ADDRESS)"
RANK = "$(LWS_WORKER_INDEX)"


def render(request: Request) -> tuple[ScriptFile, ...]:
    """The manifest of the plan."""
    needs_image(request)
    if not request.checkpoint:
        raise QuestionError(f"a manifest has to name the checkpoint; give --checkpoint: {request.wanted}.")
    request = _one_replica_a_pod(request)
    name = slug(f"{request.problem.engine.name}-{request.problem.model.name}")
    use = [
        f"Use: kubectl apply -f {NAME}; kubectl rollout status {'deployment' if not request.spans else 'statefulset'}/{name}",
        f"     kubectl port-forward service/{name} {request.options.port}",
        "The pods read a gated model with the token of a secret that is made once, by hand:",
        "     kubectl create secret generic hf-token --from-literal=token=hf_...",
    ]
    if request.spans:
        use.append("A replica spans nodes: the LeaderWorkerSet operator has to be installed (lws.sigs.k8s.io).")
    if request.plan.gpus:
        use.append("The device plugin chooses the GPUs of a pod; their order is kept only where a pod has a whole node.")
    opening = header(request.problem, request.prediction, what="Start", use=use)
    documents = [_service(request, name)]
    if request.command.config:
        documents.append(lines("configmap.yaml", name=name, config=sh.config_rows(request.command)))
    documents.append(_leader_worker_set(request, name) if request.spans else _deployment(request, name))
    text = [*sh.comment(opening), *(row for document in documents for row in ("---", *document))]
    return (ScriptFile(name=NAME, text="\n".join([*text, ""])),)


def _one_replica_a_pod(request: Request) -> Request:
    """Replicas that the engine would balance inside one server become pods."""
    if request.servers[0].replicas == 1:
        return request
    each = request.plan.replica_gpus
    command: Command = request.engine.serve(request.problem, request.plan, Span(nodes=1, gpus_per_node=each, replicas=1))
    if request.options.trust_remote_code:
        command = replace(command, flags=(*command.flags, request.engine.trust_remote_code()))
    return replace(request, command=command)


def _service(request: Request, name: str) -> list[str]:
    leader = ["# The leaders answer, the workers do not.", 'leaderworkerset.sigs.k8s.io/worker-index: "0"'] if request.spans else []
    return lines("service.yaml", name=name, leader=leader, port=request.options.port)


def _deployment(request: Request, name: str) -> list[str]:
    return lines("deployment.yaml", name=name, replicas=request.plan.dp, pod=_pod(request, name, head=True))


def _leader_worker_set(request: Request, name: str) -> list[str]:
    return lines(
        "leaderworkerset.yaml", name=name, replicas=request.plan.dp, size=len(request.servers[0].nodes),
        leader=_pod(request, name, head=True), worker=_pod(request, name, head=False),
    )  # fmt: skip


def _pod(request: Request, name: str, *, head: bool) -> list[str]:
    mounts: list[Node] = []
    volumes: list[Node] = []
    if request.command.config:
        mounts.append({"name": "config", "mountPath": "/etc/advisor"})
        volumes.append({"name": "config", "configMap": {"name": name}})
    if request.command.per_rank:
        mounts.append({"name": "ssh", "mountPath": "/root/.ssh-keys", "readOnly": True})
        secret: dict[str, Node] = {"secretName": "mpi-ssh", "defaultMode": 256}
        volumes.append({"name": "ssh", "secret": Noted(secret, "Keys between the pods: id_rsa, id_rsa.pub, authorized_keys.")})
    rights = Noted({"capabilities": {"add": ["IPC_LOCK"]}}, "RDMA pins memory.")
    security: dict[str, Node] = {"securityContext": rights} if request.spans else {}
    ports: dict[str, Node] = {"ports": [{"name": "http", "containerPort": request.options.port}]} if head else {}
    return lines(
        "pod.yaml", image=request.image, environment=y.sequence(_environment(request)),
        process=y.mapping(_arguments(request, head=head)), ports=y.mapping(ports),
        gpus=str(len(request.servers[0].gpus[0]) // request.servers[0].replicas), mounts=y.sequence(mounts),
        probes=lines("probes.yaml", health=request.engine.HEALTH) if head else [], security=y.mapping(security),
        volumes=y.sequence(volumes),
    )  # fmt: skip


def _environment(request: Request) -> list[Node]:
    token: dict[str, Node] = {"secretKeyRef": {"name": "hf-token", "key": "token", "optional": True}}
    found: list[Node] = [
        Noted({"name": "MODEL", "value": _escaped(request.checkpoint)}, "A model id of the hub, or a folder mounted below."),
        {"name": "HF_TOKEN", "valueFrom": token},
    ]
    order = _order(request)
    if order:
        found.append(Noted({"name": "CUDA_VISIBLE_DEVICES", "value": order}, "GPUs in rank order."))
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


def _escaped(text: str) -> str:
    """Kubernetes expands `$(NAME)` in arguments and values; `$$` is a dollar."""
    return text.replace("$", "$$")


def _arguments(request: Request, *, head: bool) -> dict[str, Node]:
    command = request.bound(_values(request))
    flags = command.flags + (() if head else command.worker_flags)
    words = [_text(word) for word in command.program]
    arguments: list[Node] = [_flag(flag) for flag in flags]
    if command.per_rank:
        return _mpi(request, words, flags, head=head)
    if not head and any(flag.value == c.START_RANK for flag in flags):
        return _computed(request, words, flags)
    split = len(request.engine.PROGRAM)
    program: list[Node] = list(words[:split])
    return {"command": program, "args": [*words[split:], *arguments]}


def _computed(request: Request, words: list[str], flags: tuple[Flag, ...]) -> dict[str, Node]:
    """A worker whose first data-parallel rank has to be multiplied out: a shell does it."""
    each = len(request.servers[0].gpus[0]) // (request.plan.tp * request.plan.pp)
    kept: list[Node] = [_flag(flag) for flag in flags if flag.value != c.START_RANK]
    start = f'exec "$@" --data-parallel-start-rank=$((LWS_WORKER_INDEX * {each}))'
    return {
        "command": ["bash", "-c", Noted(start.replace("$(", "$$("), f"{each} data-parallel ranks on each node.")],
        "args": ["bash", *words, *kept],
    }


def _mpi(request: Request, words: list[str], flags: tuple[Flag, ...], *, head: bool) -> dict[str, Node]:
    """TensorRT-LLM over MPI: the workers offer ssh, the leader starts a rank for each GPU."""
    if not head:
        return {"command": ["bash", "-c", "\n".join(lines("mpi_worker.sh", ssh_port=SSH_PORT))]}
    size, each = len(request.servers[0].nodes), len(request.servers[0].gpus[0])
    # LWS names the pods of a group LEADER-0 ... : LEADER is the leader's own host name, its workers add -1, -2, ... to it.
    text = "\n".join(lines("mpi_leader.sh", each=each, workers=size - 1, ssh_port=SSH_PORT, ranks=size * each))
    arguments: list[Node] = [_flag(flag) for flag in flags]
    return {"command": ["bash", "-c", text.replace("$(", "$$(")], "args": ["bash", *words, *arguments]}


def _text(word: Word) -> str:
    return word.text if isinstance(word, Raw) else _escaped(str(word))


def _flag(flag: Flag) -> Node:
    text = flag.name if flag.value is None else f"{flag.name}={_text(flag.value)}"
    return Noted(text, f"{flag.why[0].upper()}{flag.why[1:]}.") if flag.why else text
