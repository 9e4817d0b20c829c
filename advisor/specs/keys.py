"""What a coefficient belongs to: a kind of kernel, a collective of so many ranks, a part of an engine's step.

Files write a key as one text ("gemm/bf16", "all_reduce/nccl/nvswitch/8/1", "prefill/blackwell/fp8"). It is read here, once, when
the file is loaded, and a text that is not a key is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, cast, get_args

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

Op = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p"]
LinkClass = Literal["nvswitch", "nvlink", "pcie", "host", "sys", "staged", "network", "tcp"]
SCALED = ("decode", "prefill", "collective", "experts", "attention", "host")


class _Text:
    """A value that files hold as text: `parse` reads it, `str` writes it."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key in `text`. Raises ValueError where it is none."""
        raise NotImplementedError

    @classmethod
    def _read(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise ValueError("a key is text")
        return cls.parse(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(cls._read, serialization=core_schema.to_string_ser_schema())


@dataclass(frozen=True, slots=True, order=True)
class KernelKey(_Text):
    """A kind of kernel ("gemm", "attention_decode") in a variant, as one engine runs it; "" where neither matters.

    The variant is a number format, or for a recurrent state the rule of its update ("gated-delta").
    """

    kind: str
    variant: str = ""
    engine: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`kind`, `kind/variant` or `kind/variant/engine`."""
        parts = text.split("/")
        if len(parts) > 3 or not all(parts):
            raise ValueError(f"{text[:60]!r} is not a kernel: write kind/format or kind/format/engine, as gemm/bf16")
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind, self.variant, self.engine) if part)


@dataclass(frozen=True, slots=True, order=True)
class WireKey(_Text):
    """One straight line of a collective by one algorithm over one class of links.

    `ranks` counts nodes where the link is a network. `line` numbers the lines of one collective (0: its only one).
    """

    op: Op
    algorithm: str
    link: LinkClass
    ranks: int
    line: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """`op/algorithm/link class/ranks` or the same with `/line`."""
        parts = text.split("/")
        if len(parts) not in (4, 5) or parts[0] not in get_args(Op) or not parts[1] or parts[2] not in get_args(LinkClass):
            raise ValueError(f"{text[:60]!r} is not a collective: write op/algorithm/link/ranks, as all_reduce/nccl/nvswitch/8")
        if not all(number.isdecimal() and len(number) < 7 and int(number) for number in parts[3:]):
            raise ValueError(f"{text[:60]!r} must end in a number of ranks, after which a line may be numbered")
        return cls(cast(Op, parts[0]), parts[1], cast(LinkClass, parts[2]), *map(int, parts[3:]))

    def __str__(self) -> str:
        stem = f"{self.op}/{self.algorithm}/{self.link}/{self.ranks}"
        return f"{stem}/{self.line}" if self.line else stem


@dataclass(frozen=True, slots=True, order=True)
class ScaleKey(_Text):
    """A part of an engine's step, everywhere or on one architecture or device, and there in every number format or in one."""

    part: str
    where: str = ""
    number_format: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`part`, `part/where` or `part/where/format`."""
        parts = text.split("/")
        if len(parts) > 3 or not all(parts) or parts[0] not in SCALED:
            raise ValueError(f"{text[:60]!r} is not a part of a step: write part/where/format, part one of {', '.join(SCALED)}")
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(part for part in (self.part, self.where, self.number_format) if part)
