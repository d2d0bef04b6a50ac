"""Copies of one kill in a log: in two journals, in an event, or in a monitor's quotation.

Among copies, the most complete one is kept. A piece of a report that names nothing is not a kill: the title
of the table of tasks, or the beginning of a line `oom-kill:`. A search for words leaves such pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tracer.kernel.kmsg.report import kill_lines
from tracer.kernel.kmsg.report.log_report import Invoker, Kill, LogReport

_NEAR_NS: Final = 2_000_000_000
_MOST_COPIES: Final = 64
_SIZES: Final = ("total_vm_bytes", "anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes")


def merged(reports: Iterable[LogReport]) -> list[LogReport]:
    """Return the reports without copies, in the order in which each kill first appears.

    An event of the kubelet is a copy if the kernel's lines have a kill of a process of the same name: the
    event follows these lines, and may be repeated. The beginning of a line `oom-kill:` is kept if the log has
    nothing else: it still shows that there was a kill.
    """
    pieces: list[LogReport] = []
    kept: list[LogReport] = []
    places: dict[tuple[int | None, str | None], list[int]] = {}
    for report in reports:
        if _is_piece(report):
            pieces.append(report)
            continue
        of_key = places.setdefault(_key(report), [])
        at = next((place for place in of_key[-_MOST_COPIES:] if _is_copy(kept[place], report)), None)
        if at is None:
            of_key.append(len(kept))
            kept.append(report)
        elif _fullness(report) > _fullness(kept[at]):
            kept[at] = report
    logged = {kill.comm for report in kept for kill in report.kills if kill.reason != kill_lines.EVENT}
    kept = [report for report in kept if not _is_event_on(logged, report)]
    return kept or [piece for piece in pieces if piece.constraint != "unknown"][-1:]


def _is_event_on(comms: set[str], report: LogReport) -> bool:
    return bool(report.kills) and all(
        kill.reason == kill_lines.EVENT and kill.comm in comms for kill in report.kills
    )


def _is_piece(report: LogReport) -> bool:
    """Return whether a report names no task, no cgroup, and no memory."""
    has_names = report.kills or report.chosen or report.oom_memcg or report.task_memcg or report.group_memcg
    has_memory = report.counters or report.stats or report.tasks or report.mem_info
    is_of_panic = report.is_panic or report.is_no_task_killable
    return not (has_names or has_memory or is_of_panic or report.stack or report.invoker != Invoker())


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
    """Return whether all sizes that both kills have are equal; an event has no sizes."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in _SIZES]
    known = [(left, right) for left, right in pairs if left is not None and right is not None]
    has_none = any(all(getattr(kill, name) is None for name in _SIZES) for kill in (one, other))
    return has_none or (bool(known) and all(left == right for left, right in known))


def _fullness(report: LogReport) -> tuple[int, int, int]:
    known = sum(getattr(kill, name) is not None for kill in report.kills for name in _SIZES)
    return -len(report.missing), len(report.tasks), known
