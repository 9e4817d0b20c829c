"""Columns of a row that describe separate prefill and decode workers.

`prefill_workers` and `decode_workers`, and for each pool the degrees of a worker: `_tp_size`, `_pp_size`, `_attention_dp_size` and
`_moe_ep_size`.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.errors import QuestionError
from advisor.specs.deployment import Deployment
from advisor.specs.plan import Plan

POOLS = ("prefill", "decode")


def deployment_of_row(text: Mapping[str, str]) -> Deployment | None:
    """The pools of a row; None where it has one kind of worker. Raises QuestionError with a sentence that names the column."""
    if not any(text.get(f"{pool}_workers") for pool in POOLS):
        return None
    return Deployment(prefill=_pool(text, "prefill"), decode=_pool(text, "decode"))


def served_by(deployment: Deployment | None, engine: str, version: str) -> str:
    """The engine version of a row. TensorRT-LLM serves separate pools from version 1.0 on; where a collection writes Dynamo's,
    0.x, the newest profile counts ("")."""
    return "" if deployment and engine == "trtllm" and version.startswith("0.") else version


def _pool(text: Mapping[str, str], pool: str) -> Plan:
    tp, pp, adp, ep = (_count(text, f"{pool}_{name}") for name in ("tp_size", "pp_size", "attention_dp_size", "moe_ep_size"))
    try:
        return Plan(tp=tp, pp=pp, adp=adp, ep=ep if tp * adp % ep == 0 else 1, dp=_count(text, f"{pool}_workers"))
    except ValueError as error:
        raise QuestionError(f"the columns of the {pool} workers do not make a plan: {error}.") from None


def _count(text: Mapping[str, str], column: str) -> int:
    """A whole number; 1 where the cell is empty or 0."""
    cell = text.get(column, "")
    try:
        number = float(cell or 1)
    except ValueError:
        number = -1.0
    if not (number.is_integer() and 0 <= number <= 131_072):
        raise QuestionError(f"column {column} is {cell[:40]!r}: write a whole number.")
    return int(number) or 1
