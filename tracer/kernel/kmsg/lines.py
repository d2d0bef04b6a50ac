r"""From a line of a log to what the kernel printed, when, and on which machine.

The same message stands in a log as `/dev/kmsg` has it (`6,1234,5678,-;text`), as dmesg prints it in any of
its time formats, as journalctl does (short, precise, ISO, monotonic, JSON), as syslog daemons write it, or
bare. Each is known by how it begins. What other programs wrote into the same log is told apart where the log
says who wrote a line: by the tag (`host sshd[7]: …`), or by the facility (`<30>`, `daemon:info:`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tracer.kernel.kmsg.facts import Stamp

MOST_CHARACTERS: Final = 1 << 14
"""Of a line or a record; the rest of it is not looked at. The kernel cuts its own at about a thousand."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message. `prefix`: how many characters stood before its text; 0, and the line may continue the
    record before it.

    `host` and `caller` (`T123`, a task; `C1`, a CPU in an interrupt) are None where the log does not say.
    """

    stamp: Stamp
    text: str
    host: str | None = None
    caller: str | None = None
    prefix: int = 0

    def continued(self, text: str) -> Record:
        """With another line of the same message, which dmesg and journalctl indent as far as the first."""
        return self.saying(f"{self.text}\n{text.removeprefix(' ' * self.prefix)}")

    def saying(self, text: str) -> Record:
        """The same with another text."""
        return Record(self.stamp, text, self.host, self.caller, self.prefix)


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
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:([.,])\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?):? "
)
_DATE: Final = re.compile(r"(\w[^\s:\[]{0,11} {1,2}\d{1,2} (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d{1,9})?) ")
_FULL_DATE: Final = re.compile(r"([^\W\d]\S{1,11} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? \S{1,9}) ")
_UNIX_TIME: Final = re.compile(r"(\d{9,11}\.\d{1,9}) ")
_TAG: Final = re.compile(r"(\S{1,255}) ([^\s:\[\]]{1,64})(?:\[\d{1,10}\])?: ?")
_RFC5424_TAG: Final = re.compile(r"(\S{1,255}) (\S{1,64}) \S{1,128} \S{1,32} (?:-|\[[^\]]{0,500}\]) ?")
_DMESG_OBJECT: Final = re.compile(r' *"msg": (".*")$')
_CALLER: Final = re.compile(r"\[ *([TC]\d{1,10})\] ?")


def split(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a file that is read in pieces, without their ends; a longer one is cut, not kept."""
    rest = b""
    for chunk in chunks:
        lines = chunk.split(b"\n")
        lines[0] = rest + lines[0] if len(rest) < MOST_CHARACTERS else rest
        rest = lines.pop()
        for line in lines:
            yield line[:MOST_CHARACTERS].decode("utf-8", "surrogateescape")
    if rest:
        yield rest[:MOST_CHARACTERS].decode("utf-8", "surrogateescape")


def read(line: str, number: int) -> Record | None:
    """The message of a line, or None where it is not the kernel's."""
    if "\x1b" in line:
        line = _COLOUR.sub("", line)
    line = line.rstrip("\r\n")
    first = line[:1]
    if first.isdigit() and (raw := _KMSG.match(line)) is not None:
        return _raw(line, number, raw)
    if first == "{":
        return _journal_object(line, number)
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
        text = _ESCAPE.sub(_unescape, text)
    stamp = Stamp(number, int(prefix[2]) * 1000)
    return Record(stamp, text, caller=None if caller is None else caller[1], prefix=prefix.end())


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", "surrogateescape")


def _journal_object(line: str, number: int) -> Record | None:
    """A line of `journalctl -o json`; a message that is no UTF-8 is a list of bytes there."""
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or entry.get("_TRANSPORT", "kernel") != "kernel":
        return None
    message, host = entry.get("MESSAGE"), entry.get("_HOSTNAME")
    if isinstance(message, list):
        numbers = [byte for byte in message if isinstance(byte, int) and 0 <= byte < 256]
        message = bytes(numbers).decode("utf-8", "surrogateescape")
    if not isinstance(message, str):
        return None
    since_boot_us = _digits(entry.get("_SOURCE_MONOTONIC_TIMESTAMP"))
    realtime_us = _digits(entry.get("__REALTIME_TIMESTAMP"))
    stamp = Stamp(
        number,
        None if since_boot_us is None else since_boot_us * 1000,
        None if realtime_us is None else f"{realtime_us // 1_000_000}.{realtime_us % 1_000_000:06d}",
    )
    return Record(stamp, message[:MOST_CHARACTERS], host if isinstance(host, str) else None, prefix=1)


def _dmesg_object(literal: str, number: int) -> Record | None:
    """The line of `dmesg --json` that has the message; the time stands in another."""
    try:
        return Record(Stamp(number), str(json.loads(literal))[:MOST_CHARACTERS])
    except ValueError:
        return None


def _digits(value: object) -> int | None:
    is_number = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    return int(str(value)) if is_number else None


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
        tag = _TAG.match(line, at) or (_RFC5424_TAG.match(line, at) if is_syslog else None)
        if tag is not None and tag[2] == "kernel":
            host, at = tag[1], tag.end()
            own_ns, at = _since_boot(line, at)
            since_boot_ns = own_ns if own_ns is not None else since_boot_ns
        elif tag is not None and is_syslog:
            return None
    caller = _CALLER.match(line, at) if at else None
    at = at if caller is None else caller.end()
    stamp = Stamp(number, since_boot_ns, wall)
    return Record(stamp, line[at:], host, None if caller is None else caller[1], at)


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
