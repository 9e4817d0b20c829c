"""The transformer against Hugging Face transformers' own classes, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.errors import QuestionError  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.transformer import Transformer  # noqa: E402
from runner.weights import load  # noqa: E402

PROMPT, STEPS = 21, 4  # longer than the windows (7) and the original contexts (16) of the tiny configs


@pytest.mark.filterwarnings("ignore")  # transformers' own deprecations
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Both compute in fp32 and differ in the order of sums only: logits of size one, some hundred terms each, 1e-7 a term."""
    config = CONFIGS[name]
    theirs = _theirs(config, tmp_path)
    spec = model_from_config({**config, **_plain(theirs.config.to_dict())}, None, name=name, source="test")
    mesh = Mesh.single()
    ours = Transformer(
        spec, mesh.plan, mesh.coordinates, mesh, device="cpu", dtype=torch.float32, max_batch=2, max_context=PROMPT + STEPS
    )
    load(ours, spec, tmp_path)
    tokens = torch.randint(3, config["vocab_size"], (2, PROMPT + STEPS), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = [ours.prefill(tokens[:, :PROMPT])]
        first = theirs(tokens[:, :PROMPT], use_cache=True)
        expected, cache = [first.logits[:, -1]], first.past_key_values
        for step in range(STEPS):
            at = PROMPT + step
            got.append(ours.decode(tokens[:, at], torch.full((2,), at)))
            out = theirs(tokens[:, at : at + 1], past_key_values=cache, use_cache=True)
            expected.append(out.logits[:, -1])
            cache = out.past_key_values
    for ours_logits, their_logits in zip(got, expected, strict=True):
        torch.testing.assert_close(ours_logits, their_logits, atol=2e-5, rtol=2e-5)


def _theirs(config: dict[str, Any], directory: Path) -> Any:
    made = transformers.AutoConfig.for_model(**config)
    made._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms of one and biases of zero would hide a missing one
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for buffer_name, buffer in model.named_buffers():
            if "correction_bias" in buffer_name:
                buffer.copy_(torch.randn_like(buffer) * 0.1)
    model.save_pretrained(directory)
    return model


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in data.items() if not k.startswith("_") and v is not None}


def test_what_it_does_not_compute_is_refused_in_a_sentence() -> None:
    config = {**CONFIGS["llama"], "model_type": "gpt2", "n_head": 6}
    spec = model_from_config(config, None, name="gpt2-like", source="test")
    mesh = Mesh.single()
    with pytest.raises(QuestionError, match=r"learned positions, which gpt2-like has; measure it"):
        Transformer(spec, mesh.plan, mesh.coordinates, mesh, device="cpu", dtype=torch.float32, max_batch=1, max_context=8)
