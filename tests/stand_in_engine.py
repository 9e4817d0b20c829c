"""A stand-in for every engine: it records how it was started, has a child as engines have, and answers when asked to.

It is copied under an engine's name, so it imports nothing of ours. `CRASH_AT_START` is a port, `STUBBORN` ignores SIGTERM.
"""

import http.server
import json
import os
import pathlib
import signal
import socketserver
import subprocess
import sys
import time

argv, record = sys.argv, os.environ["RECORD"]
name = os.path.basename(argv[0])
KEPT = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "VLLM_PP_LAYER_PARTITION", "SGLANG_PP_LAYER_PARTITION",
    "VLLM_HOST_IP", "VLLM_API_KEY", "SLURM_PROCID", "SLURMD_NODENAME",
)  # fmt: skip


def value(*names):
    return next((argv[i + 1] for i, word in enumerate(argv) if word in names), None)


if name == "trtllm-llmapi-launch":  # one a rank; the first of them becomes the server
    rank = os.environ.get("SLURM_PROCID", os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
    with open(os.path.join(record, f"rank-{os.getpid()}"), "w") as out:
        out.write("\n".join([rank, *argv[1:]]))
    if rank != "0":
        time.sleep(300)
    os.execvp(argv[1], argv[1:])

port = int(value("--port"))
entry = {
    "argv": argv[1:], "env": {key: os.environ.get(key) for key in KEPT}, "pid": os.getpid(),
    "config": pathlib.Path(value("--config")).read_text() if value("--config") else "",
}  # fmt: skip
with open(os.path.join(record, f"{name}-{port}-{os.environ.get('SLURM_PROCID', '0')}.json"), "w") as out:
    json.dump(entry, out)
if os.environ.get("CRASH_AT_START") == str(port):
    print("RuntimeError: CUDA out of memory")
    sys.exit(7)
subprocess.Popen(["sleep", "300"])  # engines have children; they must go too
if "--headless" in argv or value("--node-rank") not in (None, "0"):
    time.sleep(300)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(9)
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(os.path.join(record, f"requests-{port}"), "a") as out:
            out.write(f"{len(body)}\n")
        time.sleep(float(self.headers.get("X-Seconds", "0")))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *words):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
Server((value("--host"), port), Handler).serve_forever()
