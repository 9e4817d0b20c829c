"""`python -m runner.kernels.build 80 90`: compile every kernel for GPUs of these compute capabilities, without one.

Triton's interpreter accepts what its compiler refuses. One line a kernel: capability, name, bytes of shared memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from runner.kernels.decode_attention import _join, _partial_sums
from runner.kernels.experts import COLUMNS, DEPTH, MOST_PAIRS, ROWS, _down, _gate_up, _list_pairs
from runner.kernels.rotate_and_write import _rotate_and_write

FP8_SINCE = 89
Types = dict[str, str]
Constants = dict[str, Any]
B16, F32, I32, I64 = "*bf16", "*fp32", "*i32", "*i64"


def kernels(capability: int) -> Iterator[tuple[str, Any, Types, Constants, dict[str, int]]]:
    """Name, kernel, types of its arguments, constants and options: the shapes of an 8B, a Gemma, gpt-oss, and DeepSeek-V3."""
    for name, d, dv, rows, window, softcap, sinks, splits in (
        ("8b", 128, 128, 16, 0, 0.0, False, 8), ("8b_full", 128, 128, 16, 0, 0.0, False, 1),
        ("gemma", 256, 256, 16, 1024, 50.0, False, 2), ("gpt_oss", 64, 64, 16, 128, 0.0, True, 1),
        ("latent", 576, 512, 32, 0, 0.0, False, 4),
        ("odd", 80, 80, 16, 0, 0.0, False, 2),
    ):  # fmt: skip
        wide = d > 256
        types = {"q": B16, "keys": B16, "values": B16, "positions": I64, "sinks": B16, "out": B16 if splits == 1 else F32,
                 "tops": F32, "sums": F32, "K": "i32", "G": "i32", "slots": "i32", "each": "i32", "scale": "fp32"}  # fmt: skip
        constants = {
            "D": d, "DV": dv, "D_FIRST": 512 if wide else triton.next_power_of_2(d), "D_REST": 64 if wide else 0,
            "DV_BLOCK": triton.next_power_of_2(dv), "ROWS": rows, "GROUPS": 1, "TOKENS": 32 if wide else 64, "SPLITS": splits,
            "SHARED": wide, "WINDOW": window, "CHUNKED": False, "SOFTCAP": softcap, "SINKS": sinks,
        }  # fmt: skip
        yield f"partial_sums_{name}", _partial_sums, types, constants, {"num_warps": 8 if wide else 4, "num_stages": 2}
    types = {"parts": F32, "tops": F32, "sums": F32, "sinks": B16, "out": B16, "splits": "i32"}
    yield "join", _join, types, {"DV": 128, "DV_BLOCK": 128, "SPLITS_BLOCK": 16, "SINKS": True}, {"num_warps": 4}
    for name, interleaved, normed, keys, half, d in (("8b", False, False, False, 64, 128), ("glm", True, True, True, 32, 128),
                                                     ("plain", False, False, True, 0, 80)):  # fmt: skip
        types = dict.fromkeys(("qkv", "q_weight", "k_weight", "q_out", "k_out", "keys", "values"), B16)
        types |= {"cos": F32, "sin": F32, "positions": I64, "sequences": I64, "eps": "fp32", "offset": "fp32"}
        types |= dict.fromkeys(("row_stride", "H", "K", "slots", "decodes", "prompt_end"), "i32")
        constants = {
            "D": d, "DV": d, "HALF": half, "HALF_BLOCK": triton.next_power_of_2(max(1, half)),
            "REST_BLOCK": triton.next_power_of_2(max(1, d - 2 * half)), "DV_BLOCK": triton.next_power_of_2(d),
            "INTERLEAVED": interleaved, "NORMED": normed, "KEYS": keys,
        }  # fmt: skip
        yield f"rotate_and_write_{name}", _rotate_and_write, types, constants, {"num_warps": 1}
    yield from _experts(capability)


def _experts(capability: int) -> Iterator[tuple[str, Any, Types, Constants, dict[str, int]]]:
    types = {"chosen": I64, "pairs": I32, "counts": I32, "R": "i32", "first": "i32"}
    yield "list_pairs", _list_pairs, types, {"BLOCK": MOST_PAIRS}, {"num_warps": 8}
    tile = {"D": 2048, "F": 768, "BIASED": True, "ROWS": ROWS, "COLUMNS": COLUMNS, "DEPTH": DEPTH}
    for weights in (B16, "*fp8e4nv") if capability >= FP8_SINCE else (B16,):
        scaled = weights != B16
        types = {
            "weights": weights,
            "scales": F32 if scaled else B16,
            "biases": B16,
            "pairs": I32,
            "counts": I32,
            "inner": B16,
            "R": "i32",
        }
        options = {"num_warps": 4, "num_stages": 3}
        swiglu = {"SWIGLU": True, "LIMIT": 7.0, "ALPHA": 1.702}
        yield f"gate_up_{weights[1:]}", _gate_up, types | {"x": B16, "k": "i32"}, tile | swiglu | {"SCALED": scaled}, options
        yield f"down_{weights[1:]}", _down, types | {"gates": F32, "out": B16}, tile | {"SCALED": scaled}, options


def shared_bytes(kernel: Any, types: Types, constants: Constants, capability: int, options: dict[str, int]) -> int:
    """Compile; pointers and strides are multiples of 16, as those of torch's tensors."""
    names = list(kernel.arg_names)
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name, kind in types.items() if kind.startswith("*")}
    source = ASTSource(
        fn=kernel, signature={name: types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()}, attrs=aligned,
    )  # fmt: skip
    return int(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).metadata.shared)


def main(arguments: list[str]) -> None:
    """Compile for each capability named."""
    for capability in map(int, arguments):
        for name, kernel, types, constants, options in kernels(capability):
            sys.stdout.write(f"{capability} {name} {shared_bytes(kernel, types, constants, capability, options)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
