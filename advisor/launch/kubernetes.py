"""One manifest: a Deployment and its Service, or a LeaderWorkerSet where a replica is larger than a node; and their storage.

A pod is one replica; the Service spreads connections over the replicas (Kubernetes' own balancer takes nginx's place). The
device plugin gives a pod its GPUs, so their order can be kept only where a pod has all GPUs of its node.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.errors import QuestionError
from advisor.launch import shell as sh
from advisor.launch import yaml_text as y
from advisor.launch.docker import needs_image
from advisor.launch.layout import Span
from advisor.launch.patience import start_s
from advisor.launch.pod import beyond_domain, channel, pod, trays
from advisor.launch.request import Request, server_command
from advisor.launch.script import ScriptFile, header, plan_line
from advisor.launch.storage import Storage, claim, storage
from advisor.launch.template import lines
from advisor.launch.yaml_text import Node, Noted

NAME = "kubernetes.yaml"
IMAGE_S = 600  # Kubernetes' own default progressDeadlineSeconds, which is meant for the image and a quick start


def render(request: Request) -> tuple[ScriptFile, ...]:
    """The manifest of the plan."""
    needs_image(request)
    if not request.checkpoint:
        raise QuestionError(f"a manifest has to name the checkpoint; give --checkpoint: {request.wanted}.")
    if any(adapter.partition("=")[2].startswith("/") for adapter in request.options.loras):
        raise QuestionError("an adapter in a folder is not mounted into pods; give --lora NAME=MODEL_ID of the hub.")
    request = _one_replica_a_pod(request)
    name, weights = request.name, storage(request, request.name)
    opening = header(request.problem, request.prediction, what="Start", use=_use(request, name, weights))
    documents = [_service(request, name)]
    if weights.claim and not request.options.claim:
        documents.append(claim(request, name))
    if request.command.config:
        documents.append(lines("configmap.yaml", name=name, config=sh.config_rows(request.command)))
    if trays(request):
        nodes = request.plan.dp * len(request.servers[0].nodes)
        documents.append(lines("computedomain.yaml", name=name, nodes=nodes, channel=channel(request)))
    documents.append(_leader_worker_set(request, name, weights) if request.spans else _deployment(request, name, weights))
    if request.options.autoscale:
        documents.append(_scaled(request, name))
    text = [*sh.comment(opening), *(row for document in documents for row in ("---", *document))]
    return (ScriptFile(name=NAME, text="\n".join([*text, ""])), _kustomization(request))


def _kustomization(request: Request) -> ScriptFile:
    plan = sh.comment([plan_line(request.plan)])
    text = lines("kustomization.yaml", plan=plan, manifest=NAME, images=y.mapping(_images(request.image)))
    return ScriptFile(name="kustomization.yaml", text="\n".join([*text, ""]))


def _images(image: str) -> dict[str, Node]:
    """The engine's image, to be changed in one place; none where it is named by its digest."""
    if "@" in image:
        return {}
    name, _, tag = image.rpartition(":")
    if "/" in tag or not name:  # a registry's port is no tag, and an image may have none
        name, tag = image, "latest"
    return {"images": Noted([{"name": name, "newTag": tag}], "Another tag or registry for the engine.")}


def _use(request: Request, name: str, weights: Storage) -> list[str]:
    kind = "statefulset" if request.spans else "deployment"
    key = "clients send it as a bearer token" if request.engine.CHECKS_KEY else ""
    use = [
        f"Use: kubectl apply -f {NAME}",
        f"     kubectl rollout status {kind}/{name} --timeout={_deadline_s(request)}s",
        f"     kubectl port-forward service/{name} {request.options.port}",
        "The pods read a gated model with the token of a secret that is made once, by hand:",
        "     kubectl create secret generic hf-token --from-literal=token=hf_...",
    ]
    if key:
        use += [f"Who reaches the Service may use the model, unless there is a key; {key}:"]
        use += ["     kubectl create secret generic llm-api-key --from-literal=key=..."]
    else:
        use.append("Who reaches the Service may use the model: trtllm-serve checks no key. Keep the Service inside the cluster.")
    if weights.claim and not request.options.claim:
        use.append(f"The weights stay in the claim {weights.claim}; --claim takes one that is there.")
    if request.spans:
        use.append("A replica spans nodes: the LeaderWorkerSet operator has to be installed (lws.sigs.k8s.io).")
        use.append("Its ranks meet without a key: a NetworkPolicy or a namespace of its own keeps others out.")
    if request.spans and beyond_domain(request):
        use.append(
            f"The adapters are asked for as {request.options.rdma}; `kubectl describe node` shows your name for them (--rdma)."
        )
    if trays(request):
        use.append("A replica spans trays of one NVLink domain: NVIDIA's DRA driver for GPUs has to be installed.")
    if request.plan.gpus:
        use.append("The device plugin chooses the GPUs of a pod; their order is kept only where a pod has a whole node.")
    return use


def _one_replica_a_pod(request: Request) -> Request:
    """Replicas that the engine would balance inside one server become pods."""
    if request.servers[0].replicas == 1:
        return request
    span = Span(nodes=1, gpus_per_node=request.plan.replica_gpus, replicas=1)
    return replace(request, command=server_command(request.engine, request.problem, request.plan, span, request.options))


def _service(request: Request, name: str) -> list[str]:
    leader = ["# The leaders answer, the workers do not.", 'leaderworkerset.sigs.k8s.io/worker-index: "0"'] if request.spans else []
    return lines("service.yaml", name=name, leader=leader, port=request.options.port)


def _deadline_s(request: Request) -> int:
    return start_s(request.stored_bytes) + IMAGE_S


def _scrape(request: Request) -> list[str]:
    """Annotations by which Prometheus finds the metrics."""
    values = {"scrape": "true", "port": str(request.options.port), "path": request.engine.METRICS}
    return [f'prometheus.io/{key}: "{value}"' for key, value in values.items()]


def _deployment(request: Request, name: str, weights: Storage) -> list[str]:
    return lines(
        "deployment.yaml", name=name, replicas=request.plan.dp, deadline=_deadline_s(request), scrape=_scrape(request),
        pod=pod(request, name, weights, head=True),
    )  # fmt: skip


def _leader_worker_set(request: Request, name: str, weights: Storage) -> list[str]:
    return lines(
        "leaderworkerset.yaml", name=name, replicas=request.plan.dp, size=len(request.servers[0].nodes), scrape=_scrape(request),
        leader=pod(request, name, weights, head=True), worker=pod(request, name, weights, head=False),
    )  # fmt: skip


def _scaled(request: Request, name: str) -> list[str]:
    most, least = request.options.autoscale, request.plan.dp
    if most < least:
        raise QuestionError(f"--autoscale {most} is less than the {least} replicas of the plan; give more, or a plan with fewer.")
    if not request.engine.REQUESTS_METRICS:
        raise QuestionError("--autoscale reads vllm's or sglang's metrics; leave it out for trtllm.")
    query = " + ".join(f'sum({metric}{{pod=~"{name}-.*"}})' for metric in request.engine.REQUESTS_METRICS)
    group, kind = ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet") if request.spans else ("apps/v1", "Deployment")
    each = max(1, round(request.prediction.sequences / request.plan.dp))
    return lines(
        "scaledobject.yaml", name=name, group=group, kind=kind, least=least, most=most, cooldown=_deadline_s(request), query=query,
        threshold=str(each),
    )  # fmt: skip
