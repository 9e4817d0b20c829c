"""Traces in their published forms, and lines that cannot be meant."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from advisor.catalog import traces
from advisor.catalog.traces import read_trace
from advisor.errors import QuestionError
from advisor.specs.trace import Request

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
BURST = (
    "Timestamp,Session ID,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,,ChatGPT,472,18,490,x\n45,,GPT-4,100,3,9,x\n"
)
OWN = "arrival_s,input_tokens,output_tokens,prefix_id,prefix_tokens\n1.5,100,10,7,64\n2.5,200,20,,\n"
MOONCAKE = (
    '{"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [0, 1]}\n'
    '{"timestamp": 2500, "input_length": 512, "output_length": 6, "hash_ids": [0]}\n'
)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "trace"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "second"),
    [
        (AZURE, Request(arrival_s=4.314579, input_tokens=396, output_tokens=109)),
        (BURST, Request(arrival_s=40.0, input_tokens=100, output_tokens=3)),
        (OWN, Request(arrival_s=1.0, input_tokens=200, output_tokens=20)),
        (MOONCAKE, Request(arrival_s=2.5, input_tokens=512, output_tokens=6, prefix=((0, 512),))),
    ],
    ids=["azure", "burstgpt", "own", "mooncake"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_published_forms(tmp_path: Path, text: str, second: Request, packed: bool) -> None:
    path = written(tmp_path, gzip.compress(text.encode()) if packed else text)
    first, found = read_trace(path).requests
    assert first.arrival_s == 0.0
    assert found.arrival_s == pytest.approx(second.arrival_s)
    assert (found.input_tokens, found.output_tokens, found.prefix) == (second.input_tokens, second.output_tokens, second.prefix)


def test_prefixes() -> None:
    assert traces._of_json(MOONCAKE.splitlines()[0]) == Request(
        arrival_s=0.0, input_tokens=700, output_tokens=5, prefix=((0, 512), (1, 188))
    )


def test_a_trace_out_of_order_is_put_in_order(tmp_path: Path) -> None:
    path = written(tmp_path, "arrival_s,input_tokens,output_tokens\n9,5,5\n3,6,6\n")
    assert [r.input_tokens for r in read_trace(path).requests] == [6, 5]


@pytest.mark.parametrize("line", ["-1,5,5", "1,0,5", "1,5,0", "x,5,5", "1,nan,5", "1,5", "1,1e99,5", "1,5,5,-3,2", "1,5,5,1,9"])
def test_a_line_that_cannot_be_meant_is_counted_or_refused(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, f"arrival_s,input_tokens,output_tokens,prefix_id,prefix_tokens\n0,5,5,,\n{line}\n")
    found = read_trace(path)
    assert (len(found.requests), found.skipped) == (1, 1)
    assert found.reason.startswith("line 3: ")
    with pytest.raises(QuestionError, match=r"line 3 of .* is not a request"):
        read_trace(path, strict=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b,c\n1,2,3\n", "not a trace that is known"),
        (b"", "not a trace that is known"),
        (b"arrival_s,input_tokens,output_tokens\n", "no request that can be read"),
        (b"\x1f\x8b broken", "damaged gzip"),
        (gzip.compress(OWN.encode())[:-9], "damaged gzip"),
        (b"arrival_s,input_tokens,output_tokens\n\xff\xfe", "not UTF-8 text"),
        (b"[1, 2]\n", "not a trace that is known"),
        (b'{"timestamp": []}\n', "no request that can be read"),
    ],
)
def test_a_file_that_is_no_trace_is_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(QuestionError, match=said) as caught:
        read_trace(written(tmp_path, content))
    assert "\n" not in str(caught.value)
    with pytest.raises(QuestionError, match="cannot be read"):
        read_trace(tmp_path / "none")


def test_a_file_without_end_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_LINE", 100)
    with pytest.raises(QuestionError, match="line of more than 100 characters"):
        read_trace(written(tmp_path, "x" * 1000))
    monkeypatch.setattr(traces, "MOST_BYTES", 2**30)
    monkeypatch.setattr(traces, "MOST_REQUESTS", 1)
    with pytest.raises(QuestionError, match="more than 1 requests"):
        read_trace(written(tmp_path, OWN))
