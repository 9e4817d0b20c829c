"""`python -m runner.devices`: what torch sees here, as one line of JSON, so that the advisor need not import torch."""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Print torch's version and its GPUs."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    sys.stdout.write(json.dumps({"torch": torch.__version__, "gpus": count, "names": names}) + "\n")


if __name__ == "__main__":
    main()
