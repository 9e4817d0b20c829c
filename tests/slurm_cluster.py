"""A Slurm of two nodes on this machine: the system's own slurmctld and slurmd, two of them, on two loopback addresses."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

NODES = ("127.0.0.1", "127.0.0.2")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait=10
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=127.0.0.1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=64 RealMemory=1000 Gres=gpu:8
NodeName=127.0.0.2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=64 RealMemory=1000 Gres=gpu:8
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here; empty where it can."""
    if not shutil.which("slurmctld") or not shutil.which("slurmd"):
        return "Slurm is not installed: apt-get install slurm-wlm libpmix-dev"
    if os.getuid():
        return "slurmd starts job steps as root only"
    if not any(Path("/usr").glob("lib*/**/pmix2/lib/libpmix.so")):
        return "Slurm's PMIx plugin finds no library: apt-get install libpmix-dev"
    return ""


@dataclass(frozen=True, slots=True)
class Slurm:
    """The running cluster. `environment` is what its commands need."""

    folder: Path
    environment: dict[str, str]

    @classmethod
    def start(cls, folder: Path) -> Slurm:
        """Start it and wait until both nodes are idle."""
        for name in ("state", *NODES):
            (folder / name).mkdir()
        gpus = [folder / f"gpu{i}" for i in range(8)]
        for gpu in gpus:
            gpu.touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
        conf = folder / "slurm.conf"
        conf.write_text(CONFIGURATION.format(folder=folder, user="root", ports=_free_ports(3)))
        slurm = cls(folder, {**os.environ, "SLURM_CONF": str(conf)})
        slurm.run("slurmctld", "-f", str(conf), "-c")
        for node in NODES:
            slurm.run("slurmd", "-N", node, "-f", str(conf))
        for _ in range(100):
            if slurm.run("sinfo", "--noheader", "-N", "-o", "%T", check=False).split() == ["idle", "idle"]:
                return slurm
            time.sleep(0.2)
        raise AssertionError((folder / "slurmctld.log").read_text()[-2000:])

    def run(self, *words: str, check: bool = True, **environment: str) -> str:
        """One of Slurm's commands; its output."""
        done = subprocess.run(
            words, env=self.environment | environment, capture_output=True, text=True, cwd=self.folder, timeout=60
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def state(self, job: str) -> str:
        """What the job is doing; empty where it has left."""
        return self.run("squeue", "--noheader", "-j", job, "-o", "%T", check=False).strip()

    def stop(self) -> None:
        """End every process of it."""
        self.run("scancel", "--user", "root", check=False)
        pids = [int(path.read_text()) for path in self.folder.glob("*.pid")]
        for pid in pids:
            os.kill(pid, 15)
        for pid in pids:
            for _ in range(100):
                if not Path(f"/proc/{pid}").exists():
                    break
                time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
