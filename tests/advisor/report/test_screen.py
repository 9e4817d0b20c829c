"""What the screen can show."""

from __future__ import annotations

import re
import shlex

from hypothesis import given
from hypothesis import strategies as st

from advisor.report.screen import PLAIN, WIDTH, Screen

WORD = st.one_of(st.text(min_size=1, max_size=30), st.sampled_from(["--flag", "--max-model-len", "8192", "-x", "it's", 'a "b"']))


@given(st.lists(WORD, min_size=1, max_size=30))
def test_a_command_over_several_lines_is_the_same_command(words: list[str]) -> None:
    command = " ".join(
        shlex.quote(word) for word in words if not any(c in word for c in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    )
    text = "\n".join(PLAIN.shell(command))
    assert shlex.split(text.replace("\\\n", " ")) == shlex.split(command)


def test_a_long_command_fits_and_its_comment_stands_before_it() -> None:
    lines = PLAIN.shell("vllm serve m " + "--option value " * 20 + " # the first of two servers")
    assert lines[0] == "  # the first of two servers"
    assert max(map(len, lines)) <= WIDTH
    assert all(line.endswith("\\") for line in lines[1:-1])


def test_commands_that_follow_each_other_have_a_line_each() -> None:
    assert PLAIN.shell("echo 'a; b' > c; run it --x 1") == ["  echo 'a; b' > c;", "  run it --x 1"]


def test_words_without_options_break_at_the_edge() -> None:
    lines = PLAIN.shell("CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 mpirun -n 16 " + "x" * 30 + " " + "y" * 30 + " " + "z" * 30)
    assert len(lines) == 2
    assert max(map(len, lines)) <= WIDTH


def test_a_bar_is_as_long_as_its_share() -> None:
    assert PLAIN.bar(1.0, width=10) == "█" * 10
    assert PLAIN.bar(0.25, width=10) == "██▌"
    assert PLAIN.bar(0.0, width=10) == ""
    assert Screen(blocks=False).bar(0.5, width=10) == "#####"


def test_colour_only_where_it_is_on() -> None:
    assert PLAIN.bold("x") == "x"
    assert Screen(colour=True).bold("x") == "\x1b[1mx\x1b[0m"


def test_a_table_is_aligned() -> None:
    assert PLAIN.table(("a", "b"), [("x", "1"), ("yy", "22")], right=(1,)) == ["a    b", "x    1", "yy  22"]


@given(st.text(max_size=400))
def test_paragraphs_fit(text: str) -> None:
    assert all(len(line) <= WIDTH or " " not in line.strip() for line in PLAIN.wrap(text).split("\n"))


def test_a_table_that_is_too_wide_moves_its_columns_closer() -> None:
    narrow, wide = PLAIN.table(("a", "b"), [("x", "y")]), PLAIN.table(("a",) * 11, [("x" * 8,) * 11])
    assert narrow[1] == "x  y"
    assert max(map(len, wide)) == 11 * 8 + 10 <= WIDTH


def test_a_terminal_is_used_as_wide_as_it_is() -> None:
    text = "word " * 60
    for width in (80, 120, 200):
        assert width - 6 < max(map(len, Screen(width=width).wrap(text).splitlines())) <= width


def test_a_table_on_a_terminal_has_a_bold_head_and_breaks_cells_that_do_not_fit() -> None:
    rows = [("short", "1"), ("a sentence that is much longer than there is room for " * 3, "22")]
    lines = Screen(colour=True, width=80).table(("what", "n"), rows, right=(1,))
    assert "\x1b[1m" in lines[0]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(map(len, plain)) <= 80
    assert len(plain) > 3
    assert [line.split() for line in plain[:2]] == [["what", "n"], ["short", "1"]]
