"""`python -m runner.devices`: what torch sees here, as one line of JSON, so that the advisor need not import torch.

`runner` is a digest of this package's own source: measurements of another version are not taken for its own.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path


def source_digest() -> str:
    """Of every Python file of the package, by name."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def main() -> None:
    """Print torch's version, its GPUs, their driver, and the version of the runner."""
    import torch

    from runner.session import driver, software

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    found = {
        "torch": torch.__version__, "gpus": count, "names": names, "software": software(),
        "driver": driver(torch.device("cuda", 0)) if count else "", "runner": source_digest(),
    }  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
