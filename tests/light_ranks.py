"""A rank without torch that the runner's agent starts: the same watchdog files, quick enough to be killed a hundred times."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from runner.watchdog import FOLDER, die_with_parent


def main(arguments: list[str]) -> int:
    die_with_parent()
    _, out = arguments
    here = os.environ["RANK"]
    Path(os.environ[FOLDER], f"rank{here}.log").write_text(f"rank {here} was here\n")
    for _ in range(int(os.environ.get("LIGHT_HELPERS", "0"))):
        subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], stdin=subprocess.DEVNULL)
    for step in range(int(os.environ.get("LIGHT_STEPS", "3000"))):
        if here == "0":
            Path(out).write_text(f'{{"step": {step}}}')
        time.sleep(0.01)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
