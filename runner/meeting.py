"""The ranks of one run find each other: through a file that only this user can reach, or through the first machine's store."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
import torch.distributed as dist

from advisor.errors import MachineError
from runner.watchdog import LISTENER, MEET


def join(device: torch.device, limit_s: float) -> None:
    """Meet the other ranks, and make torch's default process group. Raises MachineError where they do not meet in time."""
    limit = datetime.timedelta(seconds=limit_s)
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", store=_store(limit), rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]), timeout=limit, device_id=device if device.type == "cuda" else None,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise MachineError(f"the ranks did not find each other: {error}") from error


def _store(limit: datetime.timedelta) -> Any:
    """Addresses and counters of the ranks. Several machines: torch's TCP store on the socket that the handshake was made on."""
    where, world = os.environ[MEET], int(os.environ["WORLD_SIZE"])
    host, colon, port = where.rpartition(":")
    if not colon or os.path.isabs(where):
        store: Any = dist.FileStore(where, world)  # type: ignore[attr-defined]
        store.set_timeout(limit)
        return store
    handed = os.environ.get(LISTENER)
    return dist.TCPStore(  # type: ignore[attr-defined]
        host, int(port), world, is_master=handed is not None, timeout=limit,
        master_listen_fd=int(handed) if handed is not None else None,
    )  # fmt: skip
