"""`python -m runner.microbench JOB OUT`: what this machine does, kernel by kernel and message by message.

Copies, matrix products, attention, launches, and with several ranks all-reduce, all-gather and point-to-point. On a GPU calls are
timed inside CUDA graphs, with weights that rotate through more memory than the caches hold, as a model's do. On several ranks
all work at once and the slowest counts: on CPUs they share the memory, on GPUs they should not differ.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runner.watchdog import FOLDER, Watchdog, die_with_parent, redirect


def main(arguments: list[str]) -> int:
    """One rank of the benchmarks."""
    die_with_parent()
    if len(arguments) != 2:
        sys.stderr.write("use: python -m runner.microbench JOB OUT\n")
        return 2
    rank = int(os.environ.get("RANK", "0"))
    folder = Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None
    if folder is not None:
        redirect(folder / f"rank{rank}.log")
    from advisor.specs import wire
    from advisor.specs.benchmark import BenchJob

    job = wire.from_json(Path(arguments[0]).read_bytes(), BenchJob, origin=arguments[0])
    watchdog = Watchdog(job.stall_limit_s, folder / f"rank{rank}.beat" if folder is not None else None)
    try:
        watchdog.beat("starting torch")
        from runner.bench_suite import benchmarks

        found = benchmarks(job, watchdog.beat)
        if rank == 0:
            from advisor.files import write_whole

            write_whole(Path(arguments[1]), wire.to_json(found))
    except BaseException as error:
        import contextlib
        import traceback

        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
            sys.stderr.flush()
        from runner.failure import exit_code, leave

        if folder is not None:
            leave(folder, rank, error)
        os._exit(exit_code(error))
    watchdog.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
