"""The layout of help: no line is wider than the terminal, no name is broken, and examples can be pasted.

It imports only click and the standard library, as the group does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

_HELD: Final = "\ue000"  # private use: in place of a hyphen at which no line may end
_HYPHEN: Final = re.compile(r"(?<=\S)-(?=\S)")
_WORD: Final = re.compile(r"""(?:(?:--?[a-z][\w-]*|[|>]) (?![-|>]))?(?:'[^']*'|"[^"]*"|\S)+""")
"""A word of a command; an option and its value, or a redirection and its file, are one word."""

_COMMENT: Final = re.compile(r"(?P<command>\S.*?) +# (?P<words>.*)")
_EXAMPLES: Final = "\b\nExamples:"  # \b: click does not wrap these lines
_INDENT: Final = 2
_MARGIN: Final = 2
"""Columns that click leaves free on the right; examples may use them."""


class HelpLayout(click.HelpFormatter):
    """click's layout; examples that are too long for a line are continued on the next one."""

    def write(self, string: str) -> None:
        super().write(string.replace(_HELD, "-"))

    def write_text(self, text: str) -> None:
        width = self.width + _MARGIN - self.current_indent
        paragraphs = (
            "\n".join(_fitted(one.splitlines(), width)) if one.startswith(_EXAMPLES) else _held(one)
            for one in text.split("\n\n")
        )
        super().write_text("\n\n".join(paragraphs))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(name, _held(words)) for name, words in rows], col_max, col_spacing)


class HelpContext(click.Context):
    """The context of every verb: its help has this layout."""

    formatter_class = HelpLayout


def _held(text: str) -> str:
    return _HYPHEN.sub(_HELD, text)


def _fitted(lines: Sequence[str], width: int) -> Iterator[str]:
    """Yield the lines. If one is too long, each comment goes to a line of its own, above its command."""
    if all(len(line) <= width for line in lines):
        yield from lines
        return
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        commented = _COMMENT.fullmatch(line.strip())
        if commented:
            yield f"{indent}# {commented['words']}"
        yield from _continued(commented["command"] if commented else line.strip(), indent, width)


def _continued(command: str, indent: str, width: int) -> Iterator[str]:
    """Yield a command, on as many lines as it needs, as a shell reads them."""
    line = indent
    for word in _WORD.findall(command):
        if len(line) + len(word) + len(" \\") > width and line.strip():
            yield f"{line}\\"
            line = indent + " " * _INDENT
        line += f"{word} "
    yield line.rstrip()
