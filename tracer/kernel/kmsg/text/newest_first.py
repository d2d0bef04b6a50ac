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
_WEEKDAY: Final = re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ")
_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"
_MONTH: Final = re.compile(r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b")

_Time = tuple[str, tuple[int, ...]]
"""The words of a time, and its numbers: two times with the same words are in the order of their numbers."""


_MOST_UNTIMED: Final = 32


def descends(log: Sequence[str]) -> bool:
    """Return whether the first time in these lines is later than the last one, so that all of the log may
    have its newest line first."""
    first, last = (_first_time(lines_) for lines_ in (log[:_MOST_UNTIMED], log[: -_MOST_UNTIMED - 1 : -1]))
    return first is not None and last is not None and first[0] == last[0] and first[1] > last[1]


def _first_time(log: Sequence[str]) -> _Time | None:
    reader = lines.Reader()
    records = (record for number, line in enumerate(log, 1) for record in reader.read(line, number))
    return next((time for record in records if (time := _time(record.stamp)) is not None), None)


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
    wall = _MONTH.sub(lambda found: str(_MONTHS.index(found[0]) // 3 + 1), _WEEKDAY.sub("", stamp.wall))
    return " ".join(_NUMBER.sub("0", wall).split()), tuple(map(int, _NUMBER.findall(wall)))
