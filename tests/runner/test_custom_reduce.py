"""Which kernel sums a message: by its size, the ranks, and whether the switch adds."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from runner.custom_reduce import LIMIT_BYTES, ONE_SHOT_BYTES, CustomReduce, Kind  # noqa: E402


def reduce_of(ranks: int, *, switch: bool) -> CustomReduce:
    return CustomReduce(torch.zeros(LIMIT_BYTES, dtype=torch.uint8), "group", ranks, switch=switch)


@pytest.mark.parametrize(
    ("ranks", "switch", "size_bytes", "kind"),
    [
        (8, True, 8192, "one_shot"), (8, True, ONE_SHOT_BYTES, "one_shot"), (8, True, 2 * ONE_SHOT_BYTES, "multimem"),
        (8, False, 2 * ONE_SHOT_BYTES, "two_shot"), (2, True, 2 * ONE_SHOT_BYTES, "two_shot"),
    ],
)  # fmt: skip
def test_size_ranks_and_switch_choose(ranks: int, switch: bool, size_bytes: int, kind: Kind) -> None:
    assert reduce_of(ranks, switch=switch).kind(size_bytes) == kind


def test_what_it_takes() -> None:
    eight = reduce_of(8, switch=False)
    assert eight.takes(torch.zeros(4, 4096, dtype=torch.bfloat16))
    assert eight.takes(torch.zeros(LIMIT_BYTES // 4))
    assert not eight.takes(torch.zeros(LIMIT_BYTES // 4 + 32))
    assert not eight.takes(torch.zeros(8, dtype=torch.bfloat16))  # not a granule for each rank
    assert not eight.takes(torch.zeros(4096, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["one_shot", "two_shot", "multimem"])
def test_the_sum_is_of_the_buffers_copy(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks with equal tensors: the sum is twice the tensor, from torch's operator of that name."""
    called: list[str] = []

    class Operators:
        def __getattr__(self, name: str) -> object:
            def call(x: torch.Tensor, op: str, group: str) -> torch.Tensor:
                called.append(name)
                assert (op, group) == ("sum", "group")
                return x * 2 if name == "one_shot_all_reduce" else x.mul_(2)

            return call

    monkeypatch.setattr(torch.ops, "symm_mem", Operators())
    x = torch.arange(64, dtype=torch.float32)
    got = reduce_of(2, switch=True).all_reduce(x.clone(), kind)
    assert torch.equal(got, 2 * x)
    assert called == [
        {"one_shot": "one_shot_all_reduce", "two_shot": "two_shot_all_reduce_", "multimem": "multimem_all_reduce_"}[kind]
    ]
