"""What a cluster needs beside the engine's command: storage, time to load, the right nodes, the network, keys, more replicas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from launch_questions import DEVICE, cluster, model, prediction, problem

from advisor.catalog.machines import load_cluster
from advisor.errors import QuestionError
from advisor.launch import render
from advisor.launch.script import Options
from advisor.specs.plan import Plan
from advisor.specs.prediction import Prediction


def documents(name: str, plan: Plan, options: Options | None = None, found: Prediction | None = None, **question) -> dict[str, Any]:
    """The manifest's documents by kind."""
    text = render(problem(name, **question), found or prediction(plan), target="kubernetes", options=options)[0].text
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def pods(found: dict[str, Any]) -> list[dict[str, Any]]:
    if "Deployment" in found:
        return [found["Deployment"]["spec"]["template"]["spec"]]
    group = found["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]
    return [group["leaderTemplate"]["spec"], group["workerTemplate"]["spec"]]


def weighing(plan: Plan, gigabytes: float) -> Prediction:
    found = prediction(plan)
    return replace(found, memory=replace(found.memory, weights_bytes=gigabytes * 1e9 / plan.replica_gpus))


def test_a_large_model_has_time_to_load_and_a_claim_that_keeps_it() -> None:
    plan = Plan(tp=8, pp=2)
    found = documents("vllm", plan, found=weighing(plan, 812), machine=cluster(nodes=2))  # Llama-3.1-405B in bf16
    head, worker = pods(found)
    probe = head["containers"][0]["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 7140  # 600 s + 812 GB at 125 MB/s, in whole minutes
    claim = found["PersistentVolumeClaim"]["spec"]
    assert claim["accessModes"] == ["ReadWriteMany"]
    assert claim["resources"]["requests"]["storage"] == "910Gi"  # 812 GB are 756 GiB, and a fifth
    for pod in (head, worker):
        assert {"name": "weights", "persistentVolumeClaim": {"claimName": "vllm-model-70b-weights"}} in pod["volumes"]
        assert pod["initContainers"][0]["volumeMounts"] == [{"name": "weights", "mountPath": "/weights"}]
        assert not any(volume["name"] == "cache" for volume in pod["volumes"])


def test_a_rollout_is_given_up_after_the_time_that_it_needs() -> None:
    plan = Plan(tp=8)
    found = documents("vllm", plan, found=weighing(plan, 141))
    assert found["Deployment"]["spec"]["progressDeadlineSeconds"] == 3480  # 600 s for the image, 600 s, and 141 GB twice
    assert found["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_a_claim_that_is_there_is_taken_and_a_folder_is_mounted() -> None:
    found = documents("vllm", Plan(tp=2), Options(claim="models"))
    assert "PersistentVolumeClaim" not in found
    assert pods(found)[0]["volumes"][1]["persistentVolumeClaim"] == {"claimName": "models"}
    (pod,) = pods(documents("vllm", Plan(tp=2), Options(checkpoint="/data/own model")))
    assert pod["volumes"][1] == {"name": "model", "hostPath": {"path": "/data/own model", "type": "Directory"}}
    assert {"name": "model", "mountPath": "/data/own model", "readOnly": True} in pod["containers"][0]["volumeMounts"]
    assert "initContainers" not in pod


def test_pods_ask_for_the_gpu_that_was_ranked_and_for_cores_and_memory() -> None:
    (pod,) = pods(documents("vllm", Plan(tp=4), machine=load_cluster(gpu="h100-80g-sxm", gpus=8)))
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-H100-80GB-HBM3"]}]
    assert pod["containers"][0]["resources"]["requests"] == {"cpu": "12", "memory": "64Gi"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_several_nodes_ask_for_the_network_adapters() -> None:
    for pod in pods(documents("vllm", Plan(tp=8, pp=2), machine=cluster(nodes=2))):
        assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "8", "rdma/rdma_shared_device_a": "1"}
    found = documents("vllm", Plan(tp=8, pp=2), Options(rdma="rdma/ib"), machine=cluster(nodes=2))
    assert "rdma/ib" in pods(found)[0]["containers"][0]["resources"]["limits"]
    slow = cluster(nodes=2)
    slow = replace(slow, network=replace(slow.network, rdma=False))
    assert "rdma" not in str(pods(documents("vllm", Plan(tp=8, pp=2), machine=slow))[0]["containers"][0]["resources"])
    assert "rdma" not in str(pods(documents("vllm", Plan(tp=8)))[0]["containers"][0]["resources"])


def test_trays_of_one_nvlink_domain_share_a_channel() -> None:
    found = documents("vllm", Plan(tp=8, dp=2), machine=load_cluster(gpu="gb200", gpus=72))
    domain = found["ComputeDomain"]["spec"]
    assert domain["numNodes"] == 4
    for pod in pods(found):
        assert pod["resourceClaims"][0]["resourceClaimTemplateName"] == domain["channel"]["resourceClaimTemplate"]["name"]
        assert pod["containers"][0]["resources"]["claims"] == [{"name": "imex"}]
        assert list(pod["containers"][0]["resources"]["limits"]) == ["nvidia.com/gpu"]  # nothing crosses the network
    assert "ComputeDomain" not in documents("vllm", Plan(tp=4, dp=2), machine=load_cluster(gpu="gb200", gpus=72))


def test_a_key_comes_from_a_secret() -> None:
    secret = {"secretKeyRef": {"name": "llm-api-key", "key": "key", "optional": True}}
    (pod,) = pods(documents("vllm", Plan(tp=2)))
    assert {"name": "VLLM_API_KEY", "valueFrom": secret} in pod["containers"][0]["env"]
    (pod,) = pods(documents("sglang", Plan(tp=2)))
    assert {"name": "API_KEY", "valueFrom": secret} in pod["containers"][0]["env"]
    assert pod["containers"][0]["command"] == ["bash", "-c", 'exec "$@" ${API_KEY:+--api-key "$API_KEY"}']


def test_amd_pods_ask_for_amd_gpus() -> None:
    device = replace(DEVICE, name="mi300x", vendor="amd", driver_names=("AMD Instinct MI300X OAM",))
    machine = cluster()
    machine = replace(machine, node=replace(machine.node, devices=(device,) * 8))
    (pod,) = pods(documents("vllm", Plan(tp=8), Options(image="vllm/vllm-openai-rocm:v0.33.0"), machine=machine))
    assert pod["containers"][0]["resources"]["limits"] == {"amd.com/gpu": "8"}
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0] == {
        "key": "amd.com/gpu.product-name", "operator": "In", "values": ["AMD_Instinct_MI300X_OAM"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("image", "name", "tag"),
    [
        ("vllm/vllm-openai:v0.33.0", "vllm/vllm-openai", "v0.33.0"), ("registry:5000/own/vllm", "registry:5000/own/vllm", "latest"),
        ("registry:5000/own/vllm:1", "registry:5000/own/vllm", "1"),
    ],
)  # fmt: skip
def test_a_kustomize_base_points_at_the_manifest(image: str, name: str, tag: str) -> None:
    files = render(problem(), prediction(Plan(tp=2)), target="kubernetes", options=Options(image=image))
    assert [file.name for file in files] == ["kubernetes.yaml", "kustomization.yaml", "bench.sh"]
    base = yaml.safe_load(files[1].text)
    assert base["resources"] == ["kubernetes.yaml"]
    assert base["images"] == [{"name": name, "newTag": tag}]
    digest = Options(image="vllm/vllm-openai@sha256:" + "0" * 64)
    assert "images" not in yaml.safe_load(render(problem(), prediction(Plan()), target="kubernetes", options=digest)[1].text)


def test_more_replicas_when_each_has_more_requests_than_were_predicted() -> None:
    scaled = documents("vllm", Plan(tp=2, dp=2), Options(autoscale=4), spec=model(moe=True))["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "vllm-model-70b"}
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (2, 4)
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["threshold"] == "32"  # 64 requests in flight on two replicas
    assert "vllm:num_requests_waiting" in trigger["metadata"]["query"]
    with pytest.raises(QuestionError, match="less than the 2 replicas"):
        documents("vllm", Plan(tp=2, dp=2), Options(autoscale=1))
    with pytest.raises(QuestionError, match="leave it out for trtllm"):
        documents("trtllm", Plan(tp=2, dp=2), Options(autoscale=4))
