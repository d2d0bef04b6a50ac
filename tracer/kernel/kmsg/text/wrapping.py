"""Lines that a mail program or a terminal broke, put together again.

A mail program breaks at a space, and drops it; a terminal breaks anywhere, and drops nothing. What stands at
the break shows which of them it was: whole words of a report need the space back, parts of one do not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tracer.kernel.kmsg.report import sections
from tracer.kernel.kmsg.text import shapes

CUT: Final = "\0"
"""Before a piece that a terminal cut off, so that nothing is missing at the break."""

_LEAST_CUTS: Final = 2
_NAME: Final = re.compile(r"\s*[a-z][a-z0-9_]{0,63}")
_WHOLE_TOKEN: Final = re.compile(
    r"[a-zA-Z][\w()-]{0,63}:\d{1,20}(?:k[Bb]|KB),?|[a-z][a-z_]{0,63}:\d{1,20}|(?:UID|oom_score_adj):-?\d{1,10}"
    r"|[a-z_]{1,32}=[^\s(]{1,64},|gfp_mask=0x[0-9a-f]{1,8}\([\w|]{0,1000}\),|-?\d{1,20}(?:k[Bb]|KB)?,?"
    r"|\d{1,9}\*\d{1,9}kB|\(\S{0,64}\),?|#\d{1,9}.{0,20}"
)
_MOST_PIECES: Final = 24
_MOST_GAP: Final = 8
_WORDS: Final = frozenset(
    (
        *("invoked", "oom-killer:", "Out", "out", "of", "memory:", "Memory", "memory", "cgroup", "Killed"),
        *("Kill", "process", "score", "or", "sacrifice", "child", "Not", "tainted", "Tainted:", "Kdump:"),
        *("loaded", "usage", "limit", "failcnt", "stats", "for", "Task", "in", "killed", "as", "a", "result"),
        *("Comm:", "PID:", "CPU:", "UID:", "Pid:", "comm:", "uid", "tgid", "total_vm", "rss", "rss_anon"),
        *("rss_file", "rss_shmem", "pgtables_bytes", "nr_ptes", "nr_pmds", "swapents", "oom_score_adj"),
        *(
            "are",
            "going",
            "to",
            "be",
            "due",
            "now",
            "name",
            "all_unreclaimable?",
            "yes",
            "no",
            "=",
            "pages",
            "swap",
        ),
    )
)


class Width:
    """How wide the terminal was, if it was a terminal: then nearly all lines that were broken end at one
    column."""

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()

    def gap(self, length: int) -> int | None:
        """How many spaces were lost at the end of a line of this length that goes on; None: not a terminal,
        as far as is known."""
        self._lengths[length] += 1
        width, times = max(self._lengths.items())
        if times < _LEAST_CUTS or times * 3 < self._lengths.total() * 2 or width - length > _MOST_GAP:
            return None
        return width - length


def joined(text: str, pieces: Sequence[str], columns: tuple[str, ...] = ()) -> str:
    """A message with the lines that followed it in the log and may continue it.

    A piece that is a line of its own follows after a line end, as one of a message that has several.
    `columns`: those of the table of tasks that is being printed.
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
                lines[-1] = f"{last} {stripped}"  # of memory.stat
            elif is_own or not _continues(last.lstrip(), of_kind, part):
                lines.append(part)
            elif is_cut:
                lines[-1] = last + part
            else:
                lines[-1] = _join(last, part, of_kind, columns)
    return "\n".join(lines)


def may_go_on(text: str, pieces: Sequence[str], line: str) -> bool:
    """Whether a message without a prefix, and what has been taken for more of it, goes on in this line."""
    stripped, first = line.strip(), text.lstrip()
    if not stripped or shapes.kind(stripped) is not None or len(pieces) >= _MOST_PIECES:
        return False
    of_kind = shapes.kind(first)
    return of_kind is not None and shapes.goes_on(joined(text, pieces), of_kind, line)


def _continues(last: str, of_kind: str | None, part: str) -> bool:
    return of_kind == "sums" or shapes.goes_on(last, of_kind, part)


def _is_in_name(text: str, of_kind: str | None) -> bool:
    """Whether a line ends within the name of a process, where a mail program breaks at a space."""
    if of_kind == "kill":
        _, found, rest = text.partition("process ")
        return bool(found) and "(" in rest and ")" not in rest
    _, found, rest = text.rpartition(",task=")
    return of_kind == "summary" and bool(found) and rest != "" and ",pid=" not in rest


def _join(left: str, part: str, of_kind: str | None, columns: tuple[str, ...]) -> str:
    right = part.lstrip()
    plain, spaced = left + right, f"{left.rstrip()} {right}"
    if left.endswith(" "):
        return plain
    if part != right or of_kind == "head" or _is_in_name(left, of_kind):
        return spaced
    if of_kind == "summary":
        return plain
    if of_kind == "kill" and sections.has_victim(plain) != sections.has_victim(spaced):
        return plain if sections.has_victim(plain) else spaced
    if of_kind == "task" and columns:
        return plain if _fits(plain, columns) and not _fits(spaced, columns) else spaced
    return spaced if _is_between_words(left, right) else plain


def _fits(row: str, columns: tuple[str, ...]) -> bool:
    """Whether a row has these columns, and no number where its name begins."""
    found = sections.task(row.lstrip(), columns)
    return found is not None and not found.comm[:1].isdigit()


def _is_between_words(left: str, right: str) -> bool:
    left_word, right_word = left.rsplit(maxsplit=1)[-1], right.split(maxsplit=1)[0]
    if left.count("(") > left.count(")") and "|" in left_word:
        return False  # among the names of a gfp mask
    if left_word[-1] == ",":
        return True
    if left_word[-1] in "-_" or right_word[0] in ",_:=" or left_word + right_word in _WORDS:
        return False
    return any(word in _WORDS or _WHOLE_TOKEN.fullmatch(word) for word in (left_word, right_word))
