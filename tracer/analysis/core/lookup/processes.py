"""The processes of a trace, looked up one at a time by tgid and time."""

from __future__ import annotations

import pandas as pd

from tracer.analysis.core.columns import column_times_ns, integers, known
from tracer.analysis.core.index import RowIndex


class Processes:
    """The table `tasks`, by tgid. The kernel may give a tgid to several processes, one after the other."""

    def __init__(self, tasks: pd.DataFrame) -> None:
        self._rows = RowIndex.from_keys(integers(tasks["tgid"]))
        self._seen_ns = column_times_ns(tasks["first_seen"])
        self._is_left = ~known(tasks["exited"])
        self._exited_ns = column_times_ns(tasks["exited"])
        self._start_ns = integers(tasks["start_ns"])
        self._comm, self._cmdline = tasks["comm"], tasks["cmdline"]
        self._cgroup_id = integers(tasks["cgroup_id"])

    def comm_at(self, tgid: int, begin_ns: int, end_ns: int) -> str | None:
        """Return the name of the process that had this tgid within an interval, None if it is not known.

        Of several processes, it is the last to start. If none had been seen by then, it is the first one seen
        later: the recorder learns the name of a process after the process has acted.
        """
        row = self._row_at(tgid, begin_ns, end_ns)
        return None if row is None else str(self._comm.iloc[row])

    def cmdline_at(self, tgid: int, begin_ns: int, end_ns: int) -> str | None:
        """Return the command line of the process that `comm_at` finds.

        None if it was never read, or contains no more than the name.
        """
        row = self._row_at(tgid, begin_ns, end_ns)
        if row is None or pd.isna(self._cmdline.iloc[row]):
            return None
        title = str(self._cmdline.iloc[row])
        return None if title.rpartition("/")[2] == str(self._comm.iloc[row]) else title

    def _row_at(self, tgid: int, begin_ns: int, end_ns: int) -> int | None:
        rows = self._rows.rows_for(tgid)
        if not len(rows):
            return None
        seen_ns = self._seen_ns[rows]
        is_there = seen_ns <= max(end_ns, int(seen_ns.min()))
        rows = rows[is_there & (self._is_left[rows] | (self._exited_ns[rows] >= begin_ns))]
        return int(rows[self._start_ns[rows].argmax()]) if len(rows) else None

    def cgroup_at(self, tgid: int, time_ns: int) -> int | None:
        """Return the cgroup of the process that had this tgid at that time, None if it is not known."""
        rows = self._rows.rows_for(tgid)
        rows = rows[
            (self._seen_ns[rows] <= time_ns) & (self._is_left[rows] | (self._exited_ns[rows] >= time_ns))
        ]
        return int(self._cgroup_id[rows[self._start_ns[rows].argmax()]]) if len(rows) else None
