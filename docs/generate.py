"""Makes the generated parts of the documentation again: docs/cli.md, docs/accuracy.md, the outputs in README.md and docs/sizing.md.

    python docs/generate.py

`tests/test_generated.py` fails when they differ from what the program says now.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A block of README.md that holds the output of a command: an HTML comment with the command, then a fenced block.
OUTPUT = re.compile(r"(<!-- output of: (?P<command>[^\n]*?) -->\n```text\n)(?P<output>.*?)(```\n)", re.DOTALL)


def output(command: str) -> str:
    """What a command prints on a machine without GPUs, 100 columns wide."""
    words = shlex.split(command)
    if words[0] != "advisor":
        raise ValueError(f"{command!r} is no advisor command")
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "advisor", *words[1:]],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        cwd=ROOT,
    )
    return done.stdout


def cli_page() -> str:
    """docs/cli.md: the help of every verb."""
    from advisor.cli.app import VERBS

    parts = ["# Command line\n", "Made by `python docs/generate.py` from `--help`.\n"]
    for verb in ("", *VERBS):
        command = f"advisor {verb}".strip()
        parts.append(f"## {command}\n\n```text\n{output(f'{command} --help')}```\n")
    return "\n".join(parts)


def readme(text: str) -> str:
    """A page with each output block as the program prints it now."""
    return OUTPUT.sub(lambda found: found[1] + output(found["command"]) + found[4], text)


def accuracy_page() -> str:
    """docs/accuracy.md: every published figure beside its prediction, by fits that leave its own model out."""
    return output("advisor accuracy --markdown")


def main() -> None:
    """Write all of them."""
    (ROOT / "docs" / "cli.md").write_text(cli_page(), encoding="utf-8")
    (ROOT / "docs" / "accuracy.md").write_text(accuracy_page(), encoding="utf-8")
    for page in (ROOT / "README.md", ROOT / "docs" / "sizing.md"):
        page.write_text(readme(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
