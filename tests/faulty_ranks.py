"""`python -m faulty_ranks JOB OUT`: the runner's own rank, with the fault that FAULT names on the rank that FAULT_RANK names."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from typing import Any

from runner import __main__ as real


def install() -> None:
    fault = os.environ["FAULT"]
    if os.environ.get("RANK", "0") != os.environ.get("FAULT_RANK", "1"):
        return
    import torch
    import torch.distributed as dist

    from runner import measure, mesh, session

    if fault == "nccl":

        def refuse(*arguments: Any, **named: Any) -> None:
            raise dist.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:94, unhandled system error (run with NCCL_DEBUG=INFO)")

        mesh.dist.init_process_group = refuse  # type: ignore[attr-defined]
        return
    if fault == "disk":
        write = session.write_whole

        def write_on_full_disk(*arguments: Any) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
            write(*arguments)

        session.write_whole = write_on_full_disk
        return
    bench_time = measure.Bench.time
    left = [int(os.environ.get("FAULT_AFTER", "1"))]

    def strike(self: Any, cell: Any, most_s: float) -> Any:
        if left[0] == 0:
            if fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if fault == "hang":
                time.sleep(1000)
            if fault == "memory":
                torch.empty(2**60)
            if fault == "gpu":
                raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be reported later")
            if fault == "raise":
                raise ZeroDivisionError("something of our own")
        left[0] -= 1
        return bench_time(self, cell, most_s)

    measure.Bench.time = strike  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    sys.exit(real.main(sys.argv[1:]))
