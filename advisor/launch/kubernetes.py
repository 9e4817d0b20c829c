"""One manifest: a Deployment and its Service, or a LeaderWorkerSet where a replica is larger than a node.

A pod is one replica; the Service spreads connections over the replicas (Kubernetes' own balancer takes nginx's place). The
device plugin gives a pod its GPUs, so their order can be kept only where a pod has all GPUs of its node.
"""

from __future__ import annotations

import json
from dataclasses import replace

from advisor.errors import QuestionError
from advisor.launch import words as c
from advisor.launch import yaml_text as y
from advisor.launch.docker import needs_image
from advisor.launch.layout import Span
from advisor.launch.request import Request
from advisor.launch.script import ScriptFile, header, slug
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
    documents: list[dict[str, Node]] = [_service(request, name)]
    if request.command.config:
        documents.append(_config(request, name))
    documents.append(_leader_worker_set(request, name) if request.spans else _deployment(request, name))
    head = "\n".join(f"# {line}".rstrip() for line in opening) + "\n"
    return (ScriptFile(name=NAME, text=head + "".join("---\n" + y.document(d) for d in documents)),)


def _one_replica_a_pod(request: Request) -> Request:
    """Replicas that the engine would balance inside one server become pods."""
    if request.servers[0].replicas == 1:
        return request
    each = request.plan.replica_gpus
    command: Command = request.engine.serve(request.problem, request.plan, Span(nodes=1, gpus_per_node=each, replicas=1))
    if request.options.trust_remote_code:
        command = replace(command, flags=(*command.flags, request.engine.trust_remote_code()))
    return replace(request, command=command)


def _labels(name: str) -> dict[str, Node]:
    return {"app": name}


def _service(request: Request, name: str) -> dict[str, Node]:
    selector = _labels(name)
    if request.spans:
        selector |= {"leaderworkerset.sigs.k8s.io/worker-index": Noted("0", "The leaders answer, the workers do not.")}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": request.options.port, "targetPort": "http"}]},
    }


def _config(request: Request, name: str) -> dict[str, Node]:
    rows = [f"{key}: {json.dumps(value)}" for key, value in request.command.config.items()]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": _labels(name)},
        "data": {"trtllm.yaml": "\n".join(rows) + "\n"},
    }


def _deployment(request: Request, name: str) -> dict[str, Node]:
    pod = _pod(request, name, _arguments(request, head=True), head=True)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "replicas": Noted(request.plan.dp, "One pod a replica of the model."),
            "selector": {"matchLabels": _labels(name)},
            "strategy": Noted({"type": "Recreate"}, "A rolling update would need GPUs beside those in use."),
            "template": {"metadata": {"labels": _labels(name)}, "spec": pod},
        },
    }


def _leader_worker_set(request: Request, name: str) -> dict[str, Node]:
    size = len(request.servers[0].nodes)

    def template(head: bool) -> Node:
        return {"metadata": {"labels": _labels(name)}, "spec": _pod(request, name, _arguments(request, head=head), head=head)}

    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "replicas": Noted(request.plan.dp, "Replicas of the model."),
            "leaderWorkerTemplate": {
                "size": Noted(size, "Nodes of a replica, a pod each."),
                "restartPolicy": Noted("RecreateGroupOnPodRestart", "The ranks of a group only work together."),
                "leaderTemplate": template(True),
                "workerTemplate": template(False),
            },
        },
    }


