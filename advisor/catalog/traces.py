"""Traces of requests in the forms that are published, read line by line with bounded memory.

| form | how it is told | columns |
|---|---|---|
| Azure LLM inference (Azure/AzurePublicDataset, CC-BY) | header | TIMESTAMP, ContextTokens, GeneratedTokens |
| BurstGPT (HPMLL/BurstGPT, CC-BY) | header | Timestamp (s), Request tokens, Response tokens |
| own | header | arrival_s, input_tokens, output_tokens, and prefix_id, prefix_tokens where prompts begin alike |
| Mooncake (kvcache-ai/Mooncake, Apache-2.0), aiperf, Dynamo | JSON lines | timestamp (ms), input_length, output_length, hash_ids |

Each may be compressed with gzip. A line that cannot be meant is skipped and counted, or refused where `strict`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from advisor.errors import QuestionError
from advisor.files import shown
from advisor.specs.trace import Request, Trace

MOST_REQUESTS = 2_000_000  # about 1 GB of memory
MOST_LINE = 1_000_000  # characters; a hash for each 512 tokens of ten million is less
MOST_BYTES = 4 * 2**30  # of text, unpacked: a small gzip file can hold any amount
MOST_TOKENS = 100_000_000
BLOCK_TOKENS = 512  # of one hash in Mooncake's traces (FAST25-release/README.md)
_AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BURST = ("Timestamp", "Request tokens", "Response tokens")
_OWN = ("arrival_s", "input_tokens", "output_tokens")


def read_trace(path: Path, *, strict: bool = False) -> Trace:
    """The requests of a file in order of time, from 0 on. Raises QuestionError with one sentence where it is not a trace."""
    requests: list[Request] = []
    skipped, reason = 0, ""
    try:
        with _opened(path) as file:
            for number, found in _rows(_lines(file, path), path):
                if isinstance(found, Request):
                    if len(requests) == MOST_REQUESTS:
                        raise QuestionError(f"{shown(path)} has more than {MOST_REQUESTS:,} requests; give a part of it.")
                    requests.append(found)
                    continue
                if strict:
                    raise QuestionError(f"line {number} of {shown(path)} is not a request: {found}; correct it or omit --strict.")
                skipped, reason = skipped + 1, reason or f"line {number}: {found}"
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise QuestionError(f"{shown(path)} cannot be read: {error.strerror or error}; give a trace of requests.") from None
        raise QuestionError(f"{shown(path)} is a damaged gzip file; fetch it again.") from None
    except UnicodeDecodeError:
        raise QuestionError(f"{shown(path)} is not UTF-8 text; give a trace as CSV or JSON lines.") from None
    if not requests:
        raise QuestionError(f"{shown(path)} has no request that can be read{f' ({reason})' if reason else ''}.")
    requests.sort(key=lambda request: request.arrival_s)
    return Trace(name=path.name, requests=_from_zero(requests), skipped=skipped, reason=reason)


def _from_zero(requests: list[Request]) -> list[Request]:
    first_s = requests[0].arrival_s
    return [
        Request(
            arrival_s=r.arrival_s - first_s, input_tokens=r.input_tokens, output_tokens=r.output_tokens, prefix=r.prefix
        )
        for r in requests
    ] if first_s else requests  # fmt: skip


def _opened(path: Path) -> io.TextIOBase:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    raw: Any = gzip.open(path, "rb") if packed else path.open("rb")  # noqa: SIM115 (closed with the text around it)
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _lines(file: io.TextIOBase, path: Path) -> Iterator[str]:
    """Lines of bounded length, of a text of bounded size."""
    read = 0
    while line := file.readline(MOST_LINE):
        read += len(line)
        if len(line) == MOST_LINE:
            raise QuestionError(f"{shown(path)} has a line of more than {MOST_LINE:,} characters; give CSV or JSON lines.")
        if read > MOST_BYTES:
            raise QuestionError(f"{shown(path)} is larger than {MOST_BYTES // 2**30} GiB; give a part of it.")
        yield line


def _rows(lines: Iterator[str], path: Path) -> Iterator[tuple[int, Request | str]]:
    """Each line's number, and its request or what is wrong with it."""
    first = next(lines, "")
    if first.lstrip().startswith("{"):
        yield 1, _of_json(first)
        for number, line in enumerate(lines, 2):
            if line.strip():
                yield number, _of_json(line)
        return
    names = [name.strip() for name in next(csv.reader([first]), [])]
    form = next((form for form in (_AZURE, _BURST, _OWN) if set(form) <= set(names)), None)
    if form is None:
        raise QuestionError(
            f"{shown(path)} is not a trace that is known: its first line names none of the columns {', '.join(_OWN)}, nor those of "
            "Azure or BurstGPT, and is not JSON as Mooncake's."
        )
    for number, cells in enumerate(csv.reader(lines), 2):
        if cells:
            yield number, _of_cells(dict(zip(names, cells, strict=False)), form)


