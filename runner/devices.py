"""`python -m runner.devices`: what torch sees here, as one line of JSON, so that the advisor need not import torch.

`runner` is a digest of this package's own source: measurements of another version are not taken for its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path

# Environment variables by which torch, CUDA and the collectives are set; each changes what is measured.
_SWITCHES = ("CUDA_", "NCCL_", "OMP_", "MKL_", "TORCH", "PYTORCH_", "GLOO_", "TRITON_")


def main() -> None:
    """Print torch's version, its GPUs, and all else that changes a measurement."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    identity = "; ".join((f"torch {torch.__version__}", *_driver(count), *names, f"runner {runner_digest()}", *_switches()))
    found = {"torch": torch.__version__, "gpus": count, "names": names, "identity": identity}
    sys.stdout.write(json.dumps(found) + "\n")


def _driver(gpus: int) -> tuple[str, ...]:
    """Versions of CUDA and of the driver; without a GPU, the kind and number of cores."""
    import torch

    if not gpus:
        return (f"{os.cpu_count()} cores of {_processor()}",)
    from runner import clocks

    driver = clocks.Gpu(str(torch.cuda.get_device_properties(0).uuid)).driver()
    parts = [f"CUDA {torch.version.cuda}", f"driver {driver}"]
    with contextlib.suppress(AttributeError, RuntimeError):
        parts.append("NCCL " + ".".join(str(n) for n in torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return tuple(parts)


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "an unknown processor"


def runner_digest() -> str:
    """What the runner's own source is: a change of it may change every figure."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _switches() -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in sorted(os.environ.items()) if key.startswith(_SWITCHES))


if __name__ == "__main__":
    main()
