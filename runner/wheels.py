"""`python -m runner.wheels`: what a machine without a network needs beside its own torch, as pinned requirements.

The versions are those installed here, of everything that `parallelism-advisor[validate]` asks for and that needs in turn; torch and
what only torch needs stay out, because a GPU machine brings the build for its own driver. On this machine:

    python -m runner.wheels > wheels.txt
    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 -r wheels.txt -d wheels

and there: `pip install --no-index --no-deps --find-links wheels -r wheels.txt`, with the wheel of advisor beside them.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROGRAM, EXTRA = "parallelism-advisor", "validate"
BROUGHT = frozenset({"torch"})  # by the machine


def needed(name: str, extras: frozenset[str]) -> dict[str, str]:
    """Name -> version installed here of a package and everything below it; "" where it is not installed."""
    found: dict[str, str] = {}
    waiting = [(canonicalize_name(name), extras)]
    while waiting:
        package, wanted = waiting.pop()
        try:
            about = distribution(package)
        except PackageNotFoundError:
            found[package] = ""
            continue
        found[package] = about.version
        for line in about.requires or []:
            requirement = Requirement(line)
            below = canonicalize_name(requirement.name)
            marked = requirement.marker
            applies = marked is None or any(marked.evaluate({"extra": extra}) for extra in wanted | {""})
            if applies and below not in found and below not in BROUGHT:
                waiting.append((below, frozenset(requirement.extras)))
    return found


def main() -> int:
    """Print the list; 3 where something is not installed here, so that its version is not known."""
    found = needed(PROGRAM, frozenset({EXTRA}))
    own = found.pop(PROGRAM)
    if not own:
        sys.stderr.write(
            f"{PROGRAM} is not installed here, so what it needs is not known: pip install '{PROGRAM}[{EXTRA}]' first.\n"
        )
        return 3
    missing = sorted(name for name, version in found.items() if not version)
    for name, version in sorted(found.items()):
        sys.stdout.write(f"{name}=={version}\n" if version else f"# {name} is not installed here\n")
    if missing:
        sys.stderr.write(f"not installed here: {', '.join(missing)}; pip install '{PROGRAM}[{EXTRA}]' first.\n")
    return 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
