"""`python -m runner JOB OUT`: one rank of a Job. Rank 0 writes the Measurement, whole after every cell.

Started by torchrun, or alone for a shard of a larger plan. What was timed before a failure stays in OUT.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runner.watchdog import FOLDER, Watchdog, die_with_parent, redirect


def main(arguments: list[str]) -> int:
    """Measure, or leave the reason why not."""
    die_with_parent()
    if len(arguments) != 2:
        sys.stderr.write("use: python -m runner JOB OUT\n")
        return 2
    job_path, out = (Path(a) for a in arguments)
    rank = int(os.environ.get("RANK", "0"))
    folder = Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None
    if folder is not None:
        redirect(folder / f"rank{rank}.log")
    from advisor.specs import wire
    from advisor.specs.experiment import Job

    job = wire.from_json(job_path.read_bytes(), Job, origin=str(job_path))
    watchdog = Watchdog(job.stall_limit_s, folder / f"rank{rank}.beat" if folder is not None else None)
    try:
        watchdog.beat("starting torch")
        from runner.session import measure_job

        measure_job(job, out, rank, watchdog.beat)
    except BaseException as error:
        import contextlib
        import traceback

        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
            sys.stderr.flush()
        from runner.failure import exit_code, leave

        if folder is not None:
            leave(folder, rank, error)
        os._exit(exit_code(error))  # other threads may hang in a collective: nothing waits for them
    watchdog.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
