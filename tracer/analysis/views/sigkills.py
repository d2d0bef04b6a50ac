"""The SIGKILLs of a trace that ended processes and were not the OOM killer's."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core import naming
from tracer.analysis.core.columns import Int64s, integers, times_ns
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.sigkill import PRESSURE_WINDOW_S, Sigkill, from_row

_SECOND_NS: Final = 1_000_000_000
_SHORTEST_NS: Final = _SECOND_NS
_UPDATED_NS: Final = 2_100_000_000
"""The kernel brings the time of memory.pressure up to date when it is read, but only every two seconds
(PSI_FREQ, kernel/sched/psi.c). So a reading can be old, unless it differs from the one before, or none
differed for so long."""
_NO_READINGS: Final[tuple[Int64s, Int64s]] = (np.empty(0, np.int64), np.empty(0, np.int64))


def sigkills(trace: TraceTables, cgroup: str | int | None = None) -> list[Sigkill]:
    """Return a `Sigkill` for each row of `sigkills`, by time. With `cgroup`, only those of processes in the
    cgroups that it names, or below them."""
    rows = trace.sigkills
    if cgroup is not None:
        members = naming.members_of(trace, naming.select(trace, cgroup))
        rows = rows[np.isin(integers(rows["cgroup_id"]), members)]
    known = trace.cgroups.set_index("cgroup_id")[["path", "container"]]
    names = {
        int(number): (path, None if pd.isna(container) else container)
        for number, path, container in known.itertuples(name=None)
    }
    dicts: list[Any] = rows.astype(object).where(rows.notna(), None).to_dict("records")
    pressure = _Pressure(trace)
    return [
        from_row(
            row,
            names,
            time=time,
            pressure_share=pressure.share(row["cgroup_id"], time.as_unit("ns").value),
        )
        for time, row in zip(rows.index, dicts, strict=True)
    ]


class _Pressure:
    """The readings of memory.pressure of each cgroup, which include its descendants."""

    def __init__(self, trace: TraceTables) -> None:
        read = trace.samples[["cgroup_id", "psi_some_total_us"]].dropna()
        self._readings = {
            number: (times_ns(rows), integers(rows["psi_some_total_us"]))
            for number, rows in read.groupby("cgroup_id", observed=True)
        }

    def share(self, cgroup_id: int, time_ns: int) -> float | None:
        """Return the part of the `PRESSURE_WINDOW_S` before a moment in which a task of the cgroup waited.
        None: the readings of that time are too few."""
        times, totals_us = self._readings.get(cgroup_id, _NO_READINGS)
        window = slice(
            *np.searchsorted(times, [time_ns - PRESSURE_WINDOW_S * _SECOND_NS, time_ns + 1]).tolist()
        )
        times, totals_us = times[window], totals_us[window]
        if len(times) < 2:
            return None
        changed = 1 + np.flatnonzero(np.diff(totals_us))
        is_old = [len(changed) and times[changed[0]] - times[0] < _UPDATED_NS]
        is_old += [len(changed) and times[-1] - times[changed[-1]] < _UPDATED_NS]
        first, last = changed[0] if is_old[0] else 0, changed[-1] if is_old[1] else len(times) - 1
        took_ns = int(times[last] - times[first])
        if took_ns < _SHORTEST_NS:
            return None
        return min(float(totals_us[last] - totals_us[first]) * 1000 / took_ns, 1.0)
