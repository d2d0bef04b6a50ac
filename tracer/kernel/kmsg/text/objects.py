"""Log lines that are JSON objects: journalctl -o json, Docker's json-file, exports of Loki and log shippers.

The journal always has the text in the same member. In other objects, the member is learned: if a member has
once held the words of an OOM report, it holds the text of every line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tracer.kernel.kmsg.text import shapes
from tracer.kernel.kmsg.text.log_record import Stamp

_TEXT_MEMBERS: Final = ("log", "line", "message", "msg", "text", "body")
_TIME_MEMBERS: Final = ("time", "timestamp", "ts", "@timestamp")
_HOST_MEMBERS: Final = ("host", "hostname", "node")
_MOST_MEMBERS: Final = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """The text of an object, with its time and host. `is_message`: the text is the kernel's own message,
    without a prefix."""

    text: str
    stamp: Stamp
    host: str | None
    is_message: bool


class Reader:
    """A reader of the objects of one log, which learns the member that holds the text."""

    def __init__(self) -> None:
        self._member: str | None = None

    def read(self, line: str, number: int) -> Entry | None:
        """Return the entry in a line; None if the line is not such an object, or is another program's."""
        try:
            entry: Any = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(entry, dict):
            return None
        if "MESSAGE" in entry:
            return _from_journal(entry, number)
        members = dict(_members(entry))
        text = self._text(members)
        if text is None:
            return None
        wall = next((members[name] for name in _TIME_MEMBERS if name in members), None)
        host = next((members[name] for name in _HOST_MEMBERS if name in members), None)
        return Entry(text.rstrip("\r\n"), Stamp(number, None, wall), host, is_message=False)

    def _text(self, members: Mapping[str, str]) -> str | None:
        if self._member in members:
            return members[str(self._member)]
        for name, value in members.items():
            if shapes.anchor(value) >= 0 or " invoked oom-killer: " in value:
                self._member = name
                return value
        return next((members[name] for name in _TEXT_MEMBERS if name in members), None)


def _members(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the strings of an object, and of the objects directly in it."""
    for name, value in list(entry.items())[:_MOST_MEMBERS]:
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, dict):
            inner = list(value.items())[:_MOST_MEMBERS]
            yield from ((key, text) for key, text in inner if isinstance(text, str))


def _from_journal(entry: Mapping[str, Any], number: int) -> Entry | None:
    """Read an object of `journalctl -o json`, in which a message that is not UTF-8 is a list of bytes."""
    if entry.get("_TRANSPORT", "kernel") != "kernel":
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
    return Entry(message, stamp, host if isinstance(host, str) else None, is_message=True)


def _digits(value: object) -> int | None:
    is_number = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    return int(str(value)) if is_number else None
