"""Where a pod's weights are: a claim that keeps them between starts and that an init container fills, or a folder of the nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from advisor.launch.request import Request
from advisor.launch.template import lines
from advisor.launch.yaml_text import Node, Noted

CACHE = "/weights"
GIB = 2**30
STEP_GIB = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The volumes of a pod's weights. `claim` is the claim's name, empty where the model is a folder of the nodes."""

    model: str
    claim: str
    volumes: tuple[Node, ...]
    mounts: tuple[Node, ...]

    def download(self, image: str) -> list[str]:
        """The init container that fills the claim; none for a folder."""
        if not self.claim:
            return []
        return lines("download.yaml", image=image, model=self.model.replace("$", "$$"), cache=CACHE)


def storage(request: Request, name: str) -> Storage:
    """The storage of the request's model."""
    if not request.checkpoint.startswith("/"):
        claim = request.options.claim or f"{name}-weights"
        volume: Node = {"name": "weights", "persistentVolumeClaim": {"claimName": claim}}
        mounts: tuple[Node, ...] = ({"name": "weights", "mountPath": CACHE},)
        return Storage(model=request.checkpoint, claim=claim, volumes=(volume,), mounts=mounts)
    host: dict[str, Node] = {"path": request.checkpoint, "type": "Directory"}
    note = "The model's folder, at the same path on every node; a claim that holds it can take its place."
    volumes: tuple[Node, ...] = ({"name": "model", "hostPath": Noted(host, note)}, {"name": "weights", "emptyDir": {}})
    mounts = (
        {"name": "model", "mountPath": request.checkpoint, "readOnly": True}, {"name": "weights", "mountPath": CACHE},
    )  # fmt: skip
    return Storage(model=request.checkpoint, claim="", volumes=volumes, mounts=mounts)


def claim(request: Request, name: str) -> list[str]:
    """The claim's document: as large as the checkpoint and a fifth, shared where several pods read it."""
    pods = request.plan.dp * len(request.servers[0].nodes)
    size = STEP_GIB * math.ceil(1.2 * request.stored_bytes / GIB / STEP_GIB)
    mode = "ReadWriteMany" if pods > 1 else "ReadWriteOnce"
    return lines("claim.yaml", name=f"{name}-weights", app=name, mode=mode, size=f"{size}Gi")
