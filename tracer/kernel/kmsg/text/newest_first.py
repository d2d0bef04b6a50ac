"""Logs that list their newest line first, as `journalctl -r` and the views of log stores do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tracer.kernel.kmsg.text import lines
from tracer.kernel.kmsg.text.styles import Stamp

_ENDS: Final = ("Killed process ", "oom-kill:constraint=", "oom_reaper: ")
_BEGINS: Final = (" invoked oom-killer: ", ": usage ", "Call Trace:", "Tasks state", "[ pid ", "[  pid ")
"""Words of the lines that end a report, and of lines before them."""

_NUMBER: Final = re.compile(r"\d+")

_Time = tuple[str, tuple[int, ...]]
"""The words of a time, and its numbers: two times with the same words are in the order of their numbers."""


def in_order(log: Sequence[str]) -> list[str] | None:
    """Return the lines of a whole log in the order of time if its newest line is the first one; otherwise
    None.

    The lines of a report are then in reverse, and no time in the log is later than one before.
    """
    end = next((at for at, line in enumerate(log) if any(word in line for word in _ENDS)), len(log))
    is_reversed = any(word in line for line in log[end:] for word in _BEGINS)
    if not is_reversed or any(word in line for line in log[:end] for word in _BEGINS):
        return None
    reader, messages, times = lines.Reader(), list[list[str]](), list[_Time]()
    for number, line in enumerate(log, 1):
        record = next(iter(reader.read(line, number)), None)
        time = None if record is None else _time(record.stamp)
        if time is not None:
            times.append(time)
        if time is None and messages and line[:1] == " ":
            messages[-1].append(line)  # a further line of the message before it
        else:
            messages.append([line])
    numbers = [time[1] for time in times]
    is_of_one_form = len({(words, len(of_time)) for words, of_time in times}) == 1
    if not is_of_one_form or numbers != sorted(numbers, reverse=True) or numbers[0] == numbers[-1]:
        return None
    return [line for message in reversed(messages) for line in message]


def _time(stamp: Stamp) -> _Time | None:
    if stamp.since_boot_ns is not None:
        return "", (stamp.since_boot_ns,)
    if stamp.wall is None:
        return None
    return _NUMBER.sub("0", stamp.wall), tuple(map(int, _NUMBER.findall(stamp.wall)))
