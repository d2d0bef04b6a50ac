"""The position and the time of a report in the kernel log from which it was read."""

from __future__ import annotations

from typing import Final

from tracer import units
from tracer.analysis.results.quality import KernelLogPlace
from tracer.render.words.escape import visible

_SECTIONS: Final = {
    "header": "the requesting task",
    "stack": "the call trace",
    "counters": "usage and limit",
    "memory.stat": "memory.stat",
    "mem_info": "the state of the machine",
    "tasks": "the table of processes",
    "summary": "the owner of the limit",
    "kill": "the kill",
}
"""Part of a report (`kernel.kmsg.log_report.SECTIONS`) -> its contents."""


def when(place: KernelLogPlace | None) -> str:
    """Return the time in the form of the log, for a log without dates and time zones."""
    if place is not None and place.wall is not None:
        return f"{visible(place.wall)} by the kernel log"
    if place is not None and place.since_boot_ns is not None:
        return f"{place.since_boot_ns / 1e9:.6f} s after boot"
    return f"time {units.UNKNOWN}"


def moment(place: KernelLogPlace | None) -> str:
    """Return the time in the form of the log, in a few characters."""
    if place is not None and place.wall is not None:
        return visible(place.wall)
    if place is not None and place.since_boot_ns is not None:
        return f"{place.since_boot_ns / 1e9:.6f} s"
    return units.UNKNOWN


def lines(place: KernelLogPlace) -> str:
    """Return `lines 12 to 90; missing: the table of processes`."""
    first, last = units.count(place.first_line), units.count(place.last_line)
    words = f"line {first}" if first == last else f"lines {first} to {last}"
    if place.missing:
        words += f"; missing: {', '.join(_SECTIONS[section] for section in place.missing)}"
    if place.suppressed:
        words += f"; {units.count(place.suppressed)} earlier reports were not printed (rate limit)"
    return words
