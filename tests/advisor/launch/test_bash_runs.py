"""The bash script end to end, against stand-in engines that record their arguments and serve a health endpoint."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from launch_questions import model, prediction, problem

from advisor.launch import render
from advisor.launch.script import Options
from advisor.specs.plan import Plan

STAND_IN = """#!{python} -S
import http.server, json, os, signal, socketserver, subprocess, sys, time
argv = sys.argv
name = os.path.basename(argv[0])
def value(*names):
    return next(argv[i + 1] for i, a in enumerate(argv) if a in names)
port = int(value("--port"))
with open(os.path.join(os.environ["RECORD"], f"{{name}}-{{port}}.json"), "w") as out:
    keys = ("CUDA_VISIBLE_DEVICES", "VLLM_PP_LAYER_PARTITION", "SGLANG_PP_LAYER_PARTITION", "VLLM_HOST_IP")
    config = open(value("--config")).read() if "--config" in argv else ""
    json.dump({{"argv": argv[1:], "env": {{k: os.environ.get(k) for k in keys}}, "config": config, "pid": os.getpid()}}, out)
if os.environ.get("CRASH_AT_START") == str(port):
    print("RuntimeError: CUDA out of memory"); sys.exit(7)
worker = subprocess.Popen(["sleep", "300"])  # engines have children; they must go too
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash": os._exit(9)
        self.send_response(200 if self.path == "/health" else 404); self.end_headers()
    def log_message(self, *a): pass
class Server(socketserver.TCPServer):
    allow_reuse_address = True
server = Server((value("--host"), port), Handler)
if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
server.serve_forever()
"""

NGINX = """#!{python} -S
import http.server, os, re, socketserver, sys
prefix = sys.argv[sys.argv.index("-p") + 1]
text = open(os.path.join(prefix, "nginx.conf")).read()
host, port = re.search(r"listen (\\S+):(\\d+);", text).groups()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
class Server(socketserver.TCPServer):
    allow_reuse_address = True
Server((host, int(port)), Handler).serve_forever()
"""


def _heed_interrupts() -> None:
    """A shell cannot trap what it was born ignoring, and tests in the background are started with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Box:
    """A folder with the script and stand-ins, and a way to run it."""

    def __init__(self, folder: Path, name: str, plan: Plan, **question) -> None:
        self.folder, self.record = folder, folder / "record"
        self.started: list[subprocess.Popen[str]] = []
        self.record.mkdir()
        self.port = free_ports(2 + plan.dp)
        tools = folder / "bin"
        tools.mkdir()
        for program in ("vllm", "sglang", "trtllm-serve"):
            put(tools / program, STAND_IN.format(python=sys.executable))
        put(tools / "nginx", NGINX.format(python=sys.executable))
        put(tools / "nvidia-smi", '#!/bin/sh\nfor i in 0 1 2 3 4 5 6 7; do echo "GPU $i: H100 (UUID: GPU-$i)"; done\n')
        self.checkpoint = folder / "a model's $(touch oops) folder"
        self.checkpoint.mkdir()
        options = Options(checkpoint=str(self.checkpoint), port=self.port)
        self.script, _ = render(problem(name, **question), prediction(plan), target="bash", options=options)
        put(folder / "start.sh", self.script.text)
        self.environment = {
            **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "RECORD": str(self.record), "READY_SECONDS": "20",
            "STOP_SECONDS": "2", "LISTEN": "127.0.0.1",
        }  # fmt: skip

    def start(self, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(self.folder / "start.sh")], env=self.environment | environment, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=_heed_interrupts,
        )  # fmt: skip
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(15)
            process.stderr.close()

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "start.sh"), *words], env=self.environment | environment, capture_output=True, text=True, timeout=60
        )

    def records(self) -> dict[str, dict]:
        return {path.stem: json.loads(path.read_text()) for path in sorted(self.record.glob("*.json"))}

    def nothing_left(self) -> bool:
        """Whether no process of the stand-ins is left: they all carry the record folder in their environment."""
        mark = f"RECORD={self.record}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                    if state != "Z" and mark in (entry / "environ").read_bytes():
                        return False
                except OSError:
                    continue
        return True


