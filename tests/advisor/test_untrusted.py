from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.errors import AdvisorError, ProfileError
from advisor.untrusted import MAX_DEPTH, parse_documents, parse_json, parse_yaml, read_text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &x 1\nb: *x", "anchors"),
        ("a: &x [1]", "anchors"),
        ("a: *x", "anchors"),
        ("a: !!str 5", "tags"),
        ("a: !!python/object:os.system x", "tags"),
        ("a: !own 5", "tags"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "'c' stands twice"),
        ("a: {<<: {b: 1}}", "merge"),
        ("? [1, 2]\n: 3", "plain word"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: [1", "line"),
        ("a: \x00", "control characters"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("- 1", "mapping"),
        ("1: 2", "mapping"),
        ("", "mapping"),
        ("[" * 200_000, "levels deep|nesting depth"),
        ("{a: " * 100_000, "levels deep|nesting depth"),
        ("- " * 200_000, "levels deep|nesting depth"),
        ("? " * 100_000, "levels deep|nesting depth"),
        ("\n".join(" " * i + "a:" for i in range(2500)), "levels deep|nesting depth"),
        ("\n".join("  " * i + "- a:" for i in range(500)), "levels deep|nesting depth"),
    ],
)
def test_what_is_not_plain_is_refused_in_one_sentence(text: str, why: str) -> None:
    with pytest.raises(ProfileError, match=why) as caught:
        parse_yaml(text, origin="x.yaml")
    assert str(caught.value).startswith("x.yaml")
    assert "\n" not in str(caught.value)


def test_signs_inside_text_are_no_tags_and_dates_stay_text() -> None:
    data = parse_yaml("a: 'R&D *now* !'\nb: 2026-11-21\nc: 12:30:01\nd: 1:30.5\ne: [1, 2.5, true, null]", origin="x")
    assert data == {"a": "R&D *now* !", "b": "2026-11-21", "c": "12:30:01", "d": "1:30.5", "e": [1, 2.5, True, None]}


def test_depth_is_that_of_the_data_and_not_of_brackets_in_text() -> None:
    assert parse_yaml(f"a: '{'[' * 100}'", origin="x") == {"a": "[" * 100}
    ok = "a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert parse_yaml(ok, origin="x")
    with pytest.raises(ProfileError, match="levels deep"):
        parse_yaml("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, origin="x")


@given(st.text(alphabet=" \n\t-:?[]{},&*!|>'\"%@#ab1.~", max_size=200))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_mapping_or_a_sentence(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        sentence, data = "", None
        try:
            data = parse(text, origin="x")
        except AdvisorError as error:
            sentence = str(error)
        assert isinstance(data, dict) or sentence
        assert "\n" not in sentence


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "large").write_bytes(b"a" * (4 * 2**20 + 1))
    for name in ("absent", "binary", "large", ".", "a\0b"):
        with pytest.raises(ProfileError):
            read_text(tmp_path / name)
    with pytest.raises(ProfileError, match="too deeply"):
        parse_json("[" * 500_000, origin="x.json")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero on this system")
def test_a_file_without_an_end_is_refused_after_the_size_that_is_read() -> None:
    with pytest.raises(ProfileError, match="larger than 4 MB"):
        read_text(Path("/dev/zero"))


def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfname: x\r\nsize: 2\r\n")
    assert read_text(tmp_path / "a.yaml") == "name: x\nsize: 2\n"


def test_documents_of_a_manifest_may_share_values() -> None:
    text = "x-server: &server\n  image: &image vllm\n  ports: [1]\n---\nservices:\n  a: &a\n    <<: {b: 1}\n  c: *a\n"
    assert parse_documents(text, origin="x") == [
        {"x-server": {"image": "vllm", "ports": [1]}}, {"services": {"a": {"b": 1}, "c": {"b": 1}}},
    ]  # fmt: skip


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "too many values"),
        ("a: &a [*a]", "in its own anchor"),
        ("a: *b", "in its own anchor"),
        ("a: !!python/name:os.system x", "tags are not read"),
        ("[" * 200_000, "levels"),
        ("a: 5\n---\n- 1", "mapping"),
    ],
)
def test_what_documents_may_not_hold(text: str, why: str) -> None:
    with pytest.raises(ProfileError, match=why):
        parse_documents(text, origin="x")
