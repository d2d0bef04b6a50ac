r"""From a line of a log to what the kernel printed, when, and on which machine.

The same message stands in a log as `/dev/kmsg` has it (`6,1234,5678,-;text`), as dmesg prints it in any of
its time formats, as journalctl does (short, precise, ISO, monotonic, JSON), as syslog daemons write it, or
bare. Each is known by how it begins. What other programs wrote into the same log is told apart where the log
says who wrote a line: by the tag (`host sshd[7]: …`), or by the facility (`<30>`, `daemon:info:`).

What may stand before all that (quote marks, the names of nodes, what a console or a log shipper adds) is
passed over: up to the kernel's own time stamp where there is one, else as `kmsg.prefixes` learns it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from tracer.kernel.kmsg.report.log_report import Stamp
from tracer.kernel.kmsg.text import objects, prefixes, shapes

MOST_CHARACTERS: Final = 1 << 14
"""Of a line or a record; the rest of it is not looked at. The kernel cuts its own at about a thousand."""

_MOST_LINE_CHARACTERS: Final = 1 << 16
"""Of a line that may hold many records."""

_LEAST_PREFIX: Final = 16
_PREFIX_BEGIN: Final = 4
_MOST_RECORD: Final = 1100
"""A longer line is more than one message of the kernel's (LOG_LINE_MAX in kernel/printk/printk.c)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message. `prefix`: how many characters stood before its text; 0, and the line may continue the
    record before it.

    `host` and `caller` (`T123`, a task; `C1`, a CPU in an interrupt) are None where the log does not say.
    `is_raw`: from /dev/kmsg, where what follows in the next line of a broken one is escaped as well.
    """

    stamp: Stamp
    text: str
    host: str | None = None
    caller: str | None = None
    prefix: int = 0
    is_raw: bool = False

    def continued(self, text: str) -> Record:
        """With another line of the same message, which dmesg and journalctl indent as far as the first."""
        return self.saying(f"{self.text}\n{text.removeprefix(' ' * self.prefix)}")

    def is_indented(self, text: str) -> bool:
        """Whether a line without a prefix is one more of this message: dmesg and journalctl indent those."""
        return self.prefix > 0 and text.startswith(" " * self.prefix)

    def saying(self, text: str) -> Record:
        """The same with another text."""
        return replace(self, text=text)


_COLOUR: Final = re.compile(r"\x1b\[[0-9;]{0,20}[mK]")
_KMSG: Final = re.compile(r"(\d{1,4}),\d{1,20},(\d{1,20}),([^;]{0,200});")
_KMSG_CALLER: Final = re.compile(r"caller=([TC]\d{1,10})")
_ESCAPE: Final = re.compile(r"(?:\\x[0-9a-f]{2})+")
_PRIORITY: Final = re.compile(r"<(\d{1,4})>(?:1 )?")
_FACILITY: Final = re.compile(
    r"(kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local\d|clock|audit|alert) *: *"
    r"(?:emerg|alert|crit|err|warn|warning|notice|info|debug) *: *"
)
_SINCE_BOOT: Final = re.compile(r"\[ *(\d{1,10})\.(\d{1,9})(?: +<[ \d.+-]{0,20}>)?\] ?")
# `dmesg -d -t`, `dmesg -H`: the time since the line before; no time that stands by itself.
_SINCE_LAST: Final = re.compile(r"\[(?:<[ +-]{0,9}\d{1,10}\.\d{1,9}>| *\+\d{1,10}\.\d{1,9})\] ?")
_MINUTE: Final = re.compile(r"\[([A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d)\] ?")
_BRACKETED_DATE: Final = re.compile(r"\[([^\]\[]{1,32}\d\d:\d\d:\d\d[^\]\[]{0,24})\]:? ?")
_ISO_DATE: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:([.,])\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?):?(?: |$)"
)
_DATE: Final = re.compile(r"(\w[^\s:\[]{0,11} {1,2}\d{1,2} (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d{1,9})?) ")
_FULL_DATE: Final = re.compile(r"([^\W\d]\S{1,11} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? \S{1,9}) ")
_UNIX_TIME: Final = re.compile(r"(\d{9,11}\.\d{1,9}) ")
_TAG: Final = re.compile(r"(\S{1,255}) ([^\s:\[\]]{1,64})(?:\[\d{1,10}\])?: ?")
_RFC5424_KERNEL: Final = re.compile(
    r"(\S{1,255}) kernel \S{1,128} \S{1,32} (?:-(?= |$)|\[[A-Za-z][^\]]{0,500}\]) ?"
)
_RFC5424_TAG: Final = re.compile(
    r"(\S{1,255}) (\S{1,64}) \S{1,128} \S{1,32} (?:-(?= |$)|\[[A-Za-z][^\]]{0,500}\]) ?"
)
_KERNEL: Final = re.compile(r"(?:(\S{1,255}) )?kernel(?:\[\d{1,10}\])?: ?")
_MARKS: Final = re.compile("[↩↪↵⏎]")
_QUOTES: Final = re.compile(r"(?:[>|] ?)+")
_STAMP: Final = re.compile(r"(?:<\d{1,3}>)?\[ *\d{1,10}\.\d{6}\] ?")
_DMESG_OBJECT: Final = re.compile(r' *"msg": (".*")$')
_CALLER: Final = re.compile(r"\[ *([TC]\d{1,10})\] ?")


def split(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a file that is read in pieces, without their ends; a longer one is cut, not kept."""
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
    """Reads the lines of one log; what it has learned of their prefixes stays from line to line."""

    def __init__(self) -> None:
        self._before_stamps = prefixes.Learned()
        self._before_messages = prefixes.Learned()
        self._objects = objects.Reader()

    def read(self, line: str, number: int) -> list[Record]:
        """The messages of a line: one as a rule, none where it is not the kernel's, several where the lines
        of a log were joined into one."""
        line = _clean(line)
        if line[:1] == "{":
            entry = self._objects.read(line, number)
            return [] if entry is None else self._of_object(entry, number)
        record = read(line, number)
        if record is None:
            return []
        if _is_many(line, record):
            return list(_split(line, record, number))
        record = self._unhidden(line, record)
        if record is None or len(record.text) <= MOST_CHARACTERS:
            return [] if record is None else [record]
        return [record.saying(record.text[:MOST_CHARACTERS])]

    def _of_object(self, entry: objects.Entry, number: int) -> list[Record]:
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

    def _unhidden(self, line: str, record: Record) -> Record | None:
        """The message of a line that reads as `record`: behind a prefix that hides it, where there is one."""
        if shapes.kind(record.text) not in (None, "header"):  # which begins with a name, or with a prefix
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
    """Whether a line may hold many messages: its prefix, which no name of a process has room for, stands in
    it again. A path has room for one, so lines with a path must be longer than a message can be."""
    least = _MOST_RECORD if shapes.path_word(record.text) is not None else 0
    return (
        record.prefix >= _LEAST_PREFIX
        and len(record.text) > least
        and line.find(line[:_PREFIX_BEGIN], record.prefix) >= 0
    )


