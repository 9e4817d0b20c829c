"""TensorRT-LLM over several nodes from the head: the real mpirun starts a rank for each GPU, with what the ranks need."""

from __future__ import annotations

import shutil
import signal
import time

import pytest
from launch_questions import cluster, prediction, problem
from launch_stand_ins import put, until_ready

from advisor.errors import QuestionError
from advisor.launch import render
from advisor.launch.script import Options
from advisor.specs.plan import Plan

TWO = {"machine": cluster(nodes=2)}
# Both "nodes" are this machine: ssh runs the command here, whatever host it is for.
SSH = '#!/bin/bash\nwhile [[ $1 == -* ]]; do [[ $1 == -[po] ]] && shift; shift; done\nshift\nexec bash -c "$*"\n'


@pytest.mark.skipif(not shutil.which("mpirun"), reason="Open MPI is not installed: apt-get install openmpi-bin")
def test_mpirun_starts_a_rank_for_each_gpu(box):
    here = box("trtllm", Plan(tp=2, pp=2, gpus=(0, 1, 8, 9)), **TWO)
    put(here.folder / "bin" / "ssh", SSH)
    process = here.start(
        HOSTS="127.0.0.1 127.0.0.1", IFNAME="lo", LD_LIBRARY_PATH="/nowhere", OMPI_MCA_rmaps_base_oversubscribe="1"
    )
    assert "keep HOSTS on a network of their own" in until_ready(process)
    for _ in range(50):
        ranks = sorted(int(path.read_text().splitlines()[0]) for path in here.record.glob("rank-*"))
        if len(ranks) == 4:
            break
        time.sleep(0.1)
    assert ranks == [0, 1, 2, 3]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    for _ in range(100):  # mpirun's own helpers on the other nodes end a moment after it
        if here.nothing_left():
            break
        time.sleep(0.1)
    assert here.nothing_left()


def test_a_path_that_the_launcher_would_split_is_refused(box):
    options = Options(checkpoint="/data/my model")
    with pytest.raises(QuestionError, match="splits the path"):
        render(problem("trtllm", **TWO), prediction(Plan(tp=8, pp=2)), target="bash", options=options)
    here = box("trtllm", Plan(tp=2, pp=2, gpus=(0, 1, 8, 9)), **TWO)
    put(here.folder / "bin" / "mpirun", "#!/bin/sh\n")
    spaced = here.folder / "a b"
    spaced.mkdir()
    done = here.run(HOSTS="127.0.0.1 127.0.0.2", MODEL=str(spaced))
    assert (done.returncode, "splits a path at its spaces" in done.stderr) == (1, True)