def put(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def free_ports(count: int) -> int:
    """A port with `count` free ones after it."""
    for first in range(21000 + os.getpid() * 97 % 20000, 60000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


def until_ready(process: subprocess.Popen[str]) -> str:
    said = ""
    for line in process.stderr:
        said += line
        if "ready: " in line:
            return said
    raise AssertionError(f"never ready: {said}")


def answers(box: Box) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{box.port}/health", timeout=5) as answer:
        return answer.status == 200


@pytest.fixture
def box(tmp_path: Path):
    boxes: list[Box] = []

    def build(name: str = "vllm", plan: Plan | None = None, **question) -> Box:
        boxes.append(Box(tmp_path, name, plan or Plan(tp=2), **question))
        return boxes[-1]

    yield build
    for made in boxes:
        made.close()


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
def test_starts_answers_and_stops(box, name):
    here = box(name, Plan(tp=2, pp=2, layer_split=(15, 17), gpus=(2, 3, 1, 0)))
    process = here.start()
    until_ready(process)
    assert answers(here)
    (record,) = here.records().values()
    assert str(here.checkpoint) in record["argv"]
    assert not (here.folder / "oops").exists()
    assert record["env"]["CUDA_VISIBLE_DEVICES"] == "2,3,1,0"
    split = {"vllm": "VLLM_PP_LAYER_PARTITION", "sglang": "SGLANG_PP_LAYER_PARTITION"}.get(name)
    assert record["env"][split] == "15,17" if split else "pp_partition: [15, 17]" in record["config"]
    again = here.run()
    assert (again.returncode, "already running" in again.stderr) == (0, True)
    stopped = here.run("stop")
    assert (stopped.returncode, "stopped" in stopped.stderr) == (0, True)
    assert process.wait(10) == 143
    assert here.nothing_left()
    nothing = here.run("stop")
    assert (nothing.returncode, "nothing is running" in nothing.stderr) == (0, True)


def test_replicas_stand_behind_the_balancer(box):
    here = box("vllm", Plan(tp=2, dp=2), spec=model(moe=True))
    process = here.start()
    until_ready(process)
    devices = [record["env"]["CUDA_VISIBLE_DEVICES"] for record in here.records().values()]
    assert devices == ["0,1", "2,3"]
    assert answers(here)
    conf = (here.folder / "run" / "nginx.conf").read_text()
    assert f"server 127.0.0.1:{here.port + 1};" in conf
    assert f"server 127.0.0.1:{here.port + 2};" in conf
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert here.nothing_left()


def test_interrupt_stops_everything(box):
    here = box()
    process = here.start()
    until_ready(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(10) == 130
    assert here.nothing_left()


def test_interrupt_while_loading_stops_everything(box):
    here = box("vllm", Plan(tp=2))
    put(here.folder / "bin" / "vllm", '#!/bin/bash\ntouch "$RECORD/up"\nsleep 300\n')
    process = here.start()
    for _ in range(100):
        if (here.record / "up").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(10) == 130
    assert here.nothing_left()


def test_an_engine_that_ignores_the_signal_is_killed(box):
    here = box()
    process = here.start(STUBBORN="1")
    until_ready(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 143
    assert here.nothing_left()


def test_a_crash_at_start_shows_the_log_and_fails(box):
    here = box()
    done = here.run(CRASH_AT_START=str(here.port))
    assert done.returncode == 1
    assert "CUDA out of memory" in done.stderr
    assert "error: server-0 has ended" in done.stderr
    assert here.nothing_left()


def test_the_crash_of_one_replica_stops_the_others(box):
    here = box("trtllm", Plan(tp=2, dp=2))
    process = here.start()
    until_ready(process)
    with contextlib.suppress(OSError, http.client.HTTPException):
        urllib.request.urlopen(f"http://127.0.0.1:{here.port + 2}/crash", timeout=5)
    assert process.wait(15) == 1
    assert "error: server-1 has ended" in process.stderr.read()
    assert here.nothing_left()


def test_a_port_in_use_is_told_before_anything_starts(box):
    here = box()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", here.port))
        taken.listen()
        done = here.run()
    assert done.returncode == 1
    assert f"error: port {here.port} is in use" in done.stderr
    assert not here.records()


def test_not_ready_in_time(box):
    here = box()
    put(here.folder / "bin" / "vllm", "#!/bin/bash\nsleep 300\n")
    done = here.run(READY_SECONDS="1")
    assert done.returncode == 1
    assert "gave no answer within 1 s" in done.stderr
    assert here.nothing_left()


def test_too_few_gpus(box):
    here = box("vllm", Plan(tp=8))
    put(here.folder / "bin" / "nvidia-smi", "#!/bin/sh\necho 'GPU 0: H100'\n")
    done = here.run()
    assert (done.returncode, "this machine shows 1 GPUs and the plan needs 8" in done.stderr) == (1, True)
    assert not here.records()


def test_a_missing_engine_and_a_missing_model(box):
    here = box()
    gone = here.run(MODEL="/no/such/folder")
    assert (gone.returncode, "there is no folder /no/such/folder" in gone.stderr) == (1, True)
    (here.folder / "bin" / "vllm").unlink()
    done = here.run(PATH=f"{here.folder / 'bin'}:/usr/bin:/bin")
    assert (done.returncode, "vllm is not installed here: pip install vllm==0.33.0" in done.stderr) == (1, True)


def test_a_gated_model_without_a_token(box):
    here = box()
    put(here.folder / "bin" / "curl", '#!/bin/sh\ncat > "$RECORD/stdin"\necho "$@" > "$RECORD/args"\nprintf 401\n')
    clean = {"HF_TOKEN": "", "HF_HOME": str(here.folder / "hub"), "HF_HUB_OFFLINE": ""}
    done = here.run(MODEL="meta-llama/gated", **clean)
    assert (done.returncode, "put a token that may read it into HF_TOKEN" in done.stderr) == (1, True)
    here.run(MODEL="meta-llama/gated", **clean | {"HF_TOKEN": "hf_secret"})
    assert "hf_secret" in (here.record / "stdin").read_text()
    assert "hf_secret" not in (here.record / "args").read_text()


@pytest.mark.parametrize("bad", [{"PORT": "80; rm"}, {"LISTEN": "0.0.0.0; }"}])
def test_what_goes_into_configuration_files_is_checked(box, bad):
    done = box("vllm", Plan(tp=2, dp=2), spec=model(moe=True)).run(**bad)
    assert done.returncode == 1
    assert f"error: {next(iter(bad))} is" in done.stderr
