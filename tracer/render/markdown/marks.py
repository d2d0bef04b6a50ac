"""Marks of Markdown (CommonMark, and the tables of GitHub and GitLab) around words that are shown unchanged.

Names come from processes and containers: any user can choose them. None may become a mark, a link, raw HTML,
a formula, an emoji, or the mention of a person or an issue, which sends messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact

_MARK: Final = re.compile(r"[\\`*_{}\[\]<>|~&$^]")
_AT_BEGIN: Final = re.compile(r"^(#{1,6}(?= |$)|[-+=]|\d{1,9}(?=[.)](?: |$)))")
_LINKED: Final = re.compile(r"@|://|www\.|[#!%&~]\w|:[a-z+-][\w+-]*:|\bGH-\d|^[0-9a-f]{7,40}$", re.IGNORECASE)
"""Words that GitHub or GitLab would link after Markdown: mentions, addresses, issues, emoji, commits."""


def escaped(text: str, *, in_cell: bool = False) -> str:
    """Return text of one line in which nothing is a mark; a word that would be linked becomes code.

    `in_cell`: a pipe ends a cell of a table even inside of code, so code is left for it.
    """
    words = [_word(word, in_cell=in_cell) for word in visible(text).strip().split(" ")]
    return _AT_BEGIN.sub(_harmless_begin, " ".join(words))


def _word(word: str, *, in_cell: bool) -> str:
    if not _LINKED.search(word):
        return _MARK.sub(r"\\\g<0>", word)
    parts = word.split("|") if in_cell else [word]
    return r"\|".join(code(part) if part else "" for part in parts)


def _harmless_begin(begin: re.Match[str]) -> str:
    """Return the begin of a line that is no heading, rule or item of a list."""
    return f"{begin[1]}\\" if begin[1].isdigit() else f"\\{begin[1]}"


def code(text: str) -> str:
    """Return text as a code span: its fence is longer than each run of backticks in it (CommonMark, 6.1)."""
    shown = visible(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    room = " " if shown[:1] == "`" or shown[-1:] == "`" else ""
    return f"{fence}{room}{shown}{room}{fence}"


def heading(words: str) -> Iterator[str]:
    """Yield the lines of a heading."""
    yield from ("", f"### {escaped(words)}", "")


def bold(text: str) -> str:
    """Return text in bold."""
    return f"**{escaped(text.strip())}**"


def bullets(sentences: Iterable[str]) -> Iterator[str]:
    """Yield an item for each sentence."""
    yield from (f"- {escaped(sentence)}" for sentence in sentences)


def facts(lines: Iterable[Fact]) -> Iterator[str]:
    """Yield an item for each label; lines without a label are items below it."""
    for label, sentence in lines:
        yield f"- {bold(label)}: {escaped(sentence)}" if label.strip() else f"  - {escaped(sentence.strip())}"


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table. Each column is a title and its alignment, `<` or `>`."""
    yield _row(title for title, _ in columns)
    yield "".join(f"|{' ---: ' if side == '>' else ' --- '}" for _, side in columns) + "|"
    yield from map(_row, rows)


def _row(cells: Iterable[str]) -> str:
    return "".join(f"| {escaped(cell, in_cell=True)} " for cell in cells) + "|"
