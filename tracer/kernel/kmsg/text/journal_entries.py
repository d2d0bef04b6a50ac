"""Logs in which each field of a message has a line of its own, as `journalctl -o verbose` and `journalctl -o
export` print them.

A field with a line end in it is binary in the export: its name, a line end, its size in 8 bytes, and its
bytes (systemd.io/JOURNAL_EXPORT_FORMATS). So are the messages of memory.stat before v6.5.

The message of an entry becomes a line in the style of a log daemon, with the time of the entry. The other
lines of the entry become lines without a message, so that the numbers of the lines stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Final

_HEAD_TEXT: Final = (
    rb"[ \t]*(\S{1,16} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})? \S{1,9})"
    rb"(?: \[([a-z]=[^\]\n]{0,400})\])?\s*?"
)
_HEAD: Final = re.compile(_HEAD_TEXT)
_FIELD: Final = re.compile(rb"[ \t]*([A-Z_][A-Z0-9_]{0,63})=(.*)", re.DOTALL)
_FIRST_FIELDS: Final = (b"__CURSOR=", b"__REALTIME_TIMESTAMP=")
_ENTRY: Final = re.compile(
    rb"^(?:" + _HEAD_TEXT + rb"\n[ \t]+|__(?:CURSOR|REALTIME_TIMESTAMP)=.+\n)[A-Z_][A-Z0-9_]*=", re.MULTILINE
)
"""The first lines of an entry: its time above an indented field (verbose), or two fields (export)."""

_QUOTES: Final = re.compile(rb"^(?:> ?)+", re.MULTILINE)
_BINARY: Final = re.compile(rb"^([A-Z_][A-Z0-9_]{0,63})\n", re.MULTILINE)
_MOST_NAME: Final = 64
_SIZE_BYTES: Final = 8
_SIZE: Final = b"_SIZE=\n"
"""A line of its own for the size of a binary field, and for each line end in its bytes."""

_TIMES: Final = (b"_SOURCE_REALTIME_TIMESTAMP", b"__REALTIME_TIMESTAMP")
_TIME_IN_CURSOR: Final = re.compile(rb"(?:^|;)t=([0-9a-f]{1,16})(?:;|$)")
_MICROSECONDS: Final = re.compile(rb"\d{1,17}")
_KERNEL: Final = b"kernel:"
_NO_MESSAGE: Final = b"<30>"
"""A line of a daemon without a text: an empty line would be a part of a name that ends the line before."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_LINES: Final = 500
_MOST_BYTES: Final = 1 << 20
"""A longer line is given on in pieces."""


def as_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a log; if its beginning has entries, with a line for each message instead of its
    fields."""
    first = next(chunks, b"")
    is_quoted = first[:1] == b">" or b"\n>" in first
    if _ENTRY.search(_QUOTES.sub(b"", first) if is_quoted else first) is None:
        yield from chain([first], chunks)
        return
    rest, entry = b"", list[bytes]()
    for chunk in _as_text(chain([first], chunks)):
        *lines, rest = (rest + chunk).split(b"\n")
        lines = [_QUOTES.sub(b"", line) for line in lines] if is_quoted else lines
        found = list[bytes]()
        for line in lines:
            begins = _begins_entry(line)
            if entry and not begins and _is_of_entry(line) and len(entry) < _MOST_LINES:
                entry.append(line)
                continue
            found += _as_lines(entry)
            if not begins:
                found.append(_NO_MESSAGE if entry and not line.strip() else line)
            entry = [line] if begins else []
        if len(rest) > _MOST_BYTES:
            found, entry, rest = [*found, *_as_lines(entry), rest], [], b""
            yield b"\n".join(found)
        else:
            yield b"".join(line + b"\n" for line in found)
    rest = _QUOTES.sub(b"", rest) if is_quoted else rest
    if _is_of_entry(rest) and entry:
        entry, rest = [*entry, rest], b""
    yield b"\n".join([*_as_lines(entry), rest])


def _as_text(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a log with binary fields as fields of text, whose further lines are indented."""
    rest = b""
    for chunk in chunks:
        text, done, rest = rest + chunk, 0, b""
        begun = len(text) - text.rfind(b"\n") - 1
        kept = len(text) - (begun if begun <= _MOST_NAME else 0)
        parts = list[bytes]()
        for found in _BINARY.finditer(text):
            begin = found.end() + _SIZE_BYTES
            end = begin + int.from_bytes(text[found.end() : begin], "little")
            if found.start() < done or end - begin > _MOST_BYTES or text[end : end + 1] not in (b"", b"\n"):
                continue
            if end >= len(text) or begin > len(text):
                kept = found.start()
                break
            of_size = 1 + text.count(b"\n", found.end(), begin)
            value = text[begin:end].replace(b"\n", b"\n\t")
            parts += text[done : found.start()], _SIZE * of_size, b"%s=%s" % (found[1], value)
            done = end
        kept = max(kept, done)
        yield b"".join((*parts, text[done:kept]))
        rest = text[kept:]
    yield rest


def _begins_entry(line: bytes) -> bool:
    return line.startswith(_FIRST_FIELDS[0]) or _HEAD.fullmatch(line) is not None


def _is_of_entry(line: bytes) -> bool:
    """Return whether a line is a field, or a further line of one, which is indented."""
    return bool(line.strip()) and (line[:1] in b" \t" or _FIELD.match(line) is not None)


def _as_lines(entry: list[bytes]) -> list[bytes]:
    """Return the lines of an entry as one line, or several, of a log daemon, and lines without a
    message."""
    fields, texts, name = dict[bytes, bytes](), dict[int, bytes](), b""
    for number, line in enumerate(entry):
        field = _FIELD.fullmatch(line.rstrip(b"\r")) if number or line.startswith(_FIRST_FIELDS) else None
        if field is not None:
            name = field[1]
            fields[name] = field[2]
        if name == b"MESSAGE":
            texts[number] = line.strip() if field is None else field[2]
    if not texts:
        return [_NO_MESSAGE] * len(entry) if fields else entry
    program = _program(fields)
    prefix = b" ".join(filter(None, (_time(entry[0], fields), fields.get(b"_HOSTNAME"), program)))
    since_boot = fields.get(b"_SOURCE_MONOTONIC_TIMESTAMP", b"") if program == _KERNEL else b""
    if _MICROSECONDS.fullmatch(since_boot):
        prefix += b" [%5d.%06d]" % divmod(int(since_boot), 1_000_000)
    return [b"%s %s" % (prefix, texts[at]) if at in texts else _NO_MESSAGE for at in range(len(entry))]


def _time(head: bytes, fields: dict[bytes, bytes]) -> bytes:
    """Return the time of an entry in UTC, or as its head has it."""
    of_head = _HEAD.fullmatch(head)
    in_cursor = None if of_head is None else _TIME_IN_CURSOR.search(of_head[2] or b"")
    times = [int(fields[name]) for name in _TIMES if _MICROSECONDS.fullmatch(fields.get(name, b""))]
    times += [] if in_cursor is None else [int(in_cursor[1], 16)]
    try:
        when = _EPOCH + timedelta(microseconds=times[0])
    except (IndexError, OverflowError):
        return b"" if of_head is None else of_head[1]
    return when.isoformat(timespec="microseconds").encode()


def _program(fields: dict[bytes, bytes]) -> bytes:
    name = fields.get(b"SYSLOG_IDENTIFIER", fields.get(b"_COMM", b"kernel"))
    if fields.get(b"_TRANSPORT", name) == b"kernel":
        return _KERNEL
    return b"%s[%s]:" % (name, fields.get(b"_PID", b"1"))