def _pod(request: Request, name: str, process: dict[str, Node], *, head: bool) -> dict[str, Node]:
    gpus = str(len(request.servers[0].gpus[0]) // request.servers[0].replicas)
    mounts: list[Node] = [{"name": "dshm", "mountPath": "/dev/shm"}, {"name": "cache", "mountPath": "/root/.cache/huggingface"}]
    volumes: list[Node] = [
        {"name": "dshm", "emptyDir": Noted({"medium": "Memory"}, "The workers exchange tensors through shared memory.")},
        {"name": "cache", "emptyDir": Noted({}, "A persistentVolumeClaim here keeps the weights between starts.")},
    ]
    if request.command.config:
        mounts.append({"name": "config", "mountPath": "/etc/advisor"})
        volumes.append({"name": "config", "configMap": {"name": name}})
    if request.command.per_rank:
        mounts.append({"name": "ssh", "mountPath": "/root/.ssh-keys", "readOnly": True})
        secret: dict[str, Node] = {"secretName": "mpi-ssh", "defaultMode": 256}
        volumes.append({"name": "ssh", "secret": Noted(secret, "Keys between the pods: id_rsa, id_rsa.pub, authorized_keys.")})
    container: dict[str, Node] = {
        "name": "server",
        "image": request.image,
        "env": _environment(request, head=head),
        **process,
        **({"ports": [{"name": "http", "containerPort": request.options.port}]} if head else {}),
        "resources": {"limits": {"nvidia.com/gpu": gpus}},
        "volumeMounts": mounts,
        **(_probes(request) if head else {}),
    }
    if request.spans:
        container["securityContext"] = Noted({"capabilities": {"add": ["IPC_LOCK"]}}, "RDMA pins memory.")
    return {
        "enableServiceLinks": Noted(False, "A Service called vllm would set VLLM_PORT to an address, and vLLM would not start."),
        "terminationGracePeriodSeconds": 60,
        "containers": [container],
        "volumes": volumes,
    }


def _environment(request: Request, *, head: bool) -> list[Node]:
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
    keys = "mkdir -p /run/sshd /root/.ssh\ncp /root/.ssh-keys/* /root/.ssh/\nchmod 600 /root/.ssh/*"
    if not head:
        return {"command": ["bash", "-c", f"{keys}\nexec /usr/sbin/sshd -D -e -p {SSH_PORT}"]}
    server = request.servers[0]
    size, each = len(server.nodes), len(server.gpus[0])
    # LWS names the pods of a group LEADER-0 ... : LEADER is the leader's own host name, its workers add -1, -2, ... to it.
    lines = [
        keys,
        f"hosts=$LWS_LEADER_ADDRESS:{each}",
        f"for i in $(seq 1 {size - 1}); do",
        "  worker=${LWS_LEADER_ADDRESS/./-$i.}",
        f"  until (exec 3<>/dev/tcp/$worker/{SSH_PORT}) 2>/dev/null; do sleep 2; done",
        f"  hosts+=,$worker:{each}",
        "done",
        f'exec mpirun --allow-run-as-root -n {size * each} -H "$hosts" \\',
        f'  --mca plm_rsh_args "-p {SSH_PORT} -o StrictHostKeyChecking=accept-new" \\',
        '  -x HF_TOKEN -x NCCL_SOCKET_IFNAME trtllm-llmapi-launch "$@"',
    ]
    arguments: list[Node] = [_flag(flag) for flag in flags]
    return {"command": ["bash", "-c", "\n".join(lines).replace("$(", "$$(")], "args": ["bash", *words, *arguments]}


def _text(word: Word) -> str:
    return word.text if isinstance(word, Raw) else _escaped(str(word))


def _flag(flag: Flag) -> Node:
    text = flag.name if flag.value is None else f"{flag.name}={_text(flag.value)}"
    return Noted(text, f"{flag.why[0].upper()}{flag.why[1:]}.") if flag.why else text


def _probes(request: Request) -> dict[str, Node]:
    ask: dict[str, Node] = {"httpGet": {"path": request.engine.HEALTH, "port": "http"}, "timeoutSeconds": 5}
    return {
        "startupProbe": {**ask, "periodSeconds": 10, "failureThreshold": Noted(360, "An hour for loading the weights.")},
        "readinessProbe": {**ask, "periodSeconds": 5},
        "livenessProbe": {**ask, "periodSeconds": 20, "failureThreshold": 6},
    }
