"""Ranks on this machine's CPU for tests: plans run by their ranks over gloo, each in its own process."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing


def on_ranks(work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """For each job (plan, *args): what `work(mesh, *args)` returns on each rank. Plans have one world; its ranks start once.

    An exception on a rank is raised here.
    """
    world = jobs[0][0].world
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, args=(world, folder, work, jobs), nprocs=world, join=True)
        found = [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]
    return [list(ranks) for ranks in zip(*found, strict=True)]


def _rank(rank: int, world: int, folder: str, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> None:
    torch.set_num_threads(1)
    meet = {"ADVISOR_MEET": str(Path(folder) / "meet"), "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), **meet}
    from runner.mesh import Mesh

    results = []
    for plan, *args in jobs:
        mesh = Mesh.connect(plan, device=torch.device("cpu"), time_limit_s=60.0)
        results.append(work(mesh, *args))
    torch.save(results, Path(folder) / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
