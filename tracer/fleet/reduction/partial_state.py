"""The partial state: what has been read of some traces, and the union of several states.

The columns are those that the answer needs. Several traces of one boot may have rows of the same kill or
life. `once` keeps one of them, and needs all rows of the boot for that. `closed` then sums up the rows of
evictors, and takes from `timeline` what rules for limits need (`working_sets`). After that, states of
different boots are united by concatenating their rows, so neither split nor order changes the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tracer.fleet.reduction import working_sets
from tracer.fleet.summary.overlaps import conform, merged
from tracer.fleet.summary.summaries import SUMMARIES
from tracer.fleet.summary.time_window import ALWAYS, TimeWindow

READ: Final = ("sources", "kills", "lives", "evictors", "timeline")
"""The summary tables that the answer needs."""

_LEFT_OUT: Final[Mapping[str, frozenset[str]]] = {
    "lives": frozenset({"date", "namespace", "pod", "container", "container_id", "image"}),
    "kills": frozenset({"date", "container_id", "image", "kmsg", "trigger_comm"}),
    "timeline": frozenset(SUMMARIES["timeline"].names) - set(working_sets.COLUMNS),
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

UNMERGED: Final[Mapping[str, list[str]]] = {"timeline": working_sets.COLUMNS}
"""Tables whose rows from several traces are not merged, since only their maxima are used -> columns."""

_TABLES: Final = (*READ, "intervals", "last_peaks")

_PAIRS: Final = pa.schema([SCHEMAS["evictors"].field(name) for name in (*_OF_A_PAIR, *_EVICTED)])


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

    After `closed`, `evictors` has a row for each host, pair and cause. `timeline` is then empty; `intervals`
    and `last_peaks` (`working_sets`) replace it.
    """

    sources: pa.Table
    kills: pa.Table
    lives: pa.Table
    evictors: pa.Table
    timeline: pa.Table
    intervals: pa.Table = field(default_factory=working_sets.INTERVALS.empty_table)
    last_peaks: pa.Table = field(default_factory=working_sets.LAST_PEAKS.empty_table)
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
    """Return the closed form of a state that has each row once: with sums of its evictors, and what rules for
    limits need, both for the window. Kills and lives outside of the window stay."""
    evictors, minutes = window.whole_minutes(state.evictors), window.whole_minutes(state.timeline)
    pairs = evictors.group_by(list(_OF_A_PAIR)).aggregate([(name, "sum") for name in _EVICTED])
    pairs = pairs.rename_columns([name.removesuffix("_sum") for name in pairs.column_names])
    return _recent(
        replace(
            state,
            evictors=pairs.select(_PAIRS.names).cast(_PAIRS),
            timeline=SCHEMAS["timeline"].empty_table(),
            intervals=working_sets.intervals(minutes, window.moments(state.kills)),
            last_peaks=working_sets.last_peaks(minutes),
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
        intervals=working_sets.recent_intervals(state.intervals, now),
        last_peaks=working_sets.recent_last_peaks(state.last_peaks, now),
    )
