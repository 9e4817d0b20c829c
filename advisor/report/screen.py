"""What the screen can show: width, colour and characters. Every page is plain text that fits it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100  # of a page that is read later: a pipe, a file
NARROWEST, WIDEST = 80, 200  # of a terminal: lines longer than that are hard to follow


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """`colour` is off in a pipe and under NO_COLOR; `blocks` is off where the encoding has no box characters."""

    colour: bool = False
    blocks: bool = True
    width: int = WIDTH

    def bold(self, text: str) -> str:
        """Bold where colours are on."""
        return f"\x1b[1m{text}\x1b[0m" if self.colour else text

    def dim(self, text: str) -> str:
        """Faint where colours are on."""
        return f"\x1b[2m{text}\x1b[0m" if self.colour else text

    def bar(self, share: float, *, width: int) -> str:
        """A bar of `share` (0..1) of `width` columns, in eighths of a column where the characters allow."""
        share = min(1.0, max(0.0, share))
        if not self.blocks:
            return "#" * round(share * width)
        eighths = round(share * width * 8)
        return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")

    def wrap(self, text: str, *, indent: str = "", first: str | None = None) -> str:
        """A paragraph within the width; `first` indents its first line differently."""
        return textwrap.fill(
            text, self.width, initial_indent=indent if first is None else first, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip

    def shell(self, command: str, *, indent: str = "  ") -> list[str]:
        """A shell command over several lines, each but the last ending in a backslash; a closing comment goes before it.

        Lines break before an option, after a semicolon and before a word that would pass the edge, outside quotes, so that the
        lines together are the same command.
        """
        words, comment = _words(command)
        lines: list[str] = []
        current = ""
        for word in words:
            left = self.width - len(indent) - len(current) - len(word) - len("  \\")
            if current and left < (24 if word.startswith("-") else 0):  # an option takes its value along
                lines.append(f"{indent}{current} \\")
                current = "  " + word
            else:
                current = f"{current} {word}" if current else word
            if word.endswith(";"):
                lines.append(indent + current)
                current = ""
        lines.append(indent + current)
        return [*([self.wrap(f"# {comment}", indent=f"{indent}# ", first=indent)] if comment else []), *lines]

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), gap: int = 2) -> list[str]:
        """Lines of an aligned table: the head first. Columns in `right` are aligned to the right; a wide table moves closer.

        On a terminal its head is bold, and cells that do not fit are broken over lines.
        """
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        if sum(widths) + gap * (len(widths) - 1) > self.width:
            gap = 1
        if self.colour:
            from advisor.report.terminal import table

            return table(head, rows, right=right, gap=gap, width=self.width)
        lines = []
        for row in [head, *rows]:
            cells = [
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append((" " * gap).join(cells).rstrip())
        return lines


PLAIN = Screen()


def _words(command: str) -> tuple[list[str], str]:
    """The words of a command as written, quotes kept, and the comment that closes it."""
    words: list[str] = []
    word = quote = ""
    for at, character in enumerate(command):
        if not quote and character == "#" and not word:
            return words, command[at + 1 :].strip()
        if character == " " and not quote:
            words += [word] if word else []
            word = ""
            continue
        if quote == character:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        word += character
    return words + ([word] if word else []), ""
