"""The styles in which log daemons and tools write a line of the kernel log.

A line can have the format of /dev/kmsg (`6,1234,5678,-;text`), any time format of dmesg, a format of
journalctl (short, precise, ISO, monotonic), the format of a syslog daemon, or no prefix. The beginning of the
line shows its style. A line of another program is recognised by its tag (`host sshd[7]: …`) or by its
facility (`<30>`, `daemon:info:`).
"""

from __future__ import annotations

import json
import re
from typing import Final

from tracer.kernel.kmsg.text import shapes
from tracer.kernel.kmsg.text.log_record import MOST_CHARACTERS, Record, Stamp

_KMSG: Final = re.compile(r"(\d{1,4}),\d{1,20},(\d{1,20}),([^;]{0,200});")
_KMSG_CALLER: Final = re.compile(r"caller=([TC]\d{1,10})")
_ESCAPE: Final = re.compile(r"(?:\\x[0-9a-f]{2})+")
_PRIORITY: Final = re.compile(r"<(\d{1,4})>(?:1 )?")
_FACILITY: Final = re.compile(
    r"(kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local\d|clock|audit|alert) *: *"
    r"(?:emerg|alert|crit|err|warn|warning|notice|info|debug) *: *"
)
_SINCE_BOOT: Final = re.compile(r"\[ *(\d{1,10})\.(\d{1,9})(?: +<[ \d.+-]{0,20}>)?\] ?")
# `dmesg -d -t` and `dmesg -H` write the time since the line before, not a time since boot.
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
_DMESG_OBJECT: Final = re.compile(r' *"msg": (".*")$')
_CALLER: Final = re.compile(r"\[ *([TC]\d{1,10})\] ?")


def read(line: str, number: int) -> Record | None:
    """Return the message in line `number` of a log, in any of the styles; None for a line of another
    program."""
    first = line[:1]
    if first.isdigit() and (raw := _KMSG.match(line)) is not None:
        return _raw(line, number, raw)
    if first == " ":
        message = _DMESG_OBJECT.match(line)
        return Record(Stamp(number), line) if message is None else _dmesg_object(message[1], number)
    return _text(line, number)


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
    return _DATE.match(line, at) or _FULL_DATE.match(line, at)


def _since_boot(line: str, at: int) -> tuple[int | None, int]:
    """Return (time since boot in ns, end of the time stamp); a time since the line before is skipped."""
    if line[at : at + 1] != "[":
        return None, at
    if (found := _SINCE_BOOT.match(line, at)) is not None:
        return int(found[1]) * 1_000_000_000 + int(found[2].ljust(9, "0")), found.end()
    since_last = _SINCE_LAST.match(line, at)
    return None, at if since_last is None else since_last.end()
