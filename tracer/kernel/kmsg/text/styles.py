"""A line of the kernel log: its message, and the styles in which daemons and tools write it.

A line can have the format of /dev/kmsg (`6,1234,5678,-;text`), any time format of dmesg, a format of
journalctl (short, precise, ISO, monotonic), the format of a syslog daemon, or no prefix. The beginning of the
line shows its style. A line of another program is recognised by its tag (`host sshd[7]: …`) or by its
facility (`<30>`, `daemon:info:`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple

from tracer.kernel.kmsg.text import shapes

MOST_CHARACTERS: Final = 1 << 14
"""The longest line or message that is read; the rest is ignored. The kernel cuts a message at about 1000
characters (LOG_LINE_MAX, kernel/printk/printk.c)."""


class Stamp(NamedTuple):
    """The time of a line, and its place in the log.

    `since_boot_ns` is the time by printk's clock (close to CLOCK_MONOTONIC, but another clock). `wall` is the
    date and time that a log daemon or `dmesg -T` wrote before the line, as text. `line` counts from 1.
    """

    line: int
    since_boot_ns: int | None = None
    wall: str | None = None


RowKind = Literal["stat", "trace", "task"]
"""A row of memory.stat, a line of a call trace, a row of the table of tasks."""


class Record(NamedTuple):
    """One message of the kernel.

    `prefix` is the number of characters before the text; a record with prefix 0 may continue the record
    before it. `caller` is `T123` for a task and `C1` for a CPU in an interrupt (CONFIG_PRINTK_CALLER). `host`
    and `caller` are None if the log does not name them. `is_raw` marks a record of /dev/kmsg: its
    continuation lines are also escaped. `row`: the whole text is a row of a report (`usual`), so it has no
    words of another line of a report.
    """

    stamp: Stamp
    text: str
    host: str | None = None
    caller: str | None = None
    prefix: int = 0
    is_raw: bool = False
    row: RowKind | None = None

    def continued(self, text: str) -> Record:
        """Return the record with one more line, without the indent that dmesg and journalctl give it."""
        return self.gone_on(f"{self.text}\n{text.removeprefix(' ' * self.prefix)}")

    def gone_on(self, text: str) -> Record:
        """Return the record with the text of further lines, which are no part of a row."""
        return self._replace(text=text, row=None)

    def is_indented(self, text: str) -> bool:
        """Return whether a line without a prefix has the indent that dmesg and journalctl give to further
        lines of this message."""
        return self.prefix > 0 and text.startswith(" " * self.prefix)

    def with_text(self, text: str) -> Record:
        """Return a copy with another text."""
        return self._replace(text=text)


_KMSG: Final = re.compile(r"(?:\d{1,3}\.\d[\w.+~-]{0,64},)?(\d{1,4}),\d{1,20},(\d{1,20}),([^;]{0,200});")
"""netconsole may put the release of the kernel before it (Documentation/networking/netconsole.rst)."""

_KMSG_CALLER: Final = re.compile(r"caller=([TC]\d{1,10})")
_ESCAPE: Final = re.compile(r"(?:\\x[0-9a-f]{2})+")
_PRIORITY: Final = re.compile(r"<(\d{1,4})>(?:1 )?")
_FACILITY: Final = re.compile(
    r"(kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local\d|clock|audit|alert) *: *"
    r"(?:emerg|alert|crit|err|warn|warning|notice|info|debug) *: *"
)
_SINCE_BOOT: Final = re.compile(r"\[ *(\d{1,10})\.(\d{1,9})(?: +(?:<[ \d.+-]{0,20}>)?)?\] ?")
# `dmesg -d -t` and `dmesg -H` write the time since the line before, not a time since boot.
_SINCE_LAST: Final = re.compile(r"\[(?:<[ +-]{0,9}\d{1,10}\.\d{1,9}>| *\+\d{1,10}\.\d{1,9})\] ?")
_MINUTE: Final = re.compile(r"\[([A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d)\] ?")
_BRACKETED_DATE: Final = re.compile(r"\[([^\]\[]{1,32}\d\d:\d\d:\d\d[^\]\[]{0,24})\]:? ?")
_ISO_DATE: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:([.,])\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?):?(?: |$)"
)
_DATE: Final = re.compile(r"(\w[^\s:\[]{0,11} {1,2}\d{1,2} (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d{1,9})?) ")
# logread of OpenWrt writes the facility and the level in the place of a host.
_LOGREAD_DATE: Final = re.compile(
    r"([A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}) (?=kern\.\w{1,7} kernel: )"
)
_FULL_DATE: Final = re.compile(r"([^\W\d]\S{1,11} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? \S{1,9}) ")
_DATE_IN_PREFIX: Final = re.compile(
    r"(?<!\d)\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
    r"|\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
)
_UNIX_TIME: Final = re.compile(r"(\d{9,11}\.\d{1,9}) ")
_TAG: Final = re.compile(r"(\S{1,255}) ([^\s:\[\]]{1,64})(?:\[\d{1,10}\])?: ?")
_RFC5424_KERNEL: Final = re.compile(
    r"(\S{1,255}) kernel \S{1,128} \S{1,32} (?:-(?= |$)|\[[A-Za-z][^\]]{0,500}\]) ?"
)
_RFC5424_TAG: Final = re.compile(
    r"(\S{1,255}) (\S{1,64}) \S{1,128} \S{1,32} (?:-(?= |$)|\[[A-Za-z][^\]]{0,500}\]) ?"
)
_KERNEL: Final = re.compile(r"(?:kern\.\w{1,7} |(\S{1,255}) )?kernel(?:\[\d{1,10}\])?: ?")
_DMESG_OBJECT: Final = re.compile(r' *"msg": (".*")$')
_CALLER: Final = re.compile(r"\[ *([TC]\d{1,10})\] ?")
_USUAL: Final = (
    r"(?>[0-7],\d{1,20},(?P<us>\d{1,20}),-(?:,caller=(?P<by>[TC]\d{1,10}))?;"
    r"|(?:kern *: *(?:emerg|alert|crit|err|warn|notice|info|debug) *: *)?"
    r"(?:(?P<wall>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?[+-]\d\d:?\d\d)"
    r" (?P<host>[a-zA-Z0-9.-]{1,255}) kernel: "
    r"|(?P<date>\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\]"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d) )?"
    r"(?:\[ *(?P<s>\d{1,10})\.(?P<fraction>\d{6})\] ?)?(?:\[ *(?P<caller>[TC]\d{1,10})\] ?)?)"
)
STAT_NAME: Final = r"(?!failcnt |limit |order |score |process )[a-z][a-z0-9_]{0,63}"
"""The pattern of the name in a row of memory.stat, which is no word before a number in other lines."""

_ROWS: Final[Mapping[RowKind, str]] = {
    "stat": rf"{STAT_NAME} \d{{1,20}}",
    "trace": (
        r" {0,8}(?:\? )?[a-zA-Z_][\w.]{0,100}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[\w{1,64}\])?| </?TASK>"
        r"|(?:RSP|RAX|RDX|RBP|R10|R13): [0-9a-fRSPEFLAGXDIBCO_: ]{1,80}|RIP: [0-9a-f]{4}:[\w.+/]{1,160}"
        r"|Code: (?:[0-9a-f <>]{1,200}|Unable to access opcode bytes at 0x[0-9a-f]{1,16}\.)"
    ),
    "task": r"\[ *\d{1,10}\](?: +-?\d{1,20}){6,14} (?!.*(?:ill|oom))[a-zA-Z(][\w./:() -]{0,14}",
}
"""A row of a report has no words of another line of a report, and no name that may contain such words."""

_OTHER: Final = r"(?!(?:\S{1,255} )?kernel(?:\[\d{1,10}\])?:|\[[ <+-]{0,9}\d{1,10}\.)[ -\[\]-~]*"
_LINE: Final = re.compile(
    f"{_USUAL}(?:{'|'.join(f'(?P<{row}>{shape})' for row, shape in _ROWS.items())}|({_OTHER}))", re.ASCII
)
"""A line in the styles in which most logs have it. The last group has the name of a row, or no name."""


def read(line: str, number: int) -> Record | None:
    """Return the message in line `number` of a log, in any of the styles; None for a line of another
    program."""
    first = line[:1]
    if first.isdigit() and (raw := _KMSG.match(line)) is not None:
        return _raw(line, number, raw)
    if first == " ":
        message = _DMESG_OBJECT.match(line)
        return _indented(line, number) if message is None else _dmesg_object(message[1], number)
    return _text(line, number)


def usual(line: str, number: int) -> Record | None:
    """Return the message in a line that is in one of the usual styles, with its `row`; None for any other
    line.

    Most lines of a report are rows. This takes a fifth of the time of `read`, which returns the same without
    the `row`.
    """
    found = _LINE.fullmatch(line)
    return None if found is None else _usual(found, number, found.lastgroup)  # type: ignore[arg-type]


def _usual(found: re.Match[str], number: int, row: RowKind | None) -> Record | None:
    us, by, wall, host, date, seconds, fraction, caller = found.groups()[:8]
    at = found.lastindex or 0
    if us is not None:
        return Record(Stamp(number, int(us) * 1000), found[at], None, by, found.start(at), True, row)
    if date is not None:
        wall = date.strip("[]")
    if seconds is not None:
        since_boot_ns = int(seconds + fraction) * 1000
    elif wall is not None:
        since_boot_ns = None
    else:
        return None  # without a prefix, it may continue another line
    stamp = Stamp(number, since_boot_ns, wall)
    return Record(stamp, found[at], host, caller, found.start(at), False, row)


_RUN: Final[Mapping[RowKind | None, Callable[[str], re.Match[str] | None]]] = {
    row: re.compile(f"{_USUAL}({shape})", re.ASCII).fullmatch for row, shape in _ROWS.items()
}


class Run:
    """Rows of one kind, machine and task, in lines one after the other.

    A report has a hundred rows, so they are kept as columns: `texts`, and `times_ns` since boot (None: not
    known). A `Record` is made only if it is needed.
    """

    __slots__ = ("_further", "first", "texts", "times_ns")

    def __init__(self, first: Record) -> None:
        self.first = first
        self.texts = [first.text]
        self.times_ns = [first.stamp.since_boot_ns]
        self._further: list[re.Match[str] | Record] = []

    def add(self, row: Record) -> bool:
        """Add the row after the last one; return whether it is of the same kind, machine and task."""
        first = self.first
        is_beside = first.row == row.row and first.host == row.host and first.caller == row.caller
        if is_beside:
            self.texts.append(row.text)
            self.times_ns.append(row.stamp.since_boot_ns)
            self._further.append(row)
        return is_beside

    def extend(self, lines: Iterable[str]) -> int:
        """Add the rows at the beginning of these lines, which follow the last row; return their number."""
        host, task = self.first.host, self.first.caller
        further, before = self._further, len(self._further)
        for found in map(_RUN[self.first.row], lines):
            if found is None:
                break
            us, by, wall, of_host, date, seconds, fraction, caller, text = found.groups()
            if us is not None:
                time_ns, caller = int(us) * 1000, by
            elif seconds is not None:
                time_ns = int(seconds + fraction) * 1000
            elif wall is not None or date is not None:
                time_ns = None
            else:
                break
            if of_host != host or caller != task:
                break
            self.texts.append(text)
            self.times_ns.append(time_ns)
            further.append(found)
        return len(further) - before

    def row(self, at: int) -> Record:
        """Return the row at a position."""
        made: re.Match[str] | Record | None = self._further[at - 1] if at else self.first
        if isinstance(made, re.Match):
            made = _usual(made, self.first.stamp.line + at, self.first.row)
        assert made is not None
        return made

    def pop(self) -> Record:
        """Remove the last row, and return it."""
        last = self.row(len(self.texts) - 1)
        del self.texts[-1], self.times_ns[-1], self._further[-1:]
        return last


def is_dmesg_object(line: str) -> bool:
    """Return whether a line is a message in the output of `dmesg --json`."""
    return _DMESG_OBJECT.match(line) is not None


def unescaped(text: str) -> str:
    """Return a line of /dev/kmsg, or a piece of one, without its escapes."""
    return _ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", "surrogateescape")


def _raw(line: str, number: int, prefix: re.Match[str]) -> Record | None:
    """Read a line of /dev/kmsg, in which the backslash and all but printable ASCII is escaped."""
    if int(prefix[1]) >> 3:
        return None
    caller = _KMSG_CALLER.search(prefix[3])
    text = line[prefix.end() :]
    if "\\x" in text:
        text = unescaped(text)
    stamp = Stamp(number, int(prefix[2]) * 1000)
    by = None if caller is None else caller[1]
    return Record(stamp, text, caller=by, prefix=prefix.end(), is_raw=True)


def _dmesg_object(literal: str, number: int) -> Record | None:
    """Read the message line of `dmesg --json`; the time is in another line."""
    try:
        return Record(Stamp(number), str(json.loads(literal))[:MOST_CHARACTERS])
    except ValueError:
        return None


def _indented(line: str, number: int) -> Record | None:
    """Read a line that begins with spaces: the indentation of a paste before a date, or else the indentation
    of a further line of a message."""
    pasted = line.lstrip(" ")
    if _date(pasted, 0) is None:
        return Record(Stamp(number), line)
    found = _text(pasted, number)
    return None if found is None else found._replace(prefix=found.prefix + len(line) - len(pasted))


def _text(line: str, number: int) -> Record | None:
    """Read any style for human readers: (priority) (date) (host and tag) (seconds since boot) (caller)
    text."""
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
    if is_syslog or since_boot_ns is not None or (at == 0 and line.startswith("kernel: ")):
        kernel = _KERNEL.match(line, at) or (_RFC5424_KERNEL.match(line, at) if is_syslog else None)
        if kernel is not None:
            host, at = kernel[1], kernel.end()
            own_ns, at = _since_boot(line, at)
            since_boot_ns = own_ns if own_ns is not None else since_boot_ns
        elif is_syslog and (tag := _program(line, at)) is not None:
            own_ns, end = _since_boot(line, tag.end())
            if own_ns is None:
                return None
            host, since_boot_ns, at = tag[1], own_ns, end  # a program that reads a console
    caller = _CALLER.match(line, at) if at else None
    at = at if caller is None else caller.end()
    stamp = Stamp(number, since_boot_ns, wall)
    return Record(stamp, line[at:], host, None if caller is None else caller[1], at)


def _program(line: str, at: int) -> re.Match[str] | None:
    """Match the host and the tag of another program; a message of the kernel may look like one."""
    if shapes.kind(line[at : at + MOST_CHARACTERS]) is not None:
        return None
    return _TAG.match(line, at) or _RFC5424_TAG.match(line, at)


def _date(line: str, at: int) -> re.Match[str] | None:
    first = line[at : at + 1]
    if first == "[":
        return _BRACKETED_DATE.match(line, at) or _MINUTE.match(line, at)
    if first.isdigit():
        return _ISO_DATE.match(line, at) or _UNIX_TIME.match(line, at) or _DATE.match(line, at)
    return _DATE.match(line, at) or _FULL_DATE.match(line, at) or _LOGREAD_DATE.match(line, at)


def date_in(prefix: str) -> str | None:
    """Return the first date in a prefix that is in no known style; None if there is none."""
    found = _DATE_IN_PREFIX.search(prefix)
    return None if found is None else found[0]


def _since_boot(line: str, at: int) -> tuple[int | None, int]:
    """Return (time since boot in ns, end of the time stamp); a time since the line before is skipped."""
    if line[at : at + 1] != "[":
        return None, at
    if (found := _SINCE_BOOT.match(line, at)) is not None:
        return int(found[1]) * 1_000_000_000 + int(found[2].ljust(9, "0")), found.end()
    since_last = _SINCE_LAST.match(line, at)
    return None, at if since_last is None else since_last.end()
