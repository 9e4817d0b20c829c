"""One kernel for norms, rotation and cache against the plain path, through whole models: every kind of step."""

from __future__ import annotations

from typing import Any

import pytest
from interpreted import CLOSE, DEVICE, torch
from tiny_models import CONFIGS

from advisor.catalog.huggingface import model_from_config
from runner import attention, ffn
from runner.kernels import fused_on
from runner.mesh import Mesh
from runner.transformer import Transformer
from runner.weights import initialise

PROMPT, FIRST, STEPS = 9, 4, 2  # longer than the windows of 7
# Interleaved and partial rotation; norms by head and experts; rings, sinks and biases; a latent.
MODELS = ("glm 4", "qwen3 moe", "gpt-oss", "deepseek v3")


def answers(model: Transformer) -> list[Any]:
    """A prompt whole and in pieces, decodes, and a decode with a piece of another prompt."""
    tokens = torch.randint(0, model.spec.vocab_size, (1, PROMPT), generator=torch.Generator().manual_seed(2)).to(DEVICE)
    cache = model.new_cache(2, PROMPT + STEPS + 1)
    found = [
        model.prefill(tokens[:, :FIRST], cache),
        model.prefill(tokens[:, FIRST:], cache, past=FIRST),
        model.prefill(tokens, cache),
    ]
    at = torch.full((1,), PROMPT, device=DEVICE)
    for step in range(STEPS):
        found.append(model.decode(found[-1].argmax(-1), at + step, cache))
    following = found[-1].argmax(-1)
    for past, stop in ((0, FIRST), (FIRST, PROMPT)):
        x = torch.cat((following, tokens[0, past:stop]))
        found.append(model.mixed(x, at + STEPS, cache, chunk=stop - past, past=past))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_models_answer_alike_with_and_without_the_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = model_from_config(CONFIGS[name], None, name=name, source="test")
    mesh = Mesh.single()
    model = Transformer(spec, mesh.plan, mesh.coordinates, mesh, device=DEVICE, dtype=torch.float32, max_batch=1, max_context=1)
    initialise(model, spec, 3)
    monkeypatch.setattr(attention, "fused_on", lambda _: False)
    monkeypatch.setattr(ffn, "fused_on", lambda _: False)
    plain = answers(model)
    launched: list[bool] = []

    def fused(device: Any) -> bool:
        launched.append(True)
        return device.type == DEVICE.type

    monkeypatch.setattr(attention, "fused_on", fused)
    monkeypatch.setattr(ffn, "fused_on", fused)
    kernels = answers(model)
    assert launched
    assert not fused_on(torch.device("cpu"))
    for got, expected in zip(kernels, plain, strict=True):
        torch.testing.assert_close(got, expected, atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(plain[1], plain[2], atol=CLOSE, rtol=CLOSE)  # in pieces as whole
    torch.testing.assert_close(plain[-1][-1], plain[2][0], atol=CLOSE, rtol=CLOSE)  # beside decodes as alone
