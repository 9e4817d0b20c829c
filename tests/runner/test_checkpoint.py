"""Checkpoints read by parts: each rank's part is that cut of the whole tensor, in every layout that families keep."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import CONFIGS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

from advisor.catalog.huggingface import model_from_config  # noqa: E402
from advisor.errors import QuestionError  # noqa: E402
from advisor.specs.plan import Plan  # noqa: E402
from runner.checkpoint import Checkpoint  # noqa: E402
from runner.mesh import Mesh  # noqa: E402
from runner.parallel import Piece, Sharded  # noqa: E402
from runner.transformer import Transformer  # noqa: E402
from runner.weights import load  # noqa: E402

CPU = torch.device("cpu")


def rank_of(name: str, plan: Plan, rank: int) -> Transformer:
    spec = model_from_config(CONFIGS[name], None, name=name, source="test")
    mesh = Mesh.shard(plan, rank)
    return Transformer(spec, plan, mesh.coordinates, mesh, device=CPU, dtype=torch.float32, max_batch=1, max_context=1)


def save(name: str, directory: Path) -> None:
    transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**CONFIGS[name])).save_pretrained(directory)


@pytest.mark.filterwarnings("ignore")  # transformers' own deprecations
@pytest.mark.parametrize("name", ["llama", "phi 3", "mixtral", "gpt-oss", "deepseek v3", "phi"])
def test_a_ranks_part_is_its_cut_of_the_whole(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    seen = 0
    with ExitStack() as stack:
        checkpoint = Checkpoint(tmp_path, stack)
        for module in rank_of(name, Plan(tp=2), 1).modules():
            for piece in (p for pieces in module.pieces.values() for p in pieces) if isinstance(module, Sharded) else ():
                whole = checkpoint.read(replace(piece, cut=tuple(slice(None) for _ in piece.shape)), CPU)
                assert tuple(whole.shape) == piece.shape
                assert torch.equal(checkpoint.read(piece, CPU), whole[piece.cut])
                seen += 1
    assert seen > 20


def test_fp8_blocks_are_scaled(tmp_path: Path) -> None:
    """One scale a block of 128 x 128, the last block cut short."""
    codes = torch.randn(200, 300).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 3) + 0.5
    name = "model.layers.0.mlp.down_proj.weight"
    safetensors.save_file({name: codes, f"{name}_scale_inv": scale}, tmp_path / "model.safetensors")
    cut = (slice(100, 200), slice(128, 300))
    piece = Piece(name="layers.0.ffn.down.weight", shape=(200, 300), cut=cut, place=(slice(None), slice(None)))
    with ExitStack() as stack:
        got = Checkpoint(tmp_path, stack).read(piece, CPU)
    expected = torch.tensor([[codes[i, j].float() * scale[i // 128, j // 128] for j in (128, 299)] for i in (100, 199)])
    assert torch.equal(got[[0, -1]][:, [0, -1]], expected)


@pytest.mark.filterwarnings("ignore")
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    model = rank_of("llama", Plan(), 0)
    with pytest.raises(QuestionError, match=r"has no \.safetensors files; give the folder"):
        load(model, model.spec, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(QuestionError, match="cannot be read"):
        load(model, model.spec, tmp_path)
    save("gemma", tmp_path)
    with pytest.raises(
        QuestionError, match=r"is \[96, 48\], but layers\.0\.attention\.q\.weight needs \[48, 48\]; the checkpoint belongs"
    ):
        load(model, model.spec, tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00002-of-00002.safetensors"}}')
    with pytest.raises(QuestionError, match=r"lacks model-00002-of-00002\.safetensors"):
        load(model, model.spec, tmp_path)
