"""The KV cache of a prompt on its way from a prefill worker to a decode worker.

Legend: `n` prompt tokens, `L` layers, `K` key-value heads, `t` tensor-parallel degree, `p` stages.
"""

from __future__ import annotations

from advisor.roofline.comm import Lines, collective_s
from advisor.roofline.fabric import Fabric
from advisor.specs.deployment import Deployment
from advisor.specs.formats import FORMATS
from advisor.specs.model import GroupedAttention, ModelSpec, RecurrentMixer
from advisor.specs.plan import Plan

STATE_BYTES = 4  # recurrent states are kept in fp32


def prompt_cache_bytes(model: ModelSpec, tokens: float) -> float:
    """(D4) Bytes that a prompt leaves over all layers, each head or latent once: n x sum over layers of values x bytes a value, and
    the states of recurrent layers, which do not grow. A window sends no more than its own tokens."""
    value_bytes = FORMATS[model.kv_format].bytes_per_value
    total = 0.0
    for layer in model.layers:
        if layer.mixer is None:
            continue
        if isinstance(layer.mixer, RecurrentMixer):
            total += layer.mixer.state_values * STATE_BYTES
            continue
        window = layer.mixer.window_tokens if isinstance(layer.mixer, GroupedAttention) else 0
        total += min(tokens, window or tokens) * layer.mixer.cache_values_per_token() * value_bytes
    return total


def lanes(model: ModelSpec, deployment: Deployment) -> int:
    """Pairs of ranks that each carry a part of their own: the fewer shares of the two sides. Heads are shared by up to K tp ranks,
    layers by stages; a latent is whole on every rank, and each receiver takes its own copy at the same time."""
    return min(_shares(model, deployment.prefill), _shares(model, deployment.decode))


def _shares(model: ModelSpec, plan: Plan) -> int:
    heads = [layer.mixer.kv_heads for layer in model.layers if isinstance(layer.mixer, GroupedAttention)]
    return plan.pp * (min(plan.tp, max(heads)) if heads else 1)


def transfer_s(model: ModelSpec, deployment: Deployment, tokens: float, fabric: Fabric, lines: Lines) -> float:
    """(D5) Seconds until a prompt's cache is with its decode worker: (D4) / lanes over the link between two ranks of the pools,
    by the point-to-point lines of (C1).

    Left out: other transfers on the same link at the same time, and pages that are smaller than a line assumes.
    """
    payload = prompt_cache_bytes(model, tokens) / lanes(model, deployment)
    return collective_s("p2p", payload, fabric, lines, kernels=())
