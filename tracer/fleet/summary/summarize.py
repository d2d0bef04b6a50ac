"""The summary tables of one trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tracer.analysis.trace import AnalysedTrace
from tracer.errors import Defects
from tracer.fleet.summary.evictor_rows import evictor_rows
from tracer.fleet.summary.kill_rows import kill_rows
from tracer.fleet.summary.life_rows import life_rows
from tracer.fleet.summary.named_cgroups import NamedCgroups
from tracer.fleet.summary.origin import Origin
from tracer.fleet.summary.summaries import SUMMARIES
from tracer.fleet.summary.time_window import time_ns


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a trace: `tables` has an Arrow table for each of `SUMMARIES`, `defects` the bugs that
    cost a part of them."""

    origin: Origin
    tables: Mapping[str, pa.Table]
    defects: Defects


def summarize(trace: AnalysedTrace) -> Summary:
    """Return the summary of a trace. Raises TraceError for a damaged one."""
    origin, names = Origin.from_trace(trace), NamedCgroups(trace)
    kills = kill_rows(trace.explain(), origin, names)
    lives = life_rows(trace, origin, names, kills)
    rows = {
        "sources": [_source_row(trace, origin, len(kills))],
        "kills": kills,
        "lives": lives.lives,
        "evictors": trace.defects.attempt(
            "the evicted page cache", lambda: evictor_rows(trace, origin, names), lambda _: []
        ),
        "timeline": lives.timeline,
    }
    tables = {table: pa.Table.from_pylist(rows[table], schema) for table, schema in SUMMARIES.items()}
    return Summary(origin, tables, trace.defects)


def _source_row(trace: AnalysedTrace, origin: Origin, kills: int) -> dict[str, Any]:
    meta, last_ns = trace.meta, trace.span_ns[1]
    ended, lost = meta["ended"], meta["lost"]
    return {
        **origin.row(time_ns(meta["started"])),
        "end": (last_ns or None) if ended is None else time_ns(ended),
        "kernel_release": meta["kernel_release"],
        "cgroup_version": meta["cgroup_version"],
        "tool_version": meta["tool_version"],
        "end_reason": meta.get("end_reason"),
        "lost_records": None if lost is None else sum(lost.values()),
        "kills": kills,
        "bytes_on_disk": trace.size_bytes,
    }
