"""Joining of lines that a mail program or a terminal broke.

A mail program breaks a line at a space, and drops the space. A terminal breaks it anywhere, and drops
nothing. The text at the break shows which program broke the line: between whole words of a report a space is
missing, and within a word no space is missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tracer.kernel.kmsg.text import line_markers, shapes

CUT: Final = "\0"
"""The mark of a piece that a terminal cut off: no character is missing at the break."""

_LEAST_CUTS: Final = 2
_NAME: Final = re.compile(r"\s*[a-z][a-z0-9_]{0,63}")
_WHOLE_TOKEN: Final = re.compile(
    r"[a-zA-Z][\w()-]{0,63}:\d{1,20}(?:k[Bb]|KB),?|[a-z][a-z_]{0,63}:\d{1,20}|(?:UID|oom_score_adj):-?\d{1,10}"
    r"|[a-z_]{1,32}=[^\s(]{1,64},|gfp_mask=0x[0-9a-f]{1,8}\([\w|]{0,1000}\),|-?\d{1,20}(?:k[Bb]|KB)?,?"
    r"|\d{1,9}\*\d{1,9}kB|\(\S{0,64}\),?|#\d{1,9}.{0,20}"
)
_REST_OF_SIZE: Final = re.compile(r"\d{0,19}(?:k[Bb]|KB)(?![^\s,])")
_REST_OF_UNIT: Final = re.compile(r"[Bb](?![^\s,])")

_MOST_PIECES: Final = 24
_MOST_GAP: Final = 8
_WORDS: Final = frozenset(
    (
        *("invoked", "oom-killer:", "Out", "out", "of", "memory:", "Memory", "memory", "cgroup", "Killed"),
        *("Kill", "process", "score", "or", "sacrifice", "child", "Not", "tainted", "Tainted:", "Kdump:"),
        *("loaded", "usage", "limit", "failcnt", "stats", "for", "Task", "in", "killed", "as", "a", "result"),
        *("Comm:", "PID:", "CPU:", "UID:", "Pid:", "comm:", "uid", "tgid", "total_vm", "rss", "rss_anon"),
        *("rss_file", "rss_shmem", "pgtables_bytes", "nr_ptes", "nr_pmds", "swapents", "oom_score_adj"),
        *("are", "going", "to", "be", "due", "now", "name", "all_unreclaimable?", "yes", "no", "=", "pages"),
        "swap",
    )
)


class Width:
    """The width of the terminal that broke the lines, if a terminal did: it breaks nearly all lines at one
    column."""

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()

    def gap(self, length: int) -> int | None:
        """Return the number of spaces lost at the end of a broken line of this length; None if no terminal
        is known to have broken it."""
        self._lengths[length] += 1
        width, times = max(self._lengths.items())
        if times < _LEAST_CUTS or times * 3 < self._lengths.total() * 2 or width - length > _MOST_GAP:
            return None
        return width - length


def joined(text: str, pieces: Sequence[str], columns: tuple[str, ...] = ()) -> str:
    """Return a message joined with `pieces`, the lines after it in the log that may continue it.

    A piece that is a line of its own is joined with a line end, as in a message of several lines. `columns`
    are the columns of the table of tasks that is being printed.
    """
    lines = text.split("\n")
    for piece in pieces:
        is_cut = piece.startswith(CUT)
        for number, part in enumerate(piece.removeprefix(CUT).split("\n")):
            last = lines[-1]
            of_kind = shapes.kind(last.lstrip())
            stripped = part.lstrip()
            is_own = number > 0 or not stripped or shapes.kind(stripped) is not None
            if of_kind is None and not last.strip():
                lines[-1] = stripped
            elif part.strip().isdigit() and _NAME.fullmatch(last):
                lines[-1] = f"{last} {stripped}"  # a row of memory.stat
            elif is_own or not _continues(last.lstrip(), of_kind, part):
                lines.append(part)
            elif is_cut:
                lines[-1] = last + part
            else:
                lines[-1] = _join(last, part, of_kind, columns)
    return "\n".join(lines)


def may_go_on(text: str, pieces: Sequence[str], line: str) -> bool:
    """Return whether a message without a prefix, and the pieces joined to it so far, continue in this
    line."""
    stripped, first = line.strip(), text.lstrip()
    if not stripped or shapes.kind(stripped) is not None or len(pieces) >= _MOST_PIECES:
        return False
    of_kind = shapes.kind(first)
    return of_kind is not None and shapes.goes_on(joined(text, pieces), of_kind, line)


def _continues(last: str, of_kind: str | None, part: str) -> bool:
    return of_kind == "sums" or shapes.goes_on(last, of_kind, part)


def _is_in_name(text: str, of_kind: str | None) -> bool:
    """Return whether a line ends within the name of a process, which a mail program breaks at a space."""
    if of_kind == "kill":
        _, found, rest = text.partition("process ")
        return bool(found) and "(" in rest and ")" not in rest
    _, found, rest = text.rpartition(",task=")
    return of_kind == "summary" and bool(found) and rest != "" and ",pid=" not in rest


def _join(left: str, part: str, of_kind: str | None, columns: tuple[str, ...]) -> str:
    right = part.lstrip()
    plain, spaced = left + right, f"{left.rstrip()} {right}"
    if left.endswith(" ") or _is_within_size(left, right):
        return plain
    if part != right or of_kind == "head" or _is_in_name(left, of_kind):
        return spaced
    if of_kind == "summary":
        return plain
    if of_kind == "kill" and line_markers.has_victim(plain) != line_markers.has_victim(spaced):
        return plain if line_markers.has_victim(plain) else spaced
    if of_kind == "task" and columns:
        return plain if _fits(plain, columns) and not _fits(spaced, columns) else spaced
    return spaced if _is_between_words(left, right) else plain


def _fits(row: str, columns: tuple[str, ...]) -> bool:
    """Return whether a row of the table of tasks has these columns, and no digit at the beginning of its
    name."""
    found = line_markers.task_row(row.lstrip(), len(columns) - 2)
    return found is not None and not found.groups()[-1][:1].isdigit()


def _is_within_size(left: str, right: str) -> bool:
    """Return whether a break is within a size such as `4096kB`, which is one word."""
    if left[-1:].isdigit():
        return _REST_OF_SIZE.match(right) is not None
    return left[-1:] in ("k", "K") and left[-2:-1].isdigit() and _REST_OF_UNIT.match(right) is not None


def _is_between_words(left: str, right: str) -> bool:
    left_word, right_word = left.rsplit(maxsplit=1)[-1], right.split(maxsplit=1)[0]
    if left.count("(") > left.count(")") and "|" in left_word:
        return False  # within the names of a gfp mask
    if left_word[-1] == ",":
        return True
    if left_word[-1] in "-_" or right_word[0] in ",_:=" or left_word + right_word in _WORDS:
        return False
    return any(word in _WORDS or _WHOLE_TOKEN.fullmatch(word) for word in (left_word, right_word))
