"""The memory of a limit owner when the window before its kill begins, and at the kill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from tracer.analysis.core.columns import utc_time
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.explain.postmortem import PostMortems, allocated_before, no_such_kill
from tracer.analysis.results.kill import OomReport
from tracer.analysis.views.timeline import LEVELS, timeline
from tracer.errors import TracerError

FLOWS: Final = (
    "cache_added_bytes",
    "cache_evicted_bytes",
    "cache_dropped_bytes",
    "cache_refaulted_bytes",
)
_SAMPLED: Final = {f"{name}_bytes": name for name in ("file_dirty", "file_writeback", "zswap")}
COLUMNS: Final = ("cgroup", "cgroup_id", "usage_bytes", "limit_bytes", *LEVELS, *_SAMPLED, *FLOWS)


def kill_window_of(trace: TraceTables, kill_id: int) -> pd.DataFrame:
    """Return the `kill_window` of a kill. Raises UsageError if the trace does not have it."""
    reports = {report.kill_id: report for report in PostMortems(trace).measured()}
    if kill_id not in reports:
        raise no_such_kill(kill_id, sorted(reports))
    return kill_window(trace, reports[kill_id])


def kill_window(trace: TraceTables, report: OomReport) -> pd.DataFrame:
    """Return the memory of the limit owner when the window before its kill begins, and at the kill.

    The window begins where that of the allocators does (`explain.measure.window`): when usage was last below
    half of the limit, at the earliest when the trace began, the cgroup was made, or at the kill before. The
    index, `time` (UTC), has the two moments, and the columns are those of `analysis.views.timeline`. The
    levels of the first row are the ledger's, those of the second are the
    counters that the report has (`OomReport.memory_stat_bytes`); a level that is not known in one row is NA
    in both. The flows of the page cache between the two moments are in the second row, and NA in the first.

    Raises TracerError if no cgroup's limit led to the kill, and UsageError if only the kernel log has it.
    """
    _, begin_ns, kill_ns = allocated_before(trace, report.kill_id)
    owner = report.limit_owner.cgroup_id
    if owner is None:
        raise TracerError(f"kill {report.kill_id} was for no cgroup's limit: there is no usage to take apart")
    # The charge that ended the time below half is an event of the page cache some us later. A cut before it
    # has both on one side. A trace has no level before it began.
    first = _between(trace, owner, begin_ns - 1, begin_ns)
    if first["usage_bytes"].isna().all():
        begin_ns += 1
        first = _between(trace, owner, begin_ns - 1, begin_ns)
    kill_ns = max(kill_ns, begin_ns)
    rows = pd.concat([first, _between(trace, owner, begin_ns, kill_ns + 1)])[list(COLUMNS)]
    begin, kill = utc_time(begin_ns), utc_time(kill_ns)
    rows.index = pd.DatetimeIndex([begin, kill], name="time")
    at_kill = _levels_at_kill(report)
    rows.loc[kill, list(at_kill)] = list(at_kill.values())
    rows.loc[begin, list(FLOWS)] = pd.NA
    sizes = list(rows.columns[rows.columns.str.endswith("_bytes")])
    rows[sizes] = rows[sizes].astype("Int64")
    for name in (*LEVELS, *_SAMPLED):
        if rows[name].isna().any():
            rows[name] = pd.array([pd.NA, pd.NA], dtype="Int64")
    return rows


def _between(trace: TraceTables, owner: int, begin_ns: int, end_ns: int) -> pd.DataFrame:
    """Return the timeline of the cgroup as one row, from `begin_ns` until just before `end_ns`."""
    begin, end = utc_time(begin_ns).isoformat(), utc_time(end_ns).isoformat()
    return timeline(trace, owner, f"{end_ns - begin_ns}ns", begin, end)


def _levels_at_kill(report: OomReport) -> dict[str, int | None]:
    sizes: Mapping[str, int] = report.memory_stat_bytes
    levels: dict[str, int | None] = {
        "usage_bytes": report.composition.total,
        "limit_bytes": report.limit_owner.limit_bytes,
    }
    for name, weights in LEVELS.items():
        # A part of kernel memory that has no counter here is in the remainder, as in the timeline.
        counted = {category: sign for category, sign in weights.items() if sign > 0 or category in sizes}
        is_known = all(category in sizes for category in counted)
        levels[name] = sum(sign * sizes[category] for category, sign in counted.items()) if is_known else None
    return levels | {column: sizes.get(name) for column, name in _SAMPLED.items()}
