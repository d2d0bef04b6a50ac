"""Where and when a report stands in the kernel log that it was read from, in words."""

from __future__ import annotations

from typing import Final

from tracer import units
from tracer.analysis.results.quality import KernelLogPlace
from tracer.render.words.escape import visible

_SECTIONS: Final = {
    "header": "who asked",
    "stack": "the call trace",
    "counters": "usage and limit",
    "memory.stat": "memory.stat",
    "mem_info": "the state of the machine",
    "tasks": "the table of processes",
    "summary": "whose limit it was",
    "kill": "the kill",
}
"""Part of a report (`kmsg.facts.SECTIONS`) -> what it says."""


def when(place: KernelLogPlace | None) -> str:
    """As the log has it, where that is no date with its zone."""
    if place is not None and place.wall is not None:
        return f"{visible(place.wall)} by the kernel log"
    if place is not None and place.since_boot_ns is not None:
        return f"{place.since_boot_ns / 1e9:.6f} s after the machine had started"
    return f"when is {units.UNKNOWN}"


def moment(place: KernelLogPlace | None) -> str:
    """The same in a few characters."""
    if place is not None and place.wall is not None:
        return visible(place.wall)
    if place is not None and place.since_boot_ns is not None:
        return f"{place.since_boot_ns / 1e9:.6f} s"
    return units.UNKNOWN


def lines(place: KernelLogPlace) -> str:
    """`lines 12 to 90; not there: the table of processes`."""
    first, last = units.count(place.first_line), units.count(place.last_line)
    words = f"line {first}" if first == last else f"lines {first} to {last}"
    if place.missing:
        words += f"; not there: {', '.join(_SECTIONS[section] for section in place.missing)}"
    if place.suppressed:
        words += f"; {units.count(place.suppressed)} reports before it were not printed (rate limit)"
    return words