def _split(line: str, record: Record, number: int) -> Iterator[Record]:
    """The messages of a line that holds many, each with a prefix like the first's."""
    prefix = prefixes.pattern(line[: record.prefix])
    starts = [0, *(found.start() for found in prefix.finditer(line, record.prefix))]
    for start, end in zip(starts, [*starts[1:], len(line)], strict=True):
        part = read(_MARKS.sub("", line[start:end]), number)
        if part is not None:
            yield part.saying(part.text[:MOST_CHARACTERS])


def _clean(line: str) -> str:
    """Without colours, what ends it, the marks of a quotation, and a web page's spaces, which the kernel
    never prints."""
    if "\x1b" in line:
        line = _COLOUR.sub("", line)
    line = line.rstrip("\r\n").replace("\xa0", " ")
    quotes = _QUOTES.match(line) if line[:1] in (">", "|") else None
    return line if quotes is None else line[quotes.end() :]


def _behind(line: str, at: int, outer: Record, *, is_whole: bool) -> Record | None:
    """The message that begins at this place of a line; when and where, as far as it does not say, of `outer`,
    which is how the whole line reads. If not `is_whole`, a line without a prefix may continue another."""
    found = read(line[at:], outer.stamp.line)
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


def read(line: str, number: int) -> Record | None:
    """The message of a line in one of the styles above, or None where it is not the kernel's."""
    first = line[:1]
    if first.isdigit() and (raw := _KMSG.match(line)) is not None:
        return _raw(line, number, raw)
    if first == " ":
        message = _DMESG_OBJECT.match(line)
        return Record(Stamp(number), line) if message is None else _dmesg_object(message[1], number)
    return _text(line, number)


