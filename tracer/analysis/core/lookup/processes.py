"""The processes of a trace, looked up one after the other."""

from __future__ import annotations

import pandas as pd

from tracer.analysis.core.columns import column_times_ns, integers, known
from tracer.analysis.core.index import Grouped


class Processes:
    """The processes of a trace, for whoever asks for one after the other."""

    def __init__(self, tasks: pd.DataFrame) -> None:
        self._rows = Grouped.by(integers(tasks["tgid"]))
        self._seen_ns = column_times_ns(tasks["first_seen"])
        self._is_left = ~known(tasks["exited"])
        self._exited_ns = column_times_ns(tasks["exited"])
        self._start_ns = integers(tasks["start_ns"])
        self._comm, self._cmdline = tasks["comm"], tasks["cmdline"]
        self._cgroup_id = integers(tasks["cgroup_id"])

    def comm_at(self, tgid: int, begin_ns: int, end_ns: int) -> str | None:
        """The name of the process that had this tgid within the interval: the last to start where the kernel
        gave the number out again; else of the first one after it, if there was none before, since who acts is
        named after the deed. None when the trace does not hold it."""
        row = self._row_at(tgid, begin_ns, end_ns)
        return None if row is None else str(self._comm.iloc[row])

    def cmdline_at(self, tgid: int, begin_ns: int, end_ns: int) -> str | None:
        """The title of the same process; None when that was never read, or says no more than its name."""
        row = self._row_at(tgid, begin_ns, end_ns)
        if row is None or pd.isna(self._cmdline.iloc[row]):
            return None
        title = str(self._cmdline.iloc[row])
        return None if title.rpartition("/")[2] == str(self._comm.iloc[row]) else title

    def _row_at(self, tgid: int, begin_ns: int, end_ns: int) -> int | None:
        rows = self._rows.of(tgid)
        if not len(rows):
            return None
        seen_ns = self._seen_ns[rows]
        is_there = seen_ns <= max(end_ns, int(seen_ns.min()))
        rows = rows[is_there & (self._is_left[rows] | (self._exited_ns[rows] >= begin_ns))]
        return int(rows[self._start_ns[rows].argmax()]) if len(rows) else None

    def cgroup_at(self, tgid: int, time_ns: int) -> int | None:
        """The cgroup of the process that had this tgid then; None when the trace does not hold it."""
        rows = self._rows.of(tgid)
        rows = rows[
            (self._seen_ns[rows] <= time_ns) & (self._is_left[rows] | (self._exited_ns[rows] >= time_ns))
        ]
        return int(self._cgroup_id[rows[self._start_ns[rows].argmax()]]) if len(rows) else None
