"""What reclaim tried for a cgroup."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis import names, stalls, swapping
from tracer.analysis.report import Reclaim, ReclaimAttempt
from tracer.analysis.tables import (
    NO_ID,
    Bools,
    Int64s,
    TraceTables,
    integers,
    is_one_of,
    iso_time,
    optional,
    times_ns,
)
from tracer.schema import RECLAIM_COUNTS

_TRANSCRIPT: Final = 12


def is_waited_for(reclaim: pd.DataFrame) -> Bools:
    """Which attempts a task waited for: kswapd works for others in its own time (mm/vmscan.c)."""
    return ~is_one_of(reclaim["kind"], ["kswapd"])


def attempts(trace: TraceTables, targets: Int64s, begin_ns: int, end_ns: int) -> Reclaim:
    """The attempts for these cgroups that began within the interval, both ends included; and who waited.

    `NO_ID` stands for attempts for the whole machine, for which any process may have waited.
    """
    rows = _aimed_at(trace, targets, begin_ns, end_ns)
    cgroup_ids = None if NO_ID in targets else targets
    return Reclaim(
        attempts=len(rows),
        scanned_pages=int(integers(rows["scanned"]).sum()),
        reclaimed_pages=int(integers(rows["reclaimed"]).sum()),
        stall_ms=float(integers(rows["duration_ns"])[is_waited_for(rows)].sum() / 1e6),
        transcript=_transcript(trace, rows.iloc[-_TRANSCRIPT:]),
        waiters=stalls.longest(trace, cgroup_ids, begin_ns, end_ns),
        swap_writes=swapping.written(trace, cgroup_ids, begin_ns, end_ns),
    )


def reclaimed_anon_pages(trace: TraceTables, targets: Int64s, begin_ns: int, end_ns: int) -> int:
    """Pages that the attempts for these cgroups took from anonymous lists: they went to swap."""
    return int(integers(_aimed_at(trace, targets, begin_ns, end_ns)["reclaimed_anon"]).sum())


def _aimed_at(trace: TraceTables, targets: Int64s, begin_ns: int, end_ns: int) -> pd.DataFrame:
    reclaim = trace.reclaim
    first, last = np.searchsorted(times_ns(reclaim), [begin_ns, end_ns + 1])
    rows = reclaim.iloc[first:last]
    return rows[np.isin(integers(rows["cgroup_id"]), targets)]


def _transcript(trace: TraceTables, rows: pd.DataFrame) -> tuple[ReclaimAttempt, ...]:
    moments = times_ns(rows).tolist()
    return tuple(
        ReclaimAttempt(
            time=iso_time(moment),
            duration_ms=row["duration_ns"] / 1e6,
            kind=str(row["kind"]),
            cgroup=names.path_of(trace.cgroups, optional(row["cgroup_id"])),
            pid=int(row["pid"]),
            comm=names.comm_at(trace.tasks, int(row["tgid"]), moment, moment),
            scanned_pages=int(row["scanned"]),
            reclaimed_pages=int(row["reclaimed"]),
            priority=optional(row["priority"]),
            scanned_anon_pages=int(row["scanned_anon"]),
            scanned_file_pages=int(row["scanned_file"]),
            reclaimed_anon_pages=int(row["reclaimed_anon"]),
            reclaimed_file_pages=int(row["reclaimed_file"]),
            nr_dirty=int(row["nr_dirty"]),
            nr_writeback=int(row["nr_writeback"]),
            usage_bytes=optional(row["usage_bytes"]),
            limit_bytes=optional(row["limit_bytes"]),
            kept_anon=_kept(row, "anon"),
            kept_file=_kept(row, "file"),
        )
        for moment, row in zip(moments, rows.to_dict("records"), strict=True)
    )


def _kept(row: dict[Hashable, Any], lru: str) -> dict[str, int] | None:
    """What the attempt met on this list and could not free, in pages."""
    if pd.isna(row[f"nr_dirty_{lru}"]):
        return None
    return {count: int(row[f"{count}_{lru}"]) for count in RECLAIM_COUNTS}
