"""Parameters of the towers beside the text model: held in memory, out of the decode path. Counted from `vision_config`."""

from __future__ import annotations

from advisor.catalog.config_fields import Fields

_WIDTH = ("embed_dim", "hidden_size", "vt_hidden_size")  # Qwen2-VL calls the text width hidden_size
_DEPTH = ("num_hidden_layers", "depth", "vt_num_hidden_layers", "num_layers")
_INNER = ("intermediate_size", "vt_intermediate_size")


def tower_params(fields: Fields, text_hidden: int) -> tuple[int, str]:
    """Parameters of the vision tower with its projector, and the caveat to state (empty where there is no tower).

    A transformer of `depth` layers of width `V`: four projections `4 V^2`, a feed-forward of `2 V F` (three matrices where
    the config says the activation is gated), patch and position embeddings, and a projector from merged patches to the text
    model. Within a few percent of the published towers.
    """
    config = fields.child("vision_config")
    if config is None:
        if fields.has(
            "vision_config", "image_token_id", "image_token_index", "media_placeholder_token_id", "vision_start_token_id"
        ):
            return 0, "the vision tower is not in the config and not counted"
        return 0, ""
    if not config.has(*_WIDTH) or not config.has(*_DEPTH):
        return 0, "the vision tower's size is not in the config and not counted"
    width, depth = config.integer(*_WIDTH), config.integer(*_DEPTH, high=2000)
    inner = config.integer(*_INNER, default=4 * width)
    if config.has("mlp_ratio") and not config.has(*_INNER):
        inner = int(config.number("mlp_ratio", high=64) * width)
    gated = config.text("hidden_act", "hidden_activation", default="gelu") == "silu"
    patch = config.integer("patch_size", default=14, high=1024)
    frames = config.integer("temporal_patch_size", default=1, high=64)
    positions = config.integer("num_position_embeddings", "position_embedding_size", default=0, low=0)
    merge = config.integer("spatial_merge_size", default=1, high=64)
    merged = width * merge * merge
    out = config.integer("out_hidden_size", "text_hidden_size", default=text_hidden)
    deep = len(config.integers("deepstack_visual_indexes"))
    layer = 4 * width * width + (3 if gated else 2) * width * inner + 9 * width + inner
    projector = (merged * merged + merged * out) * (1 + deep) if merge > 1 else width * out
    total = depth * layer + 3 * patch * patch * frames * width + positions * width + projector
    return total, f"{total / 1e6:.0f}M parameters of the vision tower are held in memory and take no part in a decode step"
