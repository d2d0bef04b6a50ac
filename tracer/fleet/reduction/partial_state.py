"""The partial state: what has been read of some traces, and the union of several states.

The columns are those that the answer needs. Several traces of one boot may have rows of the same kill or
life. `once` keeps one of them, and needs all rows of the boot for that. `closed` then sums up the rows of
evictors, counts those of `sigkills`, and takes from `timeline` what rules for limits need (working sets).
After that, states of different boots are united by concatenating their rows, so neither split nor order
changes the answer.

Working sets of pods are kept as far as the rules of the VPA and of KRR depend on them. The VPA's rule needs
the peak of each interval of a pod. KRR's rule needs the largest value since the moment 14 days before the end
of the fleet's latest trace, which is known only at the end. So each value of a workload that no later value
reaches is kept, and values too old for any such moment are dropped.

A pod is a Kubernetes pod on one boot of its node. Without Kubernetes, it is a cgroup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tracer.fleet.sizing import other_recommenders
from tracer.fleet.sizing.other_recommenders import vpa_intervals
from tracer.fleet.summary.overlaps import conform, merged
from tracer.fleet.summary.summaries import SUMMARIES
from tracer.fleet.summary.time_window import ALWAYS, TimeWindow
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
    return rows.filter(pc.greater(rows["end"], _scalar(until - other_recommenders.KEPT)))


def recent_last_peaks(rows: pa.Table, until: pd.Timestamp) -> pa.Table:
    """Return the rows that can count at `until` or later, from the rows of several states."""
    return _unreached(rows.filter(pc.greater(rows["time"], _scalar(until - other_recommenders.HISTORY))))


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


READ: Final = ("sources", "kills", "sigkills", "lives", "evictors", "timeline")
"""The summary tables that the answer needs."""

_OF_A_SENDER: Final = ("host", "workload", "sender_comm")
_OF_A_SIGKILL: Final = (
    *("boot_id", "trace", "trace_id", "time", "ktime_ns", "pid", "start_ns", "psi_some_share"),
    *_OF_A_SENDER,
)
_LEFT_OUT: Final[Mapping[str, frozenset[str]]] = {
    "lives": frozenset({"date", "namespace", "pod", "container", "container_id", "image"}),
    "kills": frozenset({"date", "container_id", "image", "kmsg", "trigger_comm"}),
    "sigkills": frozenset(SUMMARIES["sigkills"].names) - set(_OF_A_SIGKILL),
    "timeline": frozenset(SUMMARIES["timeline"].names) - set(COLUMNS),
}
_OF_A_PAIR: Final = ("host", "owner_workload", "evictor_workload", "cause")
_EVICTED: Final = ("evicted_bytes", "refaulted_bytes")


def _schema(name: str) -> pa.Schema:
    left_out = _LEFT_OUT.get(name, frozenset())
    return pa.schema(
        [column.with_nullable(True) for column in SUMMARIES[name] if column.name not in left_out]
    )


SCHEMAS: Final = {name: _schema(name) for name in READ}
"""Table -> its columns in a state whose boots are not closed."""

UNMERGED: Final[Mapping[str, list[str]]] = {"timeline": COLUMNS}
"""Tables whose rows from several traces are not merged, since only their maxima are used -> columns."""

_TABLES: Final = (*READ, "intervals", "last_peaks")

_PAIRS: Final = pa.schema([SCHEMAS["evictors"].field(name) for name in (*_OF_A_PAIR, *_EVICTED)])

_SENDERS: Final = pa.schema(
    [
        *(SCHEMAS["sigkills"].field(name) for name in _OF_A_SENDER),
        *(("count", pa.int64()), ("first", TIME), ("last", TIME)),
    ]
)
_COUNTED: Final = [*_OF_A_SENDER, "ktime_ns_count", "time_min", "time_max"]


@dataclass(frozen=True, slots=True)
class Broken:
    """An input that was left out, and the reason in one line.

    `is_partial`: a bug in memcg-tracer left out only a part of it. `debug` has the tracebacks of bugs.
    """

    path: str
    why: str
    is_partial: bool = False
    debug: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Partial:
    """Rows of the tables of `READ`.

    After `closed`, `evictors` has a row for each host, pair and cause, and `sigkills` one for each host,
    workload and sender. `timeline` is then empty; `intervals`
    and `last_peaks` replace it.
    """

    sources: pa.Table
    kills: pa.Table
    sigkills: pa.Table
    lives: pa.Table
    evictors: pa.Table
    timeline: pa.Table
    intervals: pa.Table = field(default_factory=INTERVALS.empty_table)
    last_peaks: pa.Table = field(default_factory=LAST_PEAKS.empty_table)
    broken: tuple[Broken, ...] = ()

    @property
    def end(self) -> pd.Timestamp | None:
        """Return the end of the latest trace, None without a trace."""
        latest = pc.max(pc.coalesce(self.sources["end"], self.sources["time"])).cast(pa.int64()).as_py()
        return None if latest is None else pd.Timestamp(latest, tz="UTC")

    def now(self, window: TimeWindow) -> pd.Timestamp | None:
        """Return the latest known moment of the window: the "now" of rules that need one."""
        end = self.end
        if end is None or window.until_ns is None:
            return end
        return min(end, pd.Timestamp(window.until_ns, tz="UTC"))


def of_tables(tables: Mapping[str, pa.Table]) -> Partial:
    """Return the state of summary tables; the boots in it are not closed."""
    return Partial(**{name: conform(tables[name], name, SCHEMAS[name].names) for name in READ})


def nothing(*broken: Broken) -> Partial:
    """Return the state without any trace."""
    return Partial(**{name: schema.empty_table() for name, schema in SCHEMAS.items()}, broken=broken)


def union(states: Iterable[Partial], window: TimeWindow = ALWAYS) -> Partial:
    """Return the union of states. All must be closed for the same window, or none may be closed."""
    given = list(states) or [nothing()]
    found = Partial(
        **{name: _together(getattr(state, name) for state in given) for name in _TABLES},
        broken=tuple(one for state in given for one in state.broken),
    )
    return _recent(found, window)


def once(state: Partial) -> Partial:
    """Return the state with each kill, life and eviction once; it must have all rows of its boots."""
    found = merged({name: getattr(state, name) for name in READ if name not in UNMERGED})
    return replace(of_tables({**found, "timeline": state.timeline}), broken=state.broken)


def closed(state: Partial, window: TimeWindow = ALWAYS) -> Partial:
    """Return the closed form of a state that has each row once: with sums of its evictors, counts of
    senders of SIGKILL, and what rules for limits need, all for the window. Kills and lives outside of the
    window stay."""
    evictors, minutes = window.whole_minutes(state.evictors), window.whole_minutes(state.timeline)
    pairs = evictors.group_by(list(_OF_A_PAIR)).aggregate([(name, "sum") for name in _EVICTED])
    pairs = pairs.rename_columns([name.removesuffix("_sum") for name in pairs.column_names])
    senders = window.moments(state.sigkills).group_by(list(_OF_A_SENDER))
    counts = senders.aggregate([("ktime_ns", "count"), ("time", "min"), ("time", "max")])
    return _recent(
        replace(
            state,
            sigkills=counts.select(_COUNTED).rename_columns(_SENDERS.names).cast(_SENDERS),
            evictors=pairs.select(_PAIRS.names).cast(_PAIRS),
            timeline=SCHEMAS["timeline"].empty_table(),
            intervals=intervals(minutes, window.moments(state.kills)),
            last_peaks=last_peaks(minutes),
        ),
        window,
    )


def _together(tables: Iterable[pa.Table]) -> pa.Table:
    given = list(tables)
    some = [table for table in given if table.num_rows]
    return pa.concat_tables(some).combine_chunks() if some else given[0]


def _recent(state: Partial, window: TimeWindow) -> Partial:
    """Return the state without intervals and peaks that no later moment needs."""
    now = state.now(window)
    if now is None:
        return state
    return replace(
        state,
        intervals=recent_intervals(state.intervals, now),
        last_peaks=recent_last_peaks(state.last_peaks, now),
    )
