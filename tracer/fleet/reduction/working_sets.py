"""The working sets of pods over time, as far as the rules of the VPA and of KRR depend on them.

The VPA's rule needs the peak of each interval of a pod. KRR's rule needs the largest value since the moment
14 days before the end of the fleet's latest trace, which is known only at the end. So each value of a
workload that no later value reaches is kept, and values too old for any such moment are dropped.

A pod is a Kubernetes pod on one boot of its node. Without Kubernetes, it is a cgroup.
"""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tracer.fleet.sizing import resource_recommender, vertical_pod_autoscaler
from tracer.fleet.sizing.vertical_pod_autoscaler import vpa_intervals
from tracer.schema import TIME

COLUMNS: Final = [
    *("boot_id", "trace_id", "time", "workload", "namespace", "pod", "cgroup_id"),
    "max_working_set_bytes",
]
"""The columns of the table `timeline` that are read."""

INTERVALS: Final = pa.schema([("workload", pa.string()), ("end", TIME), ("peak_bytes", pa.float64())])
"""The input of the VPA's rule: the intervals of pods, with kills in their peaks."""
LAST_PEAKS: Final = pa.schema([("workload", pa.string()), ("time", TIME), ("bytes", pa.int64())])
"""The input of KRR's rule: the values that no later value of the workload reaches."""

_OF_A_POD: Final = ["workload", "boot", "namespace", "pod", "cgroup_id"]


def intervals(timeline: pa.Table, kills: pa.Table) -> pa.Table:
    """Return the rows of `INTERVALS` from all rows of some boots."""
    seen = timeline.filter(pc.is_valid(timeline["max_working_set_bytes"]))
    if not seen.num_rows and not kills.num_rows:
        return INTERVALS.empty_table()
    rows = pd.concat([_pods(seen), _pods(kills)], ignore_index=True)
    number = rows.groupby(_OF_A_POD, dropna=False, sort=False).ngroup().to_numpy()
    found = vpa_intervals(
        _frame(seen, "max_working_set_bytes", "bytes").assign(pod=number[: seen.num_rows]),
        _frame(kills, "limit_bytes", "limit_bytes").assign(pod=number[seen.num_rows :]),
    )
    workloads = rows["workload"].groupby(number).first()
    return _table(found.assign(workload=found["pod"].map(workloads)), INTERVALS)


def last_peaks(timeline: pa.Table) -> pa.Table:
    """Return the rows of `LAST_PEAKS` from any rows."""
    rows = timeline.select(["workload", "time", "max_working_set_bytes"]).rename_columns(LAST_PEAKS.names)
    return _unreached(rows.cast(LAST_PEAKS))


def recent_intervals(rows: pa.Table, until: pd.Timestamp) -> pa.Table:
    """Return the rows that can count at `until` or later."""
    return rows.filter(pc.greater(rows["end"], _scalar(until - vertical_pod_autoscaler.KEPT)))


def recent_last_peaks(rows: pa.Table, until: pd.Timestamp) -> pa.Table:
    """Return the rows that can count at `until` or later, from the rows of several states."""
    return _unreached(rows.filter(pc.greater(rows["time"], _scalar(until - resource_recommender.HISTORY))))


def _unreached(rows: pa.Table) -> pa.Table:
    """Return the rows whose value is larger than all later values of the workload."""
    if not rows.num_rows:
        return rows
    frame = (
        rows.filter(pc.is_valid(rows["bytes"])).to_pandas().sort_values(["time", "bytes"], ascending=False)
    )
    greatest = frame.groupby("workload", sort=False)["bytes"].cummax()
    before = greatest.groupby(frame["workload"], sort=False).shift(fill_value=-1)
    return _table(frame[frame["bytes"] > before], LAST_PEAKS)


def _pods(rows: pa.Table) -> pd.DataFrame:
    """Return the columns that distinguish pods, for each row."""
    has_name = pc.is_valid(rows["pod"])
    columns = [
        *(rows["workload"], pc.coalesce(rows["boot_id"], rows["trace_id"])),
        *(pc.if_else(has_name, rows["namespace"], None), rows["pod"]),
        pc.if_else(has_name, None, rows["cgroup_id"]),
    ]
    found: pd.DataFrame = pa.Table.from_arrays(columns, _OF_A_POD).to_pandas(types_mapper=pd.ArrowDtype)
    return found


def _frame(rows: pa.Table, name: str, new_name: str) -> pd.DataFrame:
    """Return the time and a column in bytes, NaN where it is null."""
    found: pd.DataFrame = rows.select(["time", name]).rename_columns(["time", new_name]).to_pandas()
    return found


def _table(rows: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pandas(rows[schema.names], schema, preserve_index=False)


def _scalar(moment: pd.Timestamp) -> Any:
    return pa.scalar(moment.as_unit("ns").value, pa.int64()).cast(TIME)
