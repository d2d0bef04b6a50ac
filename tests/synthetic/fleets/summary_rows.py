"""Rows of the summary tables, from a few columns."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from tracer.fleet.reduction import partial_state
from tracer.fleet.reduction.partial_state import Partial
from tracer.fleet.summary.summaries import SUMMARIES

MIB: Final = 1 << 20
DAY: Final = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
_ORIGIN: Final = {
    "host": "node-1",
    "boot_id": "boot-1",
    "trace": "trace-1",
    "trace_id": "0000000000000001",
    "summary_version": 1,
}
_OF_A_TABLE: Final[Mapping[str, Mapping[str, Any]]] = {
    "sources": {"lost_records": 0, "kills": 0, "sigkills": 0},
    "kills": {"cause": "anon_growth", "workload": "web", "cgroup": "/web", "victim_pid": 7},
    "sigkills": {"workload": "web", "cgroup": "/web", "pid": 7, "way": "kill", "sender_comm": "runc"},
    "lives": {"workload": "web", "cgroup": "/web", "cgroup_id": 5, "is_begin_seen": True, "kills": 0},
    "evictors": {
        **{"owner_workload": "web", "owner_cgroup": "/web", "owner_cgroup_id": 5},
        **{"evictor_workload": "backup", "evictor_cgroup": "/backup", "evictor_cgroup_id": 6},
        "cause": "reclaim_kswapd",
    },
    "timeline": {"workload": "web", "cgroup": "/web", "cgroup_id": 5},
}


def at(minutes: float) -> datetime.datetime:
    """Return a moment after the beginning of `DAY`."""
    return DAY + datetime.timedelta(minutes=minutes)


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows of a summary table; columns that are not given have a default, or else are null."""
    if not rows:
        return SUMMARIES[name].empty_table()
    unset = dict.fromkeys(SUMMARIES[name].names)
    defaults = {**unset, **_ORIGIN, "time": DAY, "date": DAY.date(), **_OF_A_TABLE[name]}
    return pa.Table.from_pylist([{**defaults, **row} for row in rows], SUMMARIES[name])


def state(**rows: Sequence[Mapping[str, Any]]) -> Partial:
    """Return a state of rows of the tables, whose boots are not closed; a table not given is empty."""
    return partial_state.of_tables({name: table(name, rows.get(name, ())) for name in partial_state.READ})
