"""How long a start may take: a bound from the bytes of the weights, so that a large model is not given up while it still loads."""

from __future__ import annotations

import math

from advisor.specs.prediction import Prediction

# A line of 1 Gbit/s, and the baseline of the slowest common cloud disk (AWS EBS gp3, 125 MiB/s): docs.aws.amazon.com/ebs.
SLOW_BYTES_PER_S = 125e6
# Kernels that are compiled before the first request: about 10 minutes for DeepGEMM (SGLang documentation, DeepSeek usage).
COMPILE_S = 600.0


def weight_bytes(prediction: Prediction) -> float:
    """Bytes of the weights of one replica, as its ranks hold them."""
    return prediction.memory.weights_bytes * prediction.plan.replica_gpus


def read_s(prediction: Prediction) -> float:
    """Seconds to read all weights of a replica once from a slow disk, or over a slow line."""
    return weight_bytes(prediction) / SLOW_BYTES_PER_S


def load_s(prediction: Prediction) -> int:
    """Seconds from the start of the engine to its first answer, weights on a local disk: read + compile, in whole minutes."""
    return _minutes(COMPILE_S + read_s(prediction))


def start_s(prediction: Prediction) -> int:
    """The same where the weights are downloaded first: read twice + compile."""
    return _minutes(COMPILE_S + 2 * read_s(prediction))


def _minutes(seconds: float) -> int:
    return 60 * math.ceil(seconds / 60)
