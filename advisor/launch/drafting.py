"""Speculative decoding in each engine's own flags.

Sources: vLLM 0.33 docs, features/speculative_decoding; SGLang 0.5.23 docs, advanced_features/speculative_decoding; TensorRT-LLM
docs, features/speculative-decoding.
"""

from __future__ import annotations

import json

from advisor.launch.words import Flag, checked_name, refuse
from advisor.specs.speculation import Speculation

DRAFTER = "DRAFT_MODEL"  # stands on the screen for a drafter that nobody has named
LOOK_UP = 4  # longest run of words that an n-gram drafter looks for


def _drafter(engine: str, speculation: Speculation, named: str) -> str:
    """The checkpoint of an EAGLE-3 head. Raises PlanError where it is not named: which one fits the model is the user's to say."""
    if not named:
        raise refuse(engine, f"{speculation.label} needs the checkpoint of its drafter; name it with --draft-model")
    return checked_name("draft model", named)


def vllm_flags(speculation: Speculation, draft_model: str) -> list[Flag]:
    """`--speculative-config` as JSON."""
    config: dict[str, object] = {"method": speculation.method, "num_speculative_tokens": speculation.drafts}
    if speculation.method == "eagle3":
        config["model"] = _drafter("vllm", speculation, draft_model)
    if speculation.method == "ngram":
        config["prompt_lookup_max"] = LOOK_UP
    return [Flag(name="--speculative-config", value=json.dumps(config), why="drafted tokens, verified in one step")]


def sglang_flags(speculation: Speculation, draft_model: str) -> list[Flag]:
    """`--speculative-algorithm` and its numbers; a chain of drafts (top-k 1) verifies one token more than it drafts."""
    if speculation.method == "ngram":
        return [
            Flag(name="--speculative-algorithm", value="NGRAM", why="drafted tokens, verified in one step"),
            Flag(name="--speculative-num-draft-tokens", value=str(speculation.verified)),
        ]
    algorithm = "EAGLE3" if speculation.method == "eagle3" else "EAGLE"
    flags = [Flag(name="--speculative-algorithm", value=algorithm, why="drafted tokens, verified in one step")]
    if speculation.method == "eagle3":
        flags.append(Flag(name="--speculative-draft-model-path", value=_drafter("sglang", speculation, draft_model)))
    return [
        *flags,
        Flag(name="--speculative-num-steps", value=str(speculation.drafts)),
        Flag(name="--speculative-eagle-topk", value="1"),
        Flag(name="--speculative-num-draft-tokens", value=str(speculation.verified)),
    ]


def trtllm_config(speculation: Speculation, draft_model: str) -> dict[str, object]:
    """`speculative_config` of the YAML file."""
    if speculation.method == "ngram":
        return {"decoding_type": "NGram", "max_draft_len": speculation.drafts, "max_matching_ngram_size": LOOK_UP}
    if speculation.method == "mtp":
        return {"decoding_type": "MTP", "max_draft_len": speculation.drafts}
    model = _drafter("trtllm", speculation, draft_model)
    return {"decoding_type": "Eagle3", "max_draft_len": speculation.drafts, "speculative_model": model}
