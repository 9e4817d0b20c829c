"""How long a start may take: a bound from the bytes of the weights, so that a large model is not given up while it still loads."""

from __future__ import annotations

import math

# A line of 1 Gbit/s, and the baseline of the slowest common cloud disk (AWS EBS gp3, 125 MiB/s): docs.aws.amazon.com/ebs.
SLOW_BYTES_PER_S = 125e6
# Kernels that are compiled before the first request: about 10 minutes for DeepGEMM (SGLang documentation, DeepSeek usage).
COMPILE_S = 600.0


def read_s(stored_bytes: float) -> float:
    """Seconds to read a checkpoint once from a slow disk, or over a slow line."""
    return stored_bytes / SLOW_BYTES_PER_S


def load_s(stored_bytes: float) -> int:
    """Seconds from the start of the engine to its first answer, weights on a disk: read + compile, in whole minutes."""
    return _minutes(COMPILE_S + read_s(stored_bytes))


def start_s(stored_bytes: float) -> int:
    """The same where the weights are downloaded first: read twice + compile."""
    return _minutes(COMPILE_S + 2 * read_s(stored_bytes))


def _minutes(seconds: float) -> int:
    return 60 * math.ceil(seconds / 60)
