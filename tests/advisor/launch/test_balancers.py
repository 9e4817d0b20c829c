"""The real nginx and the real sglang-router in front of stand-in servers: spread, long prompts, keys, certificates."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from launch_questions import model, prediction, problem
from launch_stand_ins import Box, free_ports, until_ready

from advisor.launch import render
from advisor.launch.script import Options
from advisor.specs.plan import Plan

REQUESTS = 64
nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed: apt-get install nginx-light")
router = pytest.mark.skipif(not importlib.util.find_spec("sglang_router"), reason="sglang-router is not installed: pip install it")
FOUR = {"plan": Plan(tp=2, dp=4), "spec": model(moe=True), "nginx": False}


def post(box: Box, size: int = 10, *, key: str = "", scheme: str = "http", seconds: float = 0.0) -> int:
    body = json.dumps({"model": "m", "prompt": "x" * size}).encode()
    headers = {"X-Seconds": str(seconds), "Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{box.port}/v1/completions", data=body, headers=headers)
    trusting = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, timeout=30, context=trusting) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def spread(box: Box) -> list[int]:
    """Requests that each server got."""
    return [len(path.read_text().splitlines()) for path in sorted(box.record.glob("requests-*"))]


@nginx
def test_nginx_spreads_concurrent_requests_evenly(box):
    here = box("trtllm", **FOUR)
    until_ready(here.start())
    with ThreadPoolExecutor(REQUESTS) as pool:
        assert set(pool.map(lambda _: post(here, seconds=1.5), range(REQUESTS))) == {200}
    found = spread(here)
    assert sum(found) == REQUESTS
    assert len(found) == 4
    assert max(found) - min(found) <= 2, found


@nginx
def test_nginx_passes_a_prompt_of_any_length_from_a_closed_folder(box):
    here = box("trtllm", **FOUR)
    here.folder.chmod(0o700)  # where root runs nginx, its workers are another user
    until_ready(here.start())
    sizes = [100, 15 * 1024, 64 * 1024, 5 * 2**20]
    assert [post(here, size) for size in sizes] == [200] * len(sizes)


@nginx
@pytest.mark.parametrize("name", ["trtllm", "vllm"])
def test_nginx_asks_for_the_key(box, name):
    here = box(name, **FOUR)
    until_ready(here.start(API_KEY="k1"))
    assert [post(here), post(here, key="k2"), post(here, key="k1")] == [401, 401, 200]
    with urllib.request.urlopen(f"http://127.0.0.1:{here.port}/health", timeout=5) as answer:
        assert answer.status == 200  # a probe has no key


def certificate(box: Box) -> dict[str, str]:
    cert, key = box.folder / "cert.pem", box.folder / "key.pem"
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", "-out", cert, "-keyout", key]
    subprocess.run(["openssl", "req", *map(str, words)], check=True, capture_output=True)
    return {"TLS_CERT": str(cert), "TLS_KEY": str(key)}


@nginx
def test_nginx_serves_https_with_a_certificate(box):
    here = box("trtllm", **FOUR)
    assert "ready: https://127.0.0.1" in until_ready(here.start(**certificate(here)))
    assert post(here, scheme="https") == 200


@nginx
@pytest.mark.parametrize("key", ["", "k1"])
def test_the_nginx_of_a_compose_file_balances_and_asks_for_the_key(box, key):
    """Its configuration is inside the file, with compose's variables in it: here they are filled in, and nginx runs it."""
    here = box("trtllm", **FOUR)
    until_ready(here.start())
    question = problem("trtllm", spec=model(moe=True))
    front = free_ports(5)
    text = render(question, prediction(Plan(tp=2, dp=4)), target="compose", options=Options(port=front))[0].text
    content = yaml.safe_load(text)["configs"]["nginx"]["content"]
    content = content.replace("${LISTEN:-127.0.0.1}", "127.0.0.1").replace("${API_KEY:+Bearer }", "Bearer " if key else "")
    content = content.replace("${API_KEY:-}", key).replace("$$", "$")
    for number in range(1, 5):
        content = content.replace(f"127.0.0.1:{front + number};", f"127.0.0.1:{here.port + number};")
    conf = here.folder / "compose-nginx.conf"
    conf.write_text(f"daemon off; pid {here.folder}/pid; error_log stderr;\n" + content)
    with (
        (here.folder / "nginx.log").open("w") as log,
        subprocess.Popen(["nginx", "-c", str(conf), "-e", "stderr"], stderr=log) as started,
    ):
        here.port = front
        answers = []
        for _ in range(300):
            assert started.poll() is None, (here.folder / "nginx.log").read_text()
            with contextlib.suppress(OSError):
                answers = [post(here), post(here, key="k2"), post(here, 200_000, key="k1")]
                break
            time.sleep(0.1)
        with ThreadPoolExecutor(REQUESTS) as pool:
            assert set(pool.map(lambda _: post(here, key="k1", seconds=1.0), range(REQUESTS))) == {200}
        started.terminate()
    assert answers == ([401, 401, 200] if key else [200, 200, 200])
    found = spread(here)
    assert max(found) - min(found) <= 3, found


@nginx
def test_a_crashed_server_loses_no_request(box):
    here = box("trtllm", **FOUR)
    until_ready(here.start(RESTARTS="1"))
    with contextlib.suppress(OSError, http.client.HTTPException):
        urllib.request.urlopen(f"http://127.0.0.1:{here.port + 1}/crash", timeout=5)
    assert {post(here) for _ in range(20)} == {200}


@router
def test_the_router_starts_spreads_and_asks_for_the_key(box):
    here = box("sglang", **FOUR)
    until_ready(here.start(API_KEY="k1"))
    assert post(here) == 401
    with ThreadPoolExecutor(REQUESTS) as pool:
        assert set(pool.map(lambda _: post(here, key="k1", seconds=0.5), range(REQUESTS))) == {200}
    assert sum(spread(here)) == REQUESTS
    commands = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in commands.splitlines() if "worker-urls" in line and "k1" in line]
