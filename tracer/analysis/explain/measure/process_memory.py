"""The memory of processes by mapping, from the looks of the recorder."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core.columns import Int64s, integers, optional, records, times_ns, utc_time
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.table_rows import TableRows
from tracer.analysis.results.memory import MappedPart, ProcessMemory

_OF_FILES: Final = ("file", "shared")
_ONE_LOOK_NS: Final = 2_000_000_000  # in which the processes of a cgroup are read, one after the other


def before_kill(
    subtree: Subtree, begin_ns: int, kill_ns: int, killed: Collection[int]
) -> tuple[ProcessMemory, ...]:
    """Return the last look at each process that was there at a kill: the killed ones first, then the largest.

    `begin_ns`: what was looked at before does not count.
    """
    rows, exited_at = _rows(subtree, begin_ns, kill_ns), subtree.whole.processes.exited_at
    if rows is None:
        return ()
    listed = [
        one
        for one in _last_looks(subtree, rows)
        if one.pid in killed or exited_at(one.pid, one.time.as_unit("ns").value, kill_ns) is None
    ]
    return tuple(sorted(listed, key=lambda one: (one.pid not in killed, -one.rss_bytes)))


def fullest(subtree: Subtree, begin_ns: int, end_ns: int) -> tuple[ProcessMemory, ...]:
    """Return the look within an interval that found most memory, with the largest process first."""
    rows = _rows(subtree, begin_ns, end_ns)
    if rows is None:
        return ()
    times = times_ns(rows)
    look = np.cumsum(np.diff(times, prepend=times[0]) > _ONE_LOOK_NS // 4)
    held = np.bincount(look, rows["anon_bytes"].to_numpy(dtype=np.int64))
    found = _last_looks(subtree, rows[look == int(held.argmax())])
    return tuple(sorted(found, key=lambda one: -one.rss_bytes))


def _rows(subtree: Subtree, begin_ns: int, end_ns: int) -> pd.DataFrame | None:
    """Return the rows of `mappings` within an interval, in the order of time; None if there are none."""
    times, order = subtree.once("process_memory", lambda: _in_order(subtree.rows("mappings")))
    first, last = np.searchsorted(times, begin_ns), np.searchsorted(times, end_ns, "right")
    return subtree.mappings.iloc[order[first:last]] if first < last else None


def _in_order(rows: TableRows) -> tuple[Int64s, npt.NDArray[np.intp]]:
    times = rows.times
    order = np.argsort(times, kind="stable")
    return times[order], order


def _last_looks(subtree: Subtree, rows: pd.DataFrame) -> list[ProcessMemory]:
    """Return the last look at each process."""
    tgids, times = integers(rows["tgid"]), times_ns(rows)
    found = []
    for tgid in np.unique(tgids).tolist():
        time_ns = int(times[tgids == tgid].max())
        found.append(_process(subtree, tgid, time_ns, rows[(tgids == tgid) & (times == time_ns)]))
    return found


def _process(subtree: Subtree, tgid: int, time_ns: int, rows: pd.DataFrame) -> ProcessMemory:
    parts = [_part(row) for row in records(rows)]
    return ProcessMemory(
        pid=tgid,
        comm=subtree.whole.processes.comm_at(tgid, time_ns, time_ns),
        time=utc_time(time_ns),
        rss_bytes=sum(part.rss_bytes for part in parts),
        shared_bytes=sum(
            part.rss_bytes - part.pss_bytes
            for part in parts
            if part.pss_bytes is not None and part.kind not in _OF_FILES
        ),
        parts=tuple(sorted(parts, key=lambda part: -(part.rss_bytes + part.swap_bytes))),
    )


def _part(row: Any) -> MappedPart:
    sizes = {name: int(row[name]) for name in ("count", "rss_bytes", "anon_bytes", "swap_bytes")}
    return MappedPart(
        kind=str(row["kind"]), name=str(row["name"]), pss_bytes=optional(row["pss_bytes"]), **sizes
    )
