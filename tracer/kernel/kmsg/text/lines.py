"""From the lines of one log to the messages of the kernel in them.

Each line is read by its style (`styles`). Quote marks, names of nodes, and whatever a console or a log
shipper adds in front are skipped: up to the kernel's own time stamp if the line has one, or else by the
prefixes of earlier lines (`prefixes`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from tracer.kernel.kmsg.text import markup, objects, prefixes, shapes, styles
from tracer.kernel.kmsg.text.log_record import MOST_CHARACTERS, Record, Stamp

_MOST_LINE_CHARACTERS: Final = 1 << 16
"""The length at which lines are cut; one line may hold many messages."""

_LEAST_PREFIX: Final = 16
_PREFIX_BEGIN: Final = 4
_MOST_RECORD: Final = 1100
"""A longer line holds more than one message (LOG_LINE_MAX, kernel/printk/printk.c)."""

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]{0,20}[mK]")
_MARKS: Final = re.compile("[↩↪↵⏎]")
_QUOTES: Final = re.compile(r"(?:[>|] ?)+")
_STAMP: Final = re.compile(r"(?:<\d{1,3}>)?\[ *\d{1,10}\.\d{6}\] ?")


def split(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a file that is read in chunks, without their line ends; long lines are cut."""
    rest = b""
    for chunk in chunks:
        lines = chunk.split(b"\n")
        lines[0] = rest + lines[0] if len(rest) < _MOST_LINE_CHARACTERS else rest
        rest = lines.pop()
        for line in lines:
            yield line[:_MOST_LINE_CHARACTERS].decode("utf-8", "surrogateescape")
    if rest:
        yield rest[:_MOST_LINE_CHARACTERS].decode("utf-8", "surrogateescape")


class Reader:
    """A reader of the lines of one log, which learns the prefixes of that log."""

    def __init__(self) -> None:
        self._before_stamps = prefixes.Learned()
        self._before_messages = prefixes.Learned()
        self._objects = objects.Reader()
        self._markup = markup.Reader()

    @property
    def is_broken_softly(self) -> bool:
        """Return whether a line may go on in the next one, so that each line has to be read."""
        return self._markup.is_broken_softly

    def read(self, line: str, number: int) -> list[Record]:
        """Return the messages in a line: usually one, none in a line of another program, several if the lines
        of a log were joined into one."""
        line = _clean(line)
        if self._markup.is_plain(line):
            return self._read(line, number)
        return [record for part in self._markup.lines(line) for record in self._read(_clean(part), number)]

    def is_of_kernel(self, line: str, number: int) -> bool:
        """Return whether a line shows that the kernel wrote it: by its time, a `kernel:`, or its fields."""
        return any(record.prefix for record in self.read(line, number)) or styles.is_dmesg_object(line)

    def _read(self, line: str, number: int) -> list[Record]:
        if line[:1] == "{":
            entry = self._objects.read(line, number)
            return [] if entry is None else self._from_object(entry, number)
        record = styles.read(line, number)
        if record is None:
            return []
        if _is_many(line, record):
            return list(_split(line, record, number))
        record = self._behind_prefix(line, record)
        if record is None or len(record.text) <= MOST_CHARACTERS:
            return [] if record is None else [record]
        return [record.with_text(record.text[:MOST_CHARACTERS])]

    def _from_object(self, entry: objects.Entry, number: int) -> list[Record]:
        if entry.is_message:
            return [Record(entry.stamp, entry.text[:MOST_CHARACTERS], entry.host, prefix=1)]
        inner = self.read(entry.text, number) if entry.text[:1] != "{" else []
        return [
            replace(
                record,
                stamp=replace(record.stamp, wall=record.stamp.wall or entry.stamp.wall),
                host=record.host or entry.host,
                prefix=max(record.prefix, 1),
            )
            for record in inner
        ]

    def _behind_prefix(self, line: str, record: Record) -> Record | None:
        """Return the message after a prefix that hides it, or `record`, the reading of the whole line."""
        if shapes.kind(record.text) not in (None, "header"):  # a header begins with a name, or with a prefix
            return record
        stamp = _STAMP.search(line, record.prefix, prefixes.MOST_CHARACTERS)
        if stamp is not None:
            self._before_stamps.learn(line[: stamp.start()])
            return _behind(line, stamp.start(), record, is_whole=True)
        if end := self._before_stamps.end(line):
            return _behind(line, end, record, is_whole=False)
        prefix = prefixes.before_message(line)
        if prefix is None:
            return None
        self._before_messages.learn(prefix)
        end = self._before_messages.end(line)
        return _behind(line, end, record, is_whole=not line[:end].isspace()) if end else record


def _is_many(line: str, record: Record) -> bool:
    """Return whether a line may hold many messages: the beginning of its prefix occurs again in it.

    A prefix is too long for a name of a process, but not for a path. So a line with a path must be longer
    than a message can be.
    """
    least = _MOST_RECORD if shapes.path_word(record.text) is not None else 0
    return (
        record.prefix >= _LEAST_PREFIX
        and len(record.text) > least
        and line.find(line[:_PREFIX_BEGIN], record.prefix) >= 0
    )


def _split(line: str, record: Record, number: int) -> Iterator[Record]:
    """Yield the messages of a line that holds many; each has a prefix like the first message."""
    prefix = prefixes.pattern(line[: record.prefix])
    starts = [0, *(found.start() for found in prefix.finditer(line, record.prefix))]
    for start, end in zip(starts, [*starts[1:], len(line)], strict=True):
        part = styles.read(_MARKS.sub("", line[start:end]), number)
        if part is not None:
            yield part.with_text(part.text[:MOST_CHARACTERS])


def _clean(line: str) -> str:
    """Return a line without colours, line end, marks of a quotation, and the non-breaking spaces of a web
    page; the kernel prints no such characters."""
    if "\x1b" in line:
        line = _COLOUR.sub("", line)
    line = line.rstrip("\r\n")
    if "\xa0" in line:
        line = line.replace("\xa0", " ").rstrip()
    quotes = _QUOTES.match(line) if line[:1] in (">", "|") else None
    return line if quotes is None else line[quotes.end() :]


def _behind(line: str, at: int, outer: Record, *, is_whole: bool) -> Record | None:
    """Return the message that begins at `at` in a line.

    A time or host that it lacks is taken from `outer`, the reading of the whole line. If not `is_whole`, a
    line without a prefix may continue the line before.
    """
    found = styles.read(line[at:], outer.stamp.line)
    if found is None:
        return None
    own, around = found.stamp, outer.stamp
    since_boot_ns = around.since_boot_ns if own.since_boot_ns is None else own.since_boot_ns
    return replace(
        found,
        stamp=Stamp(own.line, since_boot_ns, own.wall or around.wall),
        host=found.host or outer.host,
        prefix=max(found.prefix, 1) if is_whole else found.prefix,
    )
