from __future__ import annotations

import pytest

from advisor.catalog.presets import list_presets, load_preset
from advisor.errors import QuestionError


def test_the_four_workloads_say_where_their_lengths_are_from() -> None:
    assert [p.name for p in list_presets()] == ["chat", "rag", "code", "batch"]
    for preset in list_presets():
        assert preset.input_tokens > 0
        assert preset.output_tokens > 0
        assert len(preset.source) > 40
    assert load_preset("batch").ttft_s is None
    assert load_preset("batch").mode == "offline"


def test_an_unknown_preset_lists_the_others() -> None:
    with pytest.raises(QuestionError, match="chat, rag, code or batch"):
        load_preset("poetry")
