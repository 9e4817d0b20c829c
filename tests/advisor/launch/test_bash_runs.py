"""The bash script end to end, against stand-in engines that record their arguments and serve a health endpoint."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
import urllib.request

import pytest
from launch_questions import cluster, model
from launch_stand_ins import Box, answers, put, until_ready

from advisor.specs.plan import Plan


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
    assert process.wait(30) == 143
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
    assert process.wait(30) == 143
    assert here.nothing_left()


def test_interrupt_stops_everything(box):
    here = box()
    process = here.start()
    until_ready(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(30) == 130
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
    assert process.wait(30) == 130
    assert here.nothing_left()


def test_an_engine_that_ignores_the_signal_is_killed(box):
    here = box()
    process = here.start(STUBBORN="1")
    until_ready(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert here.nothing_left()


def test_a_crash_at_start_shows_the_log_and_fails(box):
    here = box()
    done = here.run(CRASH_AT_START=str(here.port))
    assert done.returncode == 1
    assert "CUDA out of memory" in done.stderr
    assert "error: server-0 has ended" in done.stderr
    assert here.nothing_left()


def crash(box: Box, port: int) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/crash", timeout=5)


def until_said(process: subprocess.Popen[str], words: str) -> None:
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"never said: {words}")


def until_answers(port: int) -> bool:
    for _ in range(100):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
        time.sleep(0.1)
    return False


def test_a_replica_that_crashes_is_started_again(box):
    here = box("trtllm", Plan(tp=2, dp=2))
    process = here.start()
    until_ready(process)
    before = here.records()[f"trtllm-serve-{here.port + 2}-0"]["pid"]
    crash(here, here.port + 2)
    until_said(process, "server-1 has ended; starting it again (1 of 3)")
    assert until_answers(here.port + 2)
    assert here.records()[f"trtllm-serve-{here.port + 2}-0"]["pid"] != before
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert here.nothing_left()  # nor the children of the server that crashed


def test_restarts_are_bounded(box):
    here = box("trtllm", Plan(tp=2, dp=2))
    process = here.start(RESTARTS="1")
    until_ready(process)
    crash(here, here.port + 2)
    until_said(process, "(1 of 1)")
    assert until_answers(here.port + 2)
    crash(here, here.port + 2)
    assert process.wait(30) == 1
    assert "error: server-1 has ended, so the rest is stopped too" in process.stderr.read()
    assert here.nothing_left()


def test_stop_needs_nothing_set(box):
    here = box("vllm", Plan(tp=8, pp=2), spec=model(weights="int4"), machine=cluster(nodes=2))
    done = here.run("stop")
    assert (done.returncode, done.stderr) == (0, "nothing is running\n")
    started = here.run()
    assert (started.returncode, "set HOSTS to" in started.stderr) == (1, True)


@pytest.mark.parametrize("name", ["STOP_SECONDS", "READY_SECONDS", "RESTARTS"])
def test_a_number_that_is_none_starts_nothing(box, name):
    here = box()
    done = here.run(**{name: "soon"})
    assert (done.returncode, f"error: {name} is soon; give a whole number" in done.stderr) == (1, True)
    assert not here.records()
    assert here.nothing_left()


def test_only_this_machine_is_served_unless_asked(box):
    here = box()
    process = here.start()
    said = until_ready(process)
    (record,) = here.records().values()
    assert record["argv"][record["argv"].index("--host") + 1] == "127.0.0.1"
    assert "warning" not in said
    assert record["env"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    here.run("stop")
    open_to_all = here.start(LISTEN="0.0.0.0")
    assert f"warning: without API_KEY, whoever reaches port {here.port} of 0.0.0.0 may use the model" in until_ready(open_to_all)
    here.run("stop")
    assert "warning" not in until_ready(here.start(LISTEN="0.0.0.0", API_KEY="k1"))


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_the_key_reaches_the_engine_and_no_process_list(box, name):
    here = box(name)
    process = here.start(API_KEY="s3cret", VLLM_API_KEY="")
    until_ready(process)
    (record,) = here.records().values()
    assert not any("s3cret" in word for word in record["argv"])
    if name == "vllm":
        assert record["env"]["VLLM_API_KEY"] == "s3cret"
    else:
        assert record["config"] == 'api-key: "s3cret"\n'
        assert (here.folder / "run" / "sglang.yaml").stat().st_mode & 0o77 == 0


def test_an_engine_that_checks_no_key_says_so(box):
    here = box("trtllm")
    done = here.run(API_KEY="k1")
    assert (done.returncode, "trtllm-serve checks no API key" in done.stderr) == (1, True)
    done = here.run(API_KEY='k"; rm')
    assert "error: API_KEY holds characters that no bearer token has" in done.stderr


def test_gpu_ids_become_indices_for_sglang(box):
    ids = ("GPU-aa", "GPU-bb", "GPU-cc")
    here = box("sglang", Plan(tp=2, gpus=(2, 0)), machine=cluster(gpus=3, ids=ids))
    smi = '#!/bin/sh\ncase "$1" in -L) printf "GPU 0\\nGPU 1\\nGPU 2\\n" ;; --id=GPU-cc) echo 5 ;; *) echo 3 ;; esac\n'
    put(here.folder / "bin" / "nvidia-smi", smi)
    until_ready(here.start())
    (record,) = here.records().values()
    assert record["env"]["CUDA_VISIBLE_DEVICES"] == "5,3"


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