def _of_cells(row: Mapping[str, str], form: tuple[str, ...]) -> Request | str:
    when, inputs, outputs = (row.get(name, "") for name in form)
    at_s = _time_s(when) if form is _AZURE else _number(when)
    prefix = _own_prefix(row) if form is _OWN else ()
    if prefix is None:
        return "prefix_id and prefix_tokens are whole numbers from 0, and the prefix is shorter than the prompt"
    return _request(at_s, _number(inputs), _number(outputs), prefix)


def _own_prefix(row: Mapping[str, str]) -> tuple[tuple[int, int], ...] | None:
    """The prefix of a row of our own form; None where it cannot be meant."""
    name, tokens = row.get("prefix_id", "").strip(), row.get("prefix_tokens", "").strip()
    if not name or not tokens:
        return ()
    length = _number(tokens)
    if not name.isdigit() or len(name) > 18 or length is None or not 0 <= length < (_number(row["input_tokens"]) or 0):
        return None
    return ((int(name), int(length)),) if length else ()


def _of_json(line: str) -> Request | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(row, dict):
        return "no JSON object"
    at_ms, inputs, outputs = (_number(row.get(name)) for name in ("timestamp", "input_length", "output_length"))
    ids = row.get("hash_ids", [])
    if not isinstance(ids, list) or not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in ids):
        return "hash_ids are whole numbers from 0"
    prefix = []
    for place, identity in enumerate(ids):
        tokens = min(BLOCK_TOKENS, int(inputs or 0) - place * BLOCK_TOKENS)
        if tokens > 0:
            prefix.append((identity, tokens))
    return _request(None if at_ms is None else at_ms / 1e3, inputs, outputs, tuple(prefix))


def _request(at_s: float | None, inputs: float | None, outputs: float | None, prefix: tuple[tuple[int, int], ...]) -> Request | str:
    if at_s is None or not 0 <= at_s < 1e12:
        return "its time is not a number of at least 0"
    for name, tokens in (("prompt", inputs), ("answer", outputs)):
        if tokens is None or not 1 <= tokens <= MOST_TOKENS:
            return f"its {name} has no length from 1 to {MOST_TOKENS:,} tokens"
    return Request(arrival_s=at_s, input_tokens=int(inputs or 0), output_tokens=int(outputs or 0), prefix=prefix)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _time_s(text: str) -> float | None:
    """Seconds of a date and time like 2023-11-16 18:15:46.6805900, in UTC."""
    whole, _, part = text.strip().removesuffix("Z").removesuffix("+00:00").partition(".")
    fraction = _number(f"0.{part}") if part.isdigit() else (0.0 if not part else None)
    if fraction is None:
        return None
    try:
        return (datetime.fromisoformat(whole) - datetime(1970, 1, 1)).total_seconds() + fraction
    except (ValueError, TypeError):
        return None
