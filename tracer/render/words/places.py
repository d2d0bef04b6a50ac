"""Where a reader finds something: the names of a cgroup, and the place of a report in the kernel log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from tracer import units
from tracer.analysis.results.kill import LimitOwner
from tracer.analysis.results.quality import KernelLogPlace
from tracer.render.words.escape import fitted, visible

if TYPE_CHECKING:
    from tracer.analysis.results.survivor import Held

_SHORT_CELLS: Final = 48


def place(
    cgroup: str | None, container: str | None, pod: str | None = None, *, run: int | None, runs: int | None
) -> str:
    """Return `container web, pod web-1 (/docker/4f…)`, after `run 3 of 7 of ` for one of several lives."""
    path = visible(cgroup) if cgroup is not None else "a cgroup whose path is not known"
    names = [f"{kind} {visible(name)}" for kind, name in (("container", container), ("pod", pod)) if name]
    where = f"{', '.join(names)} ({path})" if names else path
    return where if run is None or runs is None or runs == 1 else f"{one_of(run, runs)} of {where}"


def place_of_life(cgroup: LimitOwner | Held) -> str:
    """Return the place of a limit owner or of a surviving cgroup."""
    pod = cgroup.pod if isinstance(cgroup, LimitOwner) else None
    return place(cgroup.cgroup, cgroup.container, pod, run=cgroup.run, runs=cgroup.runs)


def place_in_short(cgroup: LimitOwner | Held) -> str:
    """Return `container web`, else the path, with the run if there are several. A long name is shortened."""
    path = (
        "a cgroup whose path is not known" if cgroup.cgroup is None else fitted(cgroup.cgroup, _SHORT_CELLS)
    )
    name = path if cgroup.container is None else f"container {fitted(cgroup.container, _SHORT_CELLS)}"
    run, runs = cgroup.run, cgroup.runs
    return name if run is None or runs is None or runs == 1 else f"{one_of(run, runs)} of {name}"


def one_of(run: int, runs: int) -> str:
    """Return `run 3 of 7`."""
    return f"run {run} of {runs}"


def listed(runs: Iterable[int]) -> str:
    """Return `run 3` or `runs 1, 3 to 5` for ascending run numbers."""
    words: list[str] = []
    is_one = True
    for first, last in _without_gaps(runs):
        is_one = not words and first == last
        words.append(f"{first} to {last}" if last > first + 1 else ", ".join(map(str, sorted({first, last}))))
    return f"run{'' if is_one else 's'} {', '.join(words)}"


def _without_gaps(runs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) for each sequence of consecutive numbers."""
    piece: tuple[int, int] | None = None
    for run in runs:
        if piece is not None and run == piece[1] + 1:
            piece = piece[0], run
            continue
        if piece is not None:
            yield piece
        piece = run, run
    if piece is not None:
        yield piece


_SECTIONS: Final = {
    "header": "the request",
    "stack": "the call trace",
    "counters": "usage and limit",
    "memory.stat": "memory.stat",
    "mem_info": "the state of the machine",
    "tasks": "the table of processes",
    "summary": "the constraint and the cgroups",
    "kill": "the kill",
}
"""Part of a report (`kernel.kmsg.report.log_report.SECTIONS`) -> its contents."""


def when_logged(place: KernelLogPlace | None) -> str:
    """Return the time in the form of the log, for a log without dates and time zones."""
    if place is not None and place.wall is not None:
        return f"{visible(place.wall)} by the kernel log"
    if place is not None and place.since_boot_ns is not None:
        return f"{place.since_boot_ns / 1e9:.6f} s after boot"
    return f"time {units.UNKNOWN}"


def logged_moment(place: KernelLogPlace | None) -> str:
    """Return the time in the form of the log, in a few characters."""
    if place is not None and place.wall is not None:
        return visible(place.wall)
    if place is not None and place.since_boot_ns is not None:
        return f"{place.since_boot_ns / 1e9:.6f} s"
    return units.UNKNOWN


def lines_of_log(place: KernelLogPlace) -> str:
    """Return `lines 12 to 90; missing: the table of processes`."""
    first, last = units.count(place.first_line), units.count(place.last_line)
    words = f"line {first}" if first == last else f"lines {first} to {last}"
    if place.missing:
        words += f"; missing: {', '.join(_SECTIONS[section] for section in place.missing)}"
    if place.suppressed:
        words += f"; {units.count(place.suppressed)} earlier reports were not printed (rate limit)"
    return words
