"""The docker script end to end, with a docker that starts the commands here: what a container gets, and how it is mended."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from launch_questions import DEVICE, cluster, model
from launch_stand_ins import Box, answers, put, until_ready

from advisor.specs.cluster import Cluster
from advisor.specs.plan import Plan

DOCKER = f"#!{sys.executable} -S\n" + (Path(__file__).parents[2] / "stand_in_docker.py").read_text(encoding="utf-8")


def amd() -> Cluster:
    device = replace(DEVICE, name="mi300x", vendor="amd", architecture="cdna3", compute_capability="gfx942")
    plain = cluster()
    return replace(plain, node=replace(plain.node, devices=(device,) * 8))


@pytest.fixture
def docker(box):
    def build(name: str = "vllm", plan: Plan | None = None, **question) -> Box:
        here = box(name, plan, target="docker", **question)
        put(here.folder / "bin" / "docker", DOCKER)
        put(here.folder / "bin" / "amd-smi", '#!/bin/sh\nfor i in 0 1 2 3 4 5 6 7; do echo "GPU: $i"; done\n')
        here.environment["HF_HOME"] = str(here.folder / 'cache, "with": odd letters')
        return here

    return build


def container(box: Box, name: str) -> dict:
    (path,) = box.record.glob(f"docker-*-{name}")
    return json.loads(path.read_text())


def test_a_container_gets_the_model_the_cache_and_the_environment(docker):
    here = docker()
    given = {"HF_ENDPOINT": "http://hub.local", "HF_HUB_OFFLINE": "1", "https_proxy": "http://p:1", "HF_TOKEN": "hf_x"}
    process = here.start(API_KEY="k1", **given)
    until_ready(process)
    assert answers(here)
    found = container(here, "server-0")
    kept = found["environment"]
    assert [kept[name] for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "https_proxy", "HF_TOKEN")] == list(given.values())
    assert kept["VLLM_API_KEY"] == "k1"
    assert kept["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    sources = {fields["source"]: fields["target"] for fields in found["mounts"]}
    assert sources[str(here.checkpoint)] == str(here.checkpoint)  # with a colon and a quote in it
    assert sources[here.environment["HF_HOME"]] == kept["HF_HOME"]
    assert not any("hf_x" in word or word == "k1" for word in found["options"] + found["command"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert here.nothing_left()


def test_a_container_that_ends_is_started_again(docker):
    here = docker("trtllm", Plan(tp=2, dp=2))
    process = here.start()
    until_ready(process)
    with contextlib.suppress(OSError, http.client.HTTPException):
        urllib.request.urlopen(f"http://127.0.0.1:{here.port + 1}/crash", timeout=5)
    assert any("server-0 has ended; starting it again (1 of 3)" in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_amd_gpus_reach_a_container(docker, name):
    here = docker(name, Plan(tp=2, gpus=(3, 1)), machine=amd())
    until_ready(here.start())
    found = container(here, "server-0")
    assert found["environment"]["HIP_VISIBLE_DEVICES"] == "3,1"
    assert found["environment"]["NCCL_MIN_NCHANNELS"] == "112"
    assert "--gpus" not in found["options"]
    assert found["options"][found["options"].index("--device") + 1] == "/dev/kfd"


def test_the_router_in_a_container_has_the_key_from_the_environment(docker):
    here = docker("sglang", Plan(tp=2, dp=2), spec=model(moe=True))
    process = here.start(API_KEY="k1")
    for line in process.stderr:
        if "started balancer" in line:
            break
    for _ in range(50):
        if list(here.record.glob("docker-*-balancer")):
            break
        time.sleep(0.1)
    found = container(here, "balancer")
    assert found["environment"]["API_KEY"] == "k1"
    assert not any(word == "k1" for word in found["command"])
