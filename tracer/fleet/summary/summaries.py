"""The columns of the summary tables: `SUMMARIES` has the Arrow schema of each (docs/dataset.md).

Units are in the names. Null means "not known", 0 is zero. A limit that is not set is null, and the flag
`is_limited` beside it is then false. Times are UTC. Columns with `ktime_ns` in their names are
CLOCK_MONOTONIC of the machine in ns. This clock is the same in all traces of one boot, but each recorder
reads it for itself. Processes are identified by their start (CLOCK_BOOTTIME in ns), which the kernel keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from tracer.analysis.results.memory import COMPOSITION_PARTS
from tracer.schema import TIME

SUMMARY_VERSION: Final = 5
"""The version of the columns and their meaning; each row has it in `summary_version`."""

BIN_NS: Final = 60_000_000_000
"""The length of the intervals of `evictors` and `timeline`; they begin at multiples of it in ktime_ns."""

_FLAG: Final = pa.bool_()
_NUMBER: Final = pa.int64()
_TEXT: Final = pa.string()

_Columns = Mapping[str, pa.DataType]

_ORIGIN: Final[_Columns] = {
    "date": pa.date32(),  # the day of `time`, in UTC
    "host": _TEXT,
    "boot_id": _TEXT,
    "trace": _TEXT,  # the name of its directory
    "trace_id": _TEXT,
    "summary_version": pa.int32(),
    "time": TIME,
}
_NAMES: Final[_Columns] = {
    "workload": _TEXT,
    **dict.fromkeys(("namespace", "pod", "container", "container_id", "image"), _TEXT),
    "cgroup": _TEXT,
    "cgroup_id": _NUMBER,
}
_LIMIT: Final[_Columns] = {"limit_bytes": _NUMBER, "is_limited": _FLAG}
_CACHE: Final[_Columns] = {"evicted_bytes": _NUMBER, "refaulted_bytes": _NUMBER}
_OBSERVED: Final[_Columns] = {"first_ktime_ns": _NUMBER, "last_ktime_ns": _NUMBER}
_SIZES: Final = ("usage_bytes", "unreclaimable_bytes", "working_set_bytes")

COMPOSITION_COLUMNS: Final = tuple(f"{part}_bytes" for part in COMPOSITION_PARTS)
"""The columns of `kills` with the composition of usage: they add up to `usage_bytes`."""

_COLUMNS: Final[Mapping[str, _Columns]] = {
    "sources": {
        **_ORIGIN,
        "end": TIME,
        "kernel_release": _TEXT,
        "cgroup_version": _NUMBER,
        "tool_version": _TEXT,
        "end_reason": _TEXT,
        "lost_records": _NUMBER,
        "kills": _NUMBER,
        "bytes_on_disk": _NUMBER,
        # since version 3
        "sigkills": _NUMBER,
    },
    "kills": {
        **_ORIGIN,
        "ktime_ns": _NUMBER,
        "kill_id": _NUMBER,
        "cause": _TEXT,
        "confidence": _TEXT,
        "summary": _TEXT,
        "constraint": _TEXT,
        **_NAMES,
        **_LIMIT,
        **dict.fromkeys(_SIZES, _NUMBER),
        "victims": _NUMBER,
        "victim_comm": _TEXT,
        "victim_pid": _NUMBER,
        "victim_anon_rss_bytes": _NUMBER,
        "victim_cgroup": _TEXT,
        "victim_workload": _TEXT,
        "victim_cgroup_id": _NUMBER,
        "trigger_comm": _TEXT,
        **_CACHE,
        "reclaim_attempts": _NUMBER,
        "stall_ms": pa.float64(),
        "min_limit_low_bytes": _NUMBER,
        "min_limit_high_bytes": _NUMBER,
        **dict.fromkeys(COMPOSITION_COLUMNS, _NUMBER),
        "lost_records": _NUMBER,
        "kmsg": _TEXT,
        # since version 3
        **dict.fromkeys(("grown_function", "grown_file"), _TEXT),
        "grown_line": _NUMBER,
        "grown_module": _TEXT,
        "grown_share": pa.float64(),
        # since version 5
        "victim_start_ns": _NUMBER,
    },
    "sigkills": {
        **_ORIGIN,
        "ktime_ns": _NUMBER,
        **_NAMES,
        "comm": _TEXT,
        "pid": _NUMBER,
        "way": _TEXT,
        "sender_comm": _TEXT,
        "sender_pid": _NUMBER,
        "sender_workload": _TEXT,
        "sender_cgroup": _TEXT,
        "sender_cgroup_id": _NUMBER,
        "parent_comm": _TEXT,
        "since_sigterm_s": pa.float64(),
        **_LIMIT,
        "usage_bytes": _NUMBER,
        "psi_some_share": pa.float64(),
        # since version 5
        "start_ns": _NUMBER,
    },
    "lives": {
        **_ORIGIN,
        "end": TIME,
        "is_begin_seen": _FLAG,
        "is_end_seen": _FLAG,
        "made_ktime_ns": _NUMBER,
        **_OBSERVED,
        "observed_s": pa.float64(),
        **_NAMES,
        **_LIMIT,
        **{f"peak_{name}": _NUMBER for name in _SIZES},
        "kills": _NUMBER,
        **_CACHE,
        # since version 2
        "state": _TEXT,
        "lost_share": pa.float64(),
        "work": _TEXT,
        "peak_with_swap_bytes": _NUMBER,
        "comfortable_bytes": _NUMBER,
        # since version 4
        "killed_below_bytes": _NUMBER,
        "survives_from_bytes": _NUMBER,
        "reads_nothing_from_bytes": _NUMBER,
    },
    "evictors": {
        **_ORIGIN,
        "ktime_ns": _NUMBER,
        **_OBSERVED,
        "owner_workload": _TEXT,
        "evictor_workload": _TEXT,
        "owner_cgroup": _TEXT,
        "evictor_cgroup": _TEXT,
        "owner_cgroup_id": _NUMBER,
        "evictor_cgroup_id": _NUMBER,
        "cause": _TEXT,
        **_CACHE,
    },
    "timeline": {
        **_ORIGIN,
        "ktime_ns": _NUMBER,
        **_OBSERVED,
        **_NAMES,
        **_LIMIT,
        **{f"{statistic}_{name}": _NUMBER for name in _SIZES for statistic in ("max", "mean")},
        **_CACHE,
    },
}
_NEVER_NULL: Final = frozenset({"date", "host", "trace", "trace_id", "summary_version", "time", "workload"})

SUMMARIES: Final[Mapping[str, pa.Schema]] = {
    table: pa.schema([pa.field(name, kind, name not in _NEVER_NULL) for name, kind in columns.items()])
    for table, columns in _COLUMNS.items()
}
"""Summary table -> Arrow schema of its Parquet files."""
