"""The batch file with IMAGE: what pyxis is told to mount. No pyxis is here: srun is a stand-in that notes its options."""

from __future__ import annotations

import json
import signal
import sys

import pytest
from launch_stand_ins import Box, put, until_ready

from advisor.specs.plan import Plan

SRUN = f"""#!{sys.executable} -S
import json, os, sys
at = next(i for i, word in enumerate(sys.argv[1:], 1) if not word.startswith("--"))
with open(os.path.join(os.environ["RECORD"], "srun"), "w") as out:
    json.dump({{"options": sys.argv[1:at], "HF_HOME": os.environ.get("HF_HOME")}}, out)
os.execvp(sys.argv[at], sys.argv[at:])
"""


@pytest.fixture
def job(box):
    here: Box = box("vllm", Plan(tp=2), target="slurm")
    put(here.folder / "bin" / "srun", SRUN)
    put(here.folder / "bin" / "scontrol", "#!/bin/sh\necho 127.0.0.1\n")
    model = here.folder / "model"
    model.mkdir()
    here.environment |= {
        "SLURM_JOB_NODELIST": "127.0.0.1", "IMAGE": "vllm/vllm-openai:v1", "HF_HOME": str(here.folder / "hub"),
        "RUN_DIR": str(here.folder / "run"), "MODEL": str(model),
    }  # fmt: skip
    return here


def test_the_model_and_the_cache_are_mounted_where_they_are(job):
    process = job.start()
    until_ready(process)
    found = json.loads((job.record / "srun").read_text())
    mounts = next(word for word in found["options"] if word.startswith("--container-mounts=")).partition("=")[2].split(",")
    folder = str(job.folder)
    assert mounts == [f"{folder}/hub:{folder}/hub", f"{folder}/run:{folder}/run", f"{folder}/model:{folder}/model:ro"]
    assert found["HF_HOME"] == f"{folder}/hub"
    assert "--ntasks=1" in found["options"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143


def test_a_path_that_pyxis_would_split_is_refused(job):
    odd = job.folder / "a:b"
    odd.mkdir()
    done = job.run(MODEL=str(odd))
    assert (done.returncode, "a path with a colon or a comma cannot be mounted into IMAGE" in done.stderr) == (1, True)
