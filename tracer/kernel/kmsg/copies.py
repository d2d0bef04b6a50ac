"""Copies of one kill in a log: in two journals, in an event, or in a monitor's quotation.

Of several copies, the most complete one is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tracer.kernel.kmsg.report.log_report import Kill, LogReport

_NEAR_NS: Final = 2_000_000_000
_MOST_COPIES: Final = 64
_SIZES: Final = ("total_vm_bytes", "anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes")


def merged(reports: Iterable[LogReport]) -> list[LogReport]:
    """Return the reports without copies, in the order in which each kill first appears."""
    kept: list[LogReport] = []
    places: dict[tuple[int | None, str | None], list[int]] = {}
    for report in reports:
        of_key = places.setdefault(_key(report), [])
        at = next((place for place in of_key[-_MOST_COPIES:] if _is_copy(kept[place], report)), None)
        if at is None:
            of_key.append(len(kept))
            kept.append(report)
        elif _fullness(report) > _fullness(kept[at]):
            kept[at] = report
    return kept


def _key(report: LogReport) -> tuple[int | None, str | None]:
    """Return what all copies have in common: the killed task, or the trigger of a report without a kill."""
    if report.kills:
        return report.kills[0].pid, report.kills[0].comm
    return report.invoker.pid, None


def _is_copy(one: LogReport, other: LogReport) -> bool:
    times = one.stamp.since_boot_ns, other.stamp.since_boot_ns
    if one.kills and other.kills:
        times = one.kills[0].stamp.since_boot_ns, other.kills[0].stamp.since_boot_ns
    is_timed = None not in times
    if is_timed and abs((times[0] or 0) - (times[1] or 0)) > _NEAR_NS:
        return False
    if one.kills and other.kills:
        return _has_same_sizes(one.kills[0], other.kills[0])
    return is_timed and times[0] == times[1] and one.invoker == other.invoker


def _has_same_sizes(one: Kill, other: Kill) -> bool:
    """Return whether all sizes that both have are equal; an event has no sizes."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in _SIZES]
    known = [(left, right) for left, right in pairs if left is not None and right is not None]
    has_none = any(all(getattr(kill, name) is None for name in _SIZES) for kill in (one, other))
    return has_none or (bool(known) and all(left == right for left, right in known))


def _fullness(report: LogReport) -> tuple[int, int, int]:
    known = sum(getattr(kill, name) is not None for kill in report.kills for name in _SIZES)
    return -len(report.missing), len(report.tasks), known
