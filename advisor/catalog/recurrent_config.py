"""Layers with a state of fixed size: Mamba, Mamba-2, gated delta rule, Kimi delta attention, lightning attention.

Weights are counted matrix by matrix as the published modelling code lays them out (Hugging Face transformers 5).
`flop_per_token` is the state's own arithmetic: per element of the state, a decay, an outer-product update and a read-out are
5 flop (Mamba, linear attention); the delta rule reads once more before it writes: 8.
"""

from __future__ import annotations

from advisor.catalog.config_fields import Fields
from advisor.specs.model import RecurrentMixer

SCAN_FLOP = 5
DELTA_FLOP = 8


def mamba_mixer(fields: Fields, hidden: int, *, inner_norms: bool) -> RecurrentMixer:
    """Mamba-1 (Gu and Dao 2023): `inner` channels, a state of N values each. `inner_norms`: Jamba norms dt, B and C."""
    if fields.has("mamba_expand", "expand"):
        inner = fields.integer("mamba_expand", "expand") * hidden
    else:
        inner = fields.integer("intermediate_size", "d_inner")
    state = fields.integer("mamba_d_state", "state_size")
    kernel = fields.integer("mamba_d_conv", "conv_kernel", default=4)
    rank = -(-hidden // 16)
    if not fields.is_text("mamba_dt_rank") and not fields.is_text("time_step_rank"):
        rank = fields.integer("mamba_dt_rank", "time_step_rank", default=rank)
    weights = hidden * 2 * inner + inner * kernel + inner * (rank + 2 * state) + rank * inner + inner
    weights += inner * state + inner + inner * hidden
    weights += inner if fields.flag("mamba_conv_bias", "use_conv_bias", default=True) else 0
    weights += 2 * inner + hidden if fields.flag("mamba_proj_bias", "use_bias") else 0
    weights += rank + 2 * state if inner_norms else 0
    return RecurrentMixer(
        kind="mamba",
        heads=inner,
        weights=weights,
        state_values=inner * (state + kernel),
        flop_per_token=SCAN_FLOP * inner * state,
    )


def mamba2_mixer(fields: Fields, hidden: int) -> RecurrentMixer:
    """Mamba-2 (Dao and Gu 2024): heads with a matrix state, B and C shared within groups."""
    heads = fields.integer("mamba_num_heads", "mamba_n_heads", "num_heads")
    if fields.is_text("mamba_d_head"):  # "auto": the expanded width over the heads
        head_dim = fields.integer("mamba_expand", default=2) * hidden // heads
    else:
        head_dim = fields.integer("mamba_head_dim", "mamba_d_head", "head_dim")
    groups = fields.integer("n_groups", "mamba_n_groups")
    state = fields.integer("ssm_state_size", "mamba_d_state", "state_size")
    kernel = fields.integer("conv_kernel", "mamba_d_conv", default=4)
    inner = heads * head_dim
    conv = inner + 2 * groups * state
    weights = hidden * (inner + conv + heads) + conv * kernel + 3 * heads + inner + inner * hidden
    weights += conv if fields.flag("use_conv_bias", "mamba_conv_bias", default=True) else 0
    weights += inner + conv + heads + hidden if fields.flag("mamba_proj_bias", "use_bias") else 0
    return RecurrentMixer(
        kind="mamba2",
        heads=heads,
        weights=weights,
        state_values=inner * state + conv * kernel,
        flop_per_token=SCAN_FLOP * inner * state,
    )


def delta_mixer(fields: Fields, hidden: int) -> RecurrentMixer:
    """Gated delta rule (Qwen3-Next, Qwen3.5): key and value heads apart, one gate and one decay a value head."""
    key_heads, value_heads = fields.integer("linear_num_key_heads"), fields.integer("linear_num_value_heads")
    key_dim, value_dim = fields.integer("linear_key_head_dim"), fields.integer("linear_value_head_dim")
    kernel = fields.integer("linear_conv_kernel_dim", default=4)
    keys, values = key_heads * key_dim, value_heads * value_dim
    weights = hidden * (2 * keys + 2 * values + 2 * value_heads) + (2 * keys + values) * kernel
    weights += 2 * value_heads + value_dim + values * hidden
    return RecurrentMixer(
        kind="gated-delta",
        heads=value_heads,
        weights=weights,
        state_values=values * key_dim + (2 * keys + values) * kernel,
        flop_per_token=DELTA_FLOP * values * key_dim,
    )


def kda_mixer(fields: Fields, hidden: int) -> RecurrentMixer:
    """Kimi delta attention: a decay a channel, low-rank forget gate, low-rank or full output gate."""
    nested = fields.child("linear_attn_config")
    if nested is not None:
        heads, head_dim = nested.integer("num_heads"), nested.integer("head_dim")
        kernel = nested.integer("short_conv_kernel_size", default=4)
        full_gate = nested.flag("use_full_rank_gate")
    else:  # as transformers 5 writes it
        heads, head_dim = fields.integer("linear_num_heads"), fields.integer("linear_head_dim")
        kernel, full_gate = fields.integer("linear_conv_kernel_dim", default=4), False
    width = heads * head_dim
    gate = hidden * width if full_gate else (hidden + width) * head_dim
    forget = (hidden + width) * head_dim + width + heads
    weights = 3 * hidden * width + 3 * width * kernel + forget + hidden * heads + gate + head_dim + width * hidden
    return RecurrentMixer(
        kind="kda",
        heads=heads,
        weights=weights,
        state_values=width * head_dim + 3 * width * kernel,
        flop_per_token=DELTA_FLOP * width * head_dim,
    )


def lightning_mixer(fields: Fields, hidden: int) -> RecurrentMixer:
    """Lightning attention (MiniMax-01): linear attention with an output gate and a norm."""
    heads = fields.integer("num_attention_heads")
    head_dim = fields.integer("head_dim", default=max(1, hidden // heads))
    width = heads * head_dim
    return RecurrentMixer(
        kind="linear",
        heads=heads,
        weights=5 * hidden * width + width,
        state_values=width * head_dim,
        flop_per_token=SCAN_FLOP * width * head_dim,
    )
