"""The split decode against plain products: grouped heads, windows in rings, soft caps, sinks, latents, contexts that differ."""

from __future__ import annotations

from typing import Any

import pytest
from interpreted import CLOSE, DEVICE, torch

from runner.kernels import decode_attention as module
from runner.kernels.decode_attention import decode_attention
from runner.kv_cache import CacheShape, LayerCache
from runner.scores import Sight
from runner.scores import decode_attention as plain

CASES: dict[str, dict[str, Any]] = {
    "grouped heads, one split": {"heads": 8, "kv_heads": 2, "d": 32, "context": 100, "at": (99, 17)},
    "several splits": {"heads": 4, "kv_heads": 4, "d": 64, "context": 700, "at": (699,)},
    "widths that are no power of two": {"heads": 6, "kv_heads": 2, "d": 80, "dv": 48, "context": 200, "at": (0, 100, 199)},
    "soft cap": {"heads": 4, "kv_heads": 2, "d": 32, "context": 60, "at": (59,), "softcap": 20.0},
    "a ring": {"heads": 8, "kv_heads": 1, "d": 32, "context": 400, "at": (399, 5), "window": 64},
    "chunks in a ring": {"heads": 8, "kv_heads": 1, "d": 32, "context": 400, "at": (399, 64), "window": 64, "chunked": True},
    "sinks, several splits": {"heads": 8, "kv_heads": 1, "d": 32, "context": 400, "at": (399, 64), "sinks": True},
    "sinks, one split": {"heads": 8, "kv_heads": 1, "d": 32, "context": 100, "at": (99,), "sinks": True},
    "a latent of 512 + 64": {"heads": 5, "kv_heads": 1, "d": 576, "dv": 0, "context": 300, "at": (299, 64), "value_dim": 512},
    "a small latent": {"heads": 5, "kv_heads": 1, "d": 40, "dv": 0, "context": 70, "at": (69,), "value_dim": 32},
    "more heads than a tile has rows": {"heads": 80, "kv_heads": 1, "d": 32, "context": 40, "at": (39,)},
}


def both(
    *, heads: int, kv_heads: int, d: int, context: int, at: tuple[int, ...], dv: int | None = None, window: int = 0,
    chunked: bool = False, softcap: float = 0.0, sinks: bool = False, value_dim: int = 0, span: int = 0,
) -> tuple[Any, Any]:  # fmt: skip
    """What the kernel and plain products give over one random cache."""
    generator = torch.Generator(DEVICE).manual_seed(7)

    def drawn(*shape: int) -> Any:
        return torch.randn(shape, device=DEVICE, generator=generator)

    shape = CacheShape(heads=kv_heads, key_dim=d, value_dim=d if dv is None else dv, window=window)
    cache = LayerCache(shape, len(at), context, device=DEVICE, dtype=torch.float32)
    cache.keys.copy_(drawn(*cache.keys.shape))
    if cache.values is not None:
        cache.values.copy_(drawn(*cache.values.shape))
    q, positions = drawn(len(at), heads, d), torch.tensor(at, device=DEVICE)
    sink = drawn(heads) if sinks else None
    sight = Sight(scale=d**-0.5, window=window, chunked=chunked, softcap=softcap)
    span = span or max(at) + 1
    expected = plain(q, cache, positions, span, sight, sink, value_dim=value_dim)
    got = decode_attention(
        q, cache.keys, cache.values, positions, span=span, scale=sight.scale, window=window, chunked=chunked, softcap=softcap,
        sinks=sink, value_dim=value_dim,
    )  # fmt: skip
    return got, expected


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_plain_products_give(case: str) -> None:
    got, expected = both(**CASES[case])
    torch.testing.assert_close(got, expected, atol=CLOSE, rtol=CLOSE)


def test_what_lies_beyond_a_context_is_never_read() -> None:
    """A span beyond the context, with not-a-number behind it: a captured graph of the longest context serves shorter ones."""
    q = torch.randn(1, 4, 32, device=DEVICE)
    cache = LayerCache(CacheShape(heads=2, key_dim=32, value_dim=32), 1, 300, device=DEVICE, dtype=torch.float32)
    assert cache.values is not None
    cache.keys[:, :, 50:], cache.values[:, :, 50:] = torch.nan, torch.nan
    at = torch.tensor([49], device=DEVICE)
    wide = decode_attention(q, cache.keys, cache.values, at, span=300, scale=0.2)
    exact = decode_attention(q, cache.keys, cache.values, at, span=50, scale=0.2)
    assert torch.isfinite(wide).all()
    torch.testing.assert_close(wide, exact, atol=CLOSE, rtol=CLOSE)


def test_one_long_sequence_is_split_over_many_programs_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    grids: list[tuple[int, ...]] = []
    kernel = module._partial_sums

    class Noting:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            grids.append(grid)
            return kernel[grid]

    monkeypatch.setattr(module, "_partial_sums", Noting())
    both(heads=4, kv_heads=2, d=32, context=1024, at=(1023,))
    both(heads=2, kv_heads=1, d=32, context=256, at=(255,) * 16)
    assert grids[0][2] > 1
    assert grids[1] == (16, 1, 1)
