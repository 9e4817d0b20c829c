"""`python -m runner.agent [torchrun options] -m runner JOB OUT`: torch's elastic agent, on a leash.

It starts the ranks of this node, ends them all when one fails, and leaves the exit code of each failed rank in `agent.json`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from runner.failure import FULL_DISK
from runner.leash import FOLDER, die_with_parent, pass_on


def main(arguments: list[str]) -> int:
    """Run torchrun with these arguments; 0 when all ranks ended well."""
    die_with_parent()
    pass_on()
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        codes = {str(rank): failure.exitcode for rank, failure in error.failures.items()}
        if FULL_DISK in codes.values():
            return FULL_DISK
        Path(os.environ[FOLDER], "agent.json").write_text(json.dumps(codes), encoding="utf-8")
        return 1
    except SignalException as signalled:
        return 128 + signalled.sigval.value
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
