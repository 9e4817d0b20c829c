"""A stand-in for the agent and its ranks without torch: the same leash and files, quick enough to be killed a hundred times."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from runner.leash import FOLDER, die_with_parent, pass_on


def agent(arguments: list[str]) -> int:
    die_with_parent()
    pass_on()
    count = int(arguments[arguments.index("--nproc-per-node") + 1])
    ranks: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: object) -> None:
        for process in ranks:
            process.terminate()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    for rank in range(count):
        environment = {**os.environ, "RANK": str(rank)}
        command = [sys.executable, "-S", "-m", "light_ranks", "rank", arguments[-1]]
        ranks.append(subprocess.Popen(command, env=environment, start_new_session=True))
    codes = [process.wait() for process in ranks]
    return 1 if any(codes) else 0


def rank(out: str) -> int:
    die_with_parent()
    here = os.environ["RANK"]
    Path(os.environ[FOLDER], f"rank{here}.log").write_text(f"rank {here} was here\n")
    for step in range(int(os.environ.get("LIGHT_STEPS", "3000"))):
        if here == "0":
            Path(out).write_text(f'{{"step": {step}}}')
        time.sleep(0.01)
    return 0


if __name__ == "__main__":
    sys.exit(rank(sys.argv[2]) if sys.argv[1] == "rank" else agent(sys.argv[1:]))
