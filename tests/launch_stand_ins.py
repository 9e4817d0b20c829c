"""Stand-ins for the engines, and a folder with a script and a way to run it: what the launch tests start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from launch_questions import prediction, problem

from advisor.launch import render
from advisor.launch.script import Options
from advisor.specs.plan import Plan

ENGINE = f"#!{sys.executable} -S\n" + Path(__file__).with_name("stand_in_engine.py").read_text(encoding="utf-8")

NGINX = """#!{python} -S
import http.server, os, re, socketserver, sys
prefix = sys.argv[sys.argv.index("-p") + 1] if "-p" in sys.argv else ""
text = open(os.path.join(prefix, sys.argv[sys.argv.index("-c") + 1])).read()
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

    def __init__(self, folder: Path, name: str, plan: Plan, *, target: str = "bash", nginx: bool = True, **question) -> None:
        self.folder, self.record = folder, folder / "record"
        self.started: list[subprocess.Popen[str]] = []
        self.record.mkdir()
        self.port = free_ports(2 + plan.dp)
        tools = folder / "bin"
        tools.mkdir()
        for program in ("vllm", "sglang", "trtllm-serve", "trtllm-llmapi-launch"):
            put(tools / program, ENGINE)
        if nginx:
            put(tools / "nginx", NGINX.format(python=sys.executable))
        put(tools / "nvidia-smi", '#!/bin/sh\nfor i in 0 1 2 3 4 5 6 7; do echo "GPU $i: H100 (UUID: GPU-$i)"; done\n')
        self.checkpoint = folder / ("model" if name == "trtllm" else "a model's $(touch oops): folder")
        self.checkpoint.mkdir()
        options = Options(checkpoint=str(self.checkpoint), port=self.port)
        self.script, _ = render(problem(name, **question), prediction(plan), target=target, options=options)
        put(folder / self.script.name, self.script.text)
        self.environment = {
            **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "RECORD": str(self.record), "READY_SECONDS": "60",
            "STOP_SECONDS": "2",
        }  # fmt: skip

    def start(self, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(self.folder / self.script.name)], env=self.environment | environment, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=_heed_interrupts,
        )  # fmt: skip
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)
            process.stderr.close()

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / self.script.name), *words],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
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
    """The first of `count` free ports, below those that the system gives to clients; workers of pytest-xdist begin far apart."""
    for first in range(12000 + os.getpid() * 997 % 18000, 32000, count):
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