def _raw(line: str, number: int, prefix: re.Match[str]) -> Record | None:
    """Of /dev/kmsg: everything but printable ASCII is escaped, and so is the backslash."""
    if int(prefix[1]) >> 3:
        return None
    caller = _KMSG_CALLER.search(prefix[3])
    text = line[prefix.end() :]
    if "\\x" in text:
        text = unescaped(text)
    stamp = Stamp(number, int(prefix[2]) * 1000)
    by = None if caller is None else caller[1]
    return Record(stamp, text, caller=by, prefix=prefix.end(), is_raw=True)


def unescaped(text: str) -> str:
    """What a piece of a line of /dev/kmsg says."""
    return _ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", "surrogateescape")


def _dmesg_object(literal: str, number: int) -> Record | None:
    """The line of `dmesg --json` that has the message; the time stands in another."""
    try:
        return Record(Stamp(number), str(json.loads(literal))[:MOST_CHARACTERS])
    except ValueError:
        return None


def _text(line: str, number: int) -> Record | None:
    """Any style for people: (priority) (date) (host and tag) (seconds since boot) (caller) text."""
    at, wall, host, is_syslog = 0, None, None, False
    first = line[:1]
    if first == "<" and (priority := _PRIORITY.match(line)) is not None:
        if int(priority[1]) >> 3:
            return None
        at = priority.end()
    elif first.isalpha() and (facility := _FACILITY.match(line)) is not None:
        if facility[1] != "kern":
            return None
        at = facility.end()
    since_boot_ns, at = _since_boot(line, at)
    if since_boot_ns is None and (date := _date(line, at)) is not None:
        wall, at = date[1], date.end()
        # dmesg writes a comma into an ISO date, and no host after it.
        is_syslog = date.re is not _BRACKETED_DATE and "," not in wall
        since_boot_ns, at = _since_boot(line, at)
    if is_syslog or since_boot_ns is not None:
        kernel = _KERNEL.match(line, at) or (_RFC5424_KERNEL.match(line, at) if is_syslog else None)
        if kernel is not None:
            host, at = kernel[1], kernel.end()
            own_ns, at = _since_boot(line, at)
            since_boot_ns = own_ns if own_ns is not None else since_boot_ns
        elif is_syslog and (tag := _program(line, at)) is not None:
            own_ns, end = _since_boot(line, tag.end())
            if own_ns is None:
                return None
            host, since_boot_ns, at = tag[1], own_ns, end  # a console that somebody reads
    caller = _CALLER.match(line, at) if at else None
    at = at if caller is None else caller.end()
    stamp = Stamp(number, since_boot_ns, wall)
    return Record(stamp, line[at:], host, None if caller is None else caller[1], at)


def _program(line: str, at: int) -> re.Match[str] | None:
    """The host and the tag of another program; what the kernel says may look like one."""
    if shapes.kind(line[at : at + MOST_CHARACTERS]) is not None:
        return None
    return _TAG.match(line, at) or _RFC5424_TAG.match(line, at)


def _date(line: str, at: int) -> re.Match[str] | None:
    first = line[at : at + 1]
    if first == "[":
        return _BRACKETED_DATE.match(line, at) or _MINUTE.match(line, at)
    if first.isdigit():
        return _ISO_DATE.match(line, at) or _UNIX_TIME.match(line, at) or _DATE.match(line, at)
    return _DATE.match(line, at) or _FULL_DATE.match(line, at)


def _since_boot(line: str, at: int) -> tuple[int | None, int]:
    """(ns, where it ends); a time since the line before is passed over."""
    if line[at : at + 1] != "[":
        return None, at
    if (found := _SINCE_BOOT.match(line, at)) is not None:
        return int(found[1]) * 1_000_000_000 + int(found[2].ljust(9, "0")), found.end()
    since_last = _SINCE_LAST.match(line, at)
    return None, at if since_last is None else since_last.end()
